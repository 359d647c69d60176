"""The head-end's own identity, from its key file.

Raises  ConfigError, one line that says what to do
"""

from __future__ import annotations

from pathlib import Path

from amistack.errors import ConfigError
from amistack.keystore import load_key
from amistack.session.credentials import AuthenticationKey
from amistack.session.fleet import encode_public_key, head_end_credential


def load_identity(path: Path) -> AuthenticationKey:
    """The key in the file at `path`, with the credential that meters know it by."""
    if not path.exists():
        raise ConfigError(f"{path} is missing: run `headend init` to make this head-end's key")
    key = load_key(path)
    return AuthenticationKey(key, head_end_credential(encode_public_key(key.public_key())))


def public_key_of(path: Path) -> str:
    """The public half of the key in that file, as meters are told it: 66 hex digits."""
    return encode_public_key(load_key(path).public_key()).hex()
