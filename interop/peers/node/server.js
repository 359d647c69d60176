// A server of node coap with the resources that every peer has; says its port and ends with stdin.
"use strict";

const { createHash } = require("node:crypto");
const coap = require("coap");

const SLOW_MS = 300;
const BIG = Buffer.from(Array.from({ length: 5000 }, (_, index) => index % 251));
const UNSUPPORTED_FORMAT = 65000;

let kept = Buffer.alloc(0);
let count = 0;

function answer(response, code, payload) {
  response.code = code;
  response.end(payload);
}

function digest(body) {
  return createHash("sha256").update(body).digest("hex");
}

function formatOf(request) {
  const found = request.options.find((option) => option.name === "Content-Format");
  if (!found) return null;
  return Buffer.isBuffer(found.value) ? found.value.readUIntBE(0, found.value.length) : found.value;
}

const resources = {
  "/hello": { GET: (_, response) => answer(response, "2.05", "hello") },
  "/kept": {
    GET: (_, response) => answer(response, "2.05", kept),
    PUT: (request, response) => {
      if (String(formatOf(request)).includes(String(UNSUPPORTED_FORMAT))) {
        return answer(response, "4.15");
      }
      kept = request.payload;
      return answer(response, "2.04");
    },
    DELETE: (_, response) => {
      kept = Buffer.alloc(0);
      answer(response, "2.02");
    },
  },
  "/echo": {
    POST: (request, response) => answer(response, "2.04", "re " + request.payload),
    FETCH: (request, response) => answer(response, "2.05", "re " + request.payload),
  },
  "/query": { GET: (request, response) => answer(response, "2.05", request.url.split("?")[1]) },
  "/slow": {
    GET: (_, response) => setTimeout(() => answer(response, "2.05", "at last"), SLOW_MS),
  },
  "/secret": { POST: (_, response) => answer(response, "4.03") },
  "/busy": { GET: (_, response) => answer(response, "5.03") },
  "/big": {
    GET: (_, response) => answer(response, "2.05", BIG),
    PUT: (request, response) => answer(response, "2.04", digest(request.payload)),
    FETCH: (request, response) => answer(response, "2.05", digest(request.payload)),
    POST: (request, response) => answer(response, "2.04", Buffer.from(request.payload).reverse()),
  },
  "/counter": {
    GET: (request, response) => {
      if (request.headers.Observe !== 0) return answer(response, "2.05", String(count));
      response.code = "2.05";
      response.write(String(count));
      const timer = setInterval(() => response.write(String(++count)), 100);
      response.on("finish", () => clearInterval(timer));
      return undefined;
    },
  },
  "/.well-known/core": {
    GET: (_, response) => {
      response.setOption("Content-Format", "application/link-format");
      answer(response, "2.05", Object.keys(resources).map((path) => `<${path}>`).join(","));
    },
  },
};

const server = coap.createServer({ type: "udp4", piggybackReplyMs: 100 });
server.on("request", (request, response) => {
  const found = resources[request.url.split("?")[0]];
  if (!found) return answer(response, "4.04");
  const handler = found[request.method];
  if (!handler) return answer(response, "4.05");
  return handler(request, response);
});
server.listen(0, "127.0.0.1", () => {
  process.stdout.write(JSON.stringify({ port: server._port || server._sock.address().port }) + "\n");
});
process.stdin.on("end", () => process.exit(0));
process.stdin.resume();
