# Every target does its own set-up: a virtual environment in .venv with the versions of constraints.txt.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
PYTEST_WORKERS ?= 2
SOAK_FUZZ_S ?= 600
SOAK_PARTS := conformance flood mutations kills months worlds mesh fuzz
export PYTEST_WORKERS SOAK_FUZZ_S

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo bench test mutations soak $(SOAK_PARTS:%=soak-%) check format requirements constraints deb clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(VENV)/.runtime  ## the virtual environment with what the programs need
setup-dev: $(VENV)/.dev  ## ... and with what the tests and checks need

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Set PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "No virtual environment could be made. On Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/.runtime: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing what the programs need into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[headend,interop]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing what the tests and checks need into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.runtime

demo: setup  ## a street of meters, read over the secured stack; ARGS="--once --meters 40 --json"
	@$(BIN)/interop demo $(ARGS)

bench: setup  ## what the parts cost, beside the least they could; ARGS="--quick oscore_pair_cpu_us"
	@$(BIN)/interop bench $(ARGS)

test: setup-dev  ## every test; ARGS="tests/coap -k token"
	@$(BIN)/python -m pytest -q -n $(PYTEST_WORKERS) $(ARGS)

mutations: setup-dev  ## recorded defects that a test must notice; ARGS="B1-FR-94", ARGS="--list"
	@$(BIN)/python -m tests.mutations.runner $(ARGS)

soak: setup-dev  ## the long runs, about five hours; or one: soak-kills, soak-worlds, soak-fuzz, ...
	@$(BIN)/python -m tests.support.soak $(ARGS)

$(SOAK_PARTS:%=soak-%): soak-%: setup-dev
	@$(BIN)/python -m tests.support.soak $*

check: setup-dev  ## lint, format, types and import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup-dev  ## put every file into the house format
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format --quiet .

requirements: setup-dev  ## which test shows which requirement; writes build/requirements.json
	@$(BIN)/python -m pytest -q --collect-only --requirements $(ARGS)

constraints: setup-dev  ## pin anew: names and versions only
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade --no-emit-index-url --no-header --no-annotate --quiet -o constraints.txt

deb: $(BIN)/python  ## a Debian package of the meter, in build/; ARGS="armhf" for another machine
	@PYTHON=$(BIN)/python packaging/debian/build $(ARGS)

clean:  ## remove the environment and everything built
	@rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
