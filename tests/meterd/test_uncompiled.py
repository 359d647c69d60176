"""A meter where nothing is compiled but what Debian and cryptography bring: 32-bit ARM.

The contract under test: with every compiled module refused that is neither Python's own nor
cryptography's (so no uvloop, no C half of cbor2, no serialx, no zeroconf), the real command secures
a session, registers, reports 45 days, and ends at SIGTERM with code 0.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from amistack.links import open_udp
from amistack.session.fleet import encode_public_key, meter_credential
from meterd.provision import CONFIG_FILE, Template, provision
from tests.support.head_end import HeadEnd, head_end_key, key_of

REFUSED: Final = ("uvloop", "_cbor2", "serialx", "zeroconf", "construct", "rich", "httptools")
"""By name too: they may be there in a form that is not compiled."""

BARE: Final = """
import importlib.abc, importlib.machinery, json, os, sys
refused_names = set(json.loads(sys.argv.pop(1)))
stdlib = os.path.dirname(os.__file__) + os.sep
refused = []

class Bare(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        top = name.partition(".")[0]
        if top in refused_names:
            refused.append(name)
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or not isinstance(spec.loader, importlib.machinery.ExtensionFileLoader):
            return None
        is_stdlib = spec.origin.startswith(stdlib) and "site-packages" not in spec.origin
        if is_stdlib or top in ("cryptography", "_cffi_backend"):
            return None
        refused.append(name)
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Bare())
from meterd.cli import main
code = main(sys.argv[1:])
json.dump(sorted(set(refused)), sys.stdout)
sys.exit(code)
"""


async def test_meter_does_all_its_work_without_compiled_extras(tmp_path: Path) -> None:
    head_end = HeadEnd(head_end_key(1), {}, lambda _: time.time(), seed=1)
    link = await open_udp(head_end, lambda _: None, host="127.0.0.1", port=0)
    identity = provision(
        tmp_path,
        Template(
            address=f"127.0.0.1:{link.address[1]}",
            public_key=encode_public_key(key_of(1).public_key()).hex(),
            schedule=("start_spread_s = 0", "catch_up_s = 0"),
        ),
    )
    head_end.meters = {identity.meter: meter_credential(identity.meter, identity.public_key)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        BARE,
        json.dumps(REFUSED),
        "run",
        "--config",
        str(tmp_path / CONFIG_FILE),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            while len(head_end.reports) < 45 and process.returncode is None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        (registration,) = head_end.registrations
        assert registration.meter == identity.meter
        process.send_signal(signal.SIGTERM)
        said, log = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        link.close()
    assert process.returncode == 0, log.decode()
    refused = json.loads(said)
    # It asked for these and did without.
    assert {"uvloop", "_cbor2"} <= set(refused)
    assert b"Traceback" not in log
    assert b"running on asyncio's own loop" in log
