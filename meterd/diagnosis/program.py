"""The files of an installed program against the check sums that were installed with them.

Spec    the RECORD of a Python distribution (PEP 376, PEP 627): a SHA-256 of each file
Raises  nothing: what cannot be read has failed
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from amistack.model.diagnosis import Outcome
from meterd.diagnosis.checks import NOT_POSSIBLE, Examine, Result, failed

if TYPE_CHECKING:
    from importlib.metadata import Distribution

NAME: Final = "amistack"
SUFFIX: Final = ".py"


def program_of(name: str = NAME) -> Examine:
    """Whether each module of the installed distribution `name` is as it was installed."""

    def examine(_: float) -> Result:
        # Only now: it costs a start more than all the rest of this package.
        from importlib.metadata import PackageNotFoundError, distribution

        try:
            found = distribution(name)
        except PackageNotFoundError:
            return NOT_POSSIBLE
        return compare(_recorded(found))

    return examine


def compare(recorded: Iterable[tuple[Path, str]]) -> Result:
    """Whether the files are as recorded: each path with its SHA-256, base64 without padding."""
    count = 0
    for path, expected in recorded:
        count += 1
        try:
            octets = path.read_bytes()
        except OSError as error:
            return failed(f"{path.name}: {error.strerror or error}")
        digest = hashlib.sha256(octets).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != expected:
            return failed(f"{path.name} is not as installed")
    # Installed from its sources, in place: nobody recorded what they should be.
    return (Outcome.PASSED, f"{count} files") if count else NOT_POSSIBLE


def _recorded(found: Distribution) -> Iterable[tuple[Path, str]]:
    for file in found.files or ():
        if file.suffix == SUFFIX and file.hash is not None and file.hash.mode == "sha256":
            yield Path(str(file.locate())), file.hash.value
