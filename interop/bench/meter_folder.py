"""A meter as `meterd init` makes it, for a head-end of the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from amistack.keystore import save_key
from amistack.session.credentials import Credential
from amistack.session.fleet import encode_public_key, meter_credential
from interop.bench.fleet import key_of, known
from meterd.provision import CONFIG_FILE, KEY_FILE, Template, provision

METER: Final = known(0).meter


def meter_itself() -> Credential:
    """The credential by which its head-end knows it."""
    return meter_credential(METER, encode_public_key(key_of("meter").public_key()))


def make_meter(folder: Path, head_end: str) -> Path:
    """The meter's settings file in `folder`; a household's load, no wait at the start."""
    save_key(folder / KEY_FILE, key_of("meter"))
    template = Template(
        address=head_end,
        public_key=encode_public_key(key_of("head-end").public_key()).hex(),
        metrology=('source = "profile"', "seed = 5"),
        schedule=("start_spread_s = 0", "catch_up_s = 0"),
    )
    provision(folder, template, meter=METER)
    return folder / CONFIG_FILE
