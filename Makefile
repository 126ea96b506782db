# Everything a person or a server does with this repository. It needs Python 3.11 or newer, make and git; nothing else.
#
# Installing leaves a stamp in .venv, so a second call starts at once; a change of pyproject.toml or constraints.txt
# installs again. Any Python can be named: make test PYTHON=/path/to/python3.12

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# One job after the other: each of them uses all cores by itself.
.NOTPARALLEL:

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
# pip shows its downloads, the long part of a first call, except where nobody watches.
INSTALL := $(BIN)/python -m pip install $(if $(CI),--quiet) --disable-pip-version-check -c constraints.txt

# Tests run in one process a core, each with one thread: small tensors gain nothing from more. A file's tests stay in one
# process; files are begun in the order of tests/conftest.py, the slow ones first.
WORKERS ?= 2
PYTEST_ARGS ?=

.PHONY: help quickstart test check format clean

help:  ## say what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: $(VENV)/.installed-train  ## install, then make a small dataset, train, evaluate and detect on it
	$(BIN)/eyas quickstart
	@echo
	@echo "The command line is $(BIN)/eyas; 'source $(BIN)/activate' puts it on the path."

test: $(VENV)/.installed-dev  ## install what the tests need and run them all
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

check: $(VENV)/.installed-dev  ## format, lint, types and the rules of the repository (layers, sizes, docs, licences)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/meta --ignore tests/meta/test_examples.py

format: $(VENV)/.installed-dev  ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and everything that was built or cached (runs and datasets stay)
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The first Python of the list that starts, is new enough and can make an environment.
$(VENV)/.made:
	@for python in $(PYTHON) python3.11 python3 python3.12 python3.13; do \
	  if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then \
	    echo "Making $(VENV) with $$("$$python" --version) ..."; \
	    "$$python" -m venv $(VENV); touch $@; exit 0; \
	  fi; \
	done; \
	echo "No Python 3.11 or newer with the modules venv and ensurepip was found (Debian, Ubuntu: apt-get install" >&2; \
	echo "python3-venv). To use another one: make PYTHON=/path/to/python" >&2; \
	exit 1

$(VENV)/.installed-train: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing Eyas for training (a minute or two) ..."
	@$(INSTALL) -e '.[train]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing Eyas for development (a minute or two) ..."
	@$(INSTALL) -e '.[dev]'
	@touch $(VENV)/.installed-train $@
