"""The Debian package of the meter.

The contract under test: `packaging/debian/build` makes a package whose command runs from the
unpacked files with the libraries in it, and nothing of the head-end; only cryptography is compiled,
against the stable ABI; the same sources make the same package.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
BUILD: Final = ROOT / "packaging" / "debian" / "build"
SITE: Final = "usr/lib/amistack-meterd"
TOOLS: Final = ("dpkg", "dpkg-deb")

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, TOOLS)),
    reason="dpkg-deb is not installed: only Debian builds a .deb",
)


def _run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **environment},
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deb")
    said = _run(BUILD, _architecture(), folder, PYTHON=sys.executable)
    return Path(said.strip())


@pytest.fixture(scope="module")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    _run("dpkg-deb", "--extract", package, root)
    return root


def _architecture() -> str:
    return _run("dpkg", "--print-architecture").strip()


def _meterd(root: Path, *arguments: str) -> str:
    # As its first line has it, but with this interpreter: it has cffi, wherever the tests run.
    return _run(sys.executable, "-I", "-B", root / "usr" / "bin" / "meterd", *arguments)


def test_package_says_what_it_needs(package: Path) -> None:
    told = _run("dpkg-deb", "--field", package)
    assert f"Architecture: {_architecture()}\n" in told
    assert "Package: amistack-meterd\n" in told
    assert "@" not in told.replace("@localhost", "")
    needs = next(line for line in told.splitlines() if line.startswith("Depends:"))
    for name in ("python3 (>= 3.11)", "python3-cffi-backend", "adduser"):
        assert name in needs


def test_package_has_the_meter_and_nothing_else(package: Path) -> None:
    rows = [line.split() for line in _run("dpkg-deb", "--contents", package).splitlines()]
    names = {row[5].removeprefix("./"): row for row in rows}
    for name in (
        "usr/bin/meterd",
        "usr/lib/systemd/system/meterd.service",
        f"{SITE}/meterd/cli.py",
        f"{SITE}/amistack/stack/stack.py",
        "usr/share/doc/amistack-meterd/raspberry-pi.md",
    ):
        assert name in names
    assert {row[1] for row in rows} == {"root/root"}
    assert names["usr/bin/meterd"][0] == "-rwxr-xr-x"
    assert not [name for name in names if "headend" in name or "interop" in name]
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    assert not [row for row in rows if row[0][8] == "w"], "nobody else may write"
    compiled = [name for name in names if ".so" in name]
    assert compiled
    assert all(name.startswith(f"{SITE}/cryptography") and "abi3" in name for name in compiled), (
        compiled
    )


def test_command_runs_from_the_unpacked_files(unpacked: Path, tmp_path: Path) -> None:
    assert "usage: meterd" in _meterd(unpacked, "--help")
    line = _meterd(unpacked, "init", "--directory", str(tmp_path / "kitchen"))
    assert len(line.strip().split(",")[0]) == 16


def test_every_module_and_library_is_the_packages_own(unpacked: Path) -> None:
    program = """
import importlib, pathlib, pkgutil, sys
site = sys.argv[1]
sys.path.insert(0, site)
# What this interpreter has beside it, and a device has not.
sys.modules["uvloop"] = sys.modules["_cbor2"] = None
import amistack, meterd, cryptography, cbor2, structlog
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
AESCCM(bytes(16), tag_length=8).encrypt(bytes(13), b"", b"")
for package in (meterd, ):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
import meterd.daemon
for name in ("amistack", "meterd", "cryptography", "cbor2", "structlog", "typing_extensions"):
    module = sys.modules.get(name) or importlib.import_module(name)
    assert module.__file__.startswith(site), module.__file__
print(*sorted(n for n, m in sys.modules.items() if (getattr(m, "__file__", "") or "").endswith(
    ".so") and not n.startswith("_cffi") and "lib-dynload" not in m.__file__))
"""
    compiled = _run(sys.executable, "-I", "-B", "-c", program, str(unpacked / SITE)).split()
    assert all(name.startswith("cryptography.") for name in compiled), compiled


@pytest.mark.skipif(
    not Path("/usr/bin/python3").exists() or importlib.util.find_spec("cffi") is None,
    reason="there is no Python of Debian's here",
)
def test_debians_own_python_runs_it(unpacked: Path) -> None:
    """With its older cffi."""
    probe = "import sys, _cffi_backend; sys.exit(sys.version_info < (3, 11))"
    if subprocess.run(
        ["/usr/bin/python3", "-c", probe], check=False, capture_output=True
    ).returncode:
        pytest.skip("Debian's python3 is too old, or: apt-get install python3-cffi-backend")
    command = unpacked / "usr" / "bin" / "meterd"
    assert command.read_text().splitlines()[0] == "#!/usr/bin/python3 -I"
    assert "usage: meterd" in _run(command, "--help", PYTHONDONTWRITEBYTECODE="1")


def test_scripts_are_shell(package: Path, tmp_path: Path) -> None:
    _run("dpkg-deb", "--control", package, tmp_path)
    for name in ("postinst", "prerm", "postrm"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o755
        _run("sh", "-n", tmp_path / name)
    sums = dict(
        reversed(line.split(maxsplit=1)) for line in (tmp_path / "md5sums").read_text().splitlines()
    )
    assert "usr/bin/meterd" in sums


def test_sums_are_of_the_files(package: Path, unpacked: Path, tmp_path: Path) -> None:
    _run("dpkg-deb", "--control", package, tmp_path)
    for line in (tmp_path / "md5sums").read_text().splitlines():
        told, name = line.split(maxsplit=1)
        octets = (unpacked / name).read_bytes()
        assert hashlib.md5(octets, usedforsecurity=False).hexdigest() == told


def test_unknown_architecture_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [BUILD, "mips", tmp_path], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "There are no compiled libraries for mips: amd64, arm64 or armhf\n"
    assert not list(tmp_path.iterdir())
