"""Who may import whom.

The contract under test: the import contracts of pyproject.toml hold in this tree; each of
them notices an import that it forbids; and inside amistack only `links` touches the
modules that do I/O, read clocks, throw dice or log.

While a package that a contract names is still to be written, the contract is tested over
those that are there; `make check` runs them as they stand.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

import grimp
import pytest

ROOT: Final = Path(__file__).parents[2]
LINT: Final = (
    "import sys; from importlinter.cli import lint_imports; "
    "sys.exit(lint_imports(config_filename=sys.argv[1], no_cache=True, no_logo=True))"
)

Contract: TypeAlias = dict[str, str | bool | list[str]]


def read_settings() -> tuple[Contract, list[Contract]]:
    """What pyproject.toml says to the import linter: its settings, then its contracts."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    settings = tomllib.loads(text)["tool"]["importlinter"]
    contracts = settings.pop("contracts")
    return settings, contracts


def modules_in(contract: Contract, key: str) -> list[str]:
    """The list that stands under `key`; empty where there is none."""
    entries = contract.get(key, [])
    assert isinstance(entries, list), f"{key} is {entries!r}, expected a list"
    return entries


SETTINGS, CONTRACTS = read_settings()
OURS: Final = modules_in(SETTINGS, "root_packages")
MODULE_KEYS: Final = ("layers", "modules", "source_modules", "forbidden_modules")
IO_MODULES: Final = next(
    modules for c in CONTRACTS if "asyncio" in (modules := modules_in(c, "forbidden_modules"))
)


def names_in(layer: str) -> list[str]:
    """The modules of one entry: a layer may hold several, side by side."""
    return [name.strip(" ()") for name in layer.replace(":", "|").split("|")]


def is_ours(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] in OURS


def is_written(module: str) -> bool:
    path = ROOT.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def narrowed(contract: Contract) -> Contract | None:
    """`contract` over the modules that exist, or None where too few of them do."""
    narrow = dict(contract)
    for key in MODULE_KEYS:
        if key not in contract:
            continue
        layers = [
            " | ".join(name for name in names_in(entry) if is_written(name) or not is_ours(name))
            for entry in modules_in(contract, key)
        ]
        narrow[key] = written = [layer for layer in layers if layer]
        if len(written) < (2 if key == "modules" else 1):
            return None
    return narrow


def lint(contracts: list[Contract], folder: Path, tree: Path) -> subprocess.CompletedProcess[str]:
    """Run the import linter with `contracts` over `tree`; its settings file goes to `folder`."""
    lines = ["[tool.importlinter]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in SETTINGS.items()]
    for contract in contracts:
        lines.append("[[tool.importlinter.contracts]]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in contract.items()]
    config = folder / "contracts.toml"
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", LINT, str(config)],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def plant_tree(folder: Path) -> None:
    """An empty package for every module of ours that a contract names."""
    for contract in CONTRACTS:
        for key in MODULE_KEYS:
            for entry in modules_in(contract, key):
                for name in filter(is_ours, names_in(entry)):
                    package = folder
                    for part in name.split("."):
                        package /= part
                        package.mkdir(exist_ok=True)
                        (package / "__init__.py").touch()


def forbidden_imports() -> Iterator[tuple[int, str, str]]:
    """One import of each kind that each contract forbids: its number, importer, imported."""
    for number, contract in enumerate(CONTRACTS):
        match contract["type"]:
            case "layers":
                layers = modules_in(contract, "layers")
                yield number, names_in(layers[-1])[0], names_in(layers[0])[-1]
                for layer in layers:
                    for left, right in itertools.pairwise(names_in(layer)):
                        yield number, left, right
            case "independence":
                modules = modules_in(contract, "modules")
                yield number, modules[0], modules[-1]
                yield number, modules[-1], modules[0]
            case "forbidden":
                sources = modules_in(contract, "source_modules")
                targets = modules_in(contract, "forbidden_modules")
                yield number, sources[0], targets[-1]
                yield number, sources[-1], targets[0]
            case other:
                raise AssertionError(f"a contract of type {other!r} has no example here")


def test_contracts_of_pyproject_hold(tmp_path: Path) -> None:
    contracts = [contract for contract in map(narrowed, CONTRACTS) if contract is not None]
    assert contracts
    result = lint(contracts, tmp_path, ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_contracts_are_kept_by_a_tree_without_imports(tmp_path: Path) -> None:
    """Guards the next test: what it plants is the only thing to be found."""
    plant_tree(tmp_path)
    result = lint(CONTRACTS, tmp_path, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(CONTRACTS)} kept, 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("number", "importer", "imported"),
    list(forbidden_imports()),
    ids=str,
)
def test_forbidden_import_breaks_its_contract(
    number: int, importer: str, imported: str, tmp_path: Path
) -> None:
    plant_tree(tmp_path)
    module = tmp_path.joinpath(*importer.split("."), "__init__.py")
    module.write_text(f"import {imported}\n", encoding="utf-8")
    result = lint([CONTRACTS[number]], tmp_path, tmp_path)
    assert result.returncode == 1
    assert "0 kept, 1 broken" in result.stdout, result.stdout + result.stderr


def importers_of(module: str, graph: grimp.ImportGraph) -> set[str]:
    if module not in graph.modules:
        return set()
    return {
        importer
        for importer in graph.find_modules_that_directly_import(module)
        if importer.split(".")[0] == "amistack"
        and not f"{importer}.".startswith(("amistack.links.", "amistack.telemetry."))
    }


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("amistack", include_external_packages=True, cache_dir=None)


@pytest.mark.parametrize("module", IO_MODULES)
def test_only_links_imports(module: str, graph: grimp.ImportGraph) -> None:
    """Of every module in amistack, also of those that no contract names; telemetry is the log."""
    assert importers_of(module, graph) == set()


def test_importer_outside_links_is_found() -> None:
    """Guards the test above."""
    graph = grimp.ImportGraph()
    for importer in ("amistack.links.udp", "amistack.coap.endpoint", "amistack.linkstate"):
        graph.add_import(importer=importer, imported="asyncio")
    assert importers_of("asyncio", graph) == {"amistack.coap.endpoint", "amistack.linkstate"}
