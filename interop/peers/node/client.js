// A client of node coap: one request a line of standard input, as JSON; one answer a line back.
"use strict";

const readline = require("node:readline");
const coap = require("coap");

// The library slices a payload where it is told the exponent of the size (RFC 7959 section 2.2).
const BLOCK_SIZE = 1024;
const BLOCK_EXPONENT = 6;

const [host, port] = [process.argv[2], Number(process.argv[3])];

function say(answer) {
  process.stdout.write(JSON.stringify(answer) + "\n");
}

function ask(one) {
  const request = coap.request({
    host,
    port,
    method: one.method,
    pathname: "/" + one.path,
    confirmable: one.confirmable,
    observe: one.observe > 0,
    token: one.token === null ? undefined : Buffer.from(one.token, "hex"),
  });
  if (one.queries.length) {
    request.setOption("Uri-Query", one.queries.map((query) => Buffer.from(query)));
  }
  if (one.content_format !== null) {
    const octets = Buffer.alloc(2);
    octets.writeUInt16BE(one.content_format);
    request.setOption("Content-Format", one.content_format ? octets : Buffer.alloc(0));
  }
  for (const [number, value] of one.options) {
    request.setOption(String(number), Buffer.from(value, "hex"));
  }
  const payload = Buffer.from(one.payload, "hex");
  if (payload.length > BLOCK_SIZE) request.setOption("Block1", Buffer.from([BLOCK_EXPONENT]));
  request.on("response", (response) => {
    if (one.observe) {
      let count = 0;
      response.on("data", (data) => {
        say({ id: one.id, code: response.code, payload: data.toString("hex") });
        count += 1;
        if (count === one.observe) response.close(true);
      });
      return;
    }
    const parts = [];
    response.on("data", (part) => parts.push(part));
    response.on("end", () => {
      say({ id: one.id, code: response.code, payload: Buffer.concat(parts).toString("hex") });
    });
  });
  request.on("error", (error) => say({ id: one.id, error: String(error.message || error) }));
  request.end(payload);
}

readline
  .createInterface({ input: process.stdin })
  .on("line", (line) => ask(JSON.parse(line)))
  .on("close", () => process.exit(0));
say({ ready: true });
