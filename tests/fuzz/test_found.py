"""What fuzzing has found, so that it is found once.

The contract under test: inputs that broke something once are refused now.
"""

from __future__ import annotations

import pytest

from amistack.errors import EdhocError, ModelError, StoreUnusable
from amistack.model import Registration
from amistack.session.credentials import decode_ccs, x5t_credential
from interop.fuzz.targets import find
from interop.fuzz.targets.files import MemoryFiles
from meterd.journal import Journal
from meterd.storage import Storage


def test_a_certificate_of_a_version_that_does_not_exist_is_refused() -> None:
    certificate = find("edhoc_certificate").seeds()[0]
    version = bytes.fromhex("a003020102")
    assert certificate.count(version) == 1
    for number in (3, 0x7A, 0xFF):
        odd = certificate.replace(version, version[:-1] + bytes((number,)))
        with pytest.raises(EdhocError):
            x5t_credential(odd)


def test_a_certificate_with_a_serial_number_below_one_is_refused() -> None:
    certificate = find("edhoc_certificate").seeds()[0]
    serial = bytes.fromhex("a003020102020107")
    assert certificate.count(serial) == 1
    for number in (0, 0x80):
        with pytest.raises(EdhocError):
            x5t_credential(certificate.replace(serial, serial[:-1] + bytes((number,))))


def test_a_journal_of_strange_keys_is_refused_in_one_line() -> None:
    files = MemoryFiles({})
    journal = Journal(files)
    journal.transact([("owed", "two\nlines", True)])
    journal.close()
    with pytest.raises(StoreUnusable) as refused:
        Storage.on(files)
    assert "\n" not in str(refused.value)


def test_a_simple_value_of_cbor_is_no_array_of_one() -> None:
    seed = find("model_registration").seeds()[0]
    versions = bytes.fromhex("820102")
    assert Registration.decode(seed).model_versions == (1, 2)
    assert seed.count(versions) == 1
    for simple in ("f820", "f8ff", "e1"):
        with pytest.raises(ModelError):
            Registration.decode(seed.replace(versions, bytes.fromhex(simple)))


def test_a_credential_of_a_decimal_fraction_that_is_none_is_refused() -> None:
    with pytest.raises(EdhocError):
        decode_ccs(bytes.fromhex("a26700000000000000c48200620000"))
