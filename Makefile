# The two commands of the README: `make demo` and `make test`. Each creates .venv if it is missing and installs the pins once.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PYTEST := $(BIN)/python -m pytest
# Tests that start no ranks have a core each. The others mostly wait for processes, so two files of them run at a time.
QUIET := tests/unit tests/faults
PARALLEL := -n logical --maxprocesses 8
TWO := -n logical --maxprocesses 2 --dist loadfile

.PHONY: help demo test check format lint types imports chaos slurm-up slurm-down clean

help:  ## what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

.venv/bin/python:
	$(PYTHON) -m venv .venv

# A stamp each: running a target again does not reinstall; a change of the pins does.
.venv/.demo: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing the pinned packages into .venv (about two minutes, once) ..."
	$(PIP) --editable '.[examples]'
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing the pinned packages into .venv (about four minutes, once) ..."
	$(PIP) --editable '.[dev]'
	@touch $@ .venv/.demo

demo: .venv/.demo  ## train the digits demo on 2 ranks
	$(BIN)/dtk launch --nproc 2 --run-dir runs/demo examples/train_digits.py

test: .venv/.dev  ## run the suite but for its slow tests (make chaos): what the machine can run; it says what it left out
	@failed=0; \
	$(PYTEST) -m "not slow" $(PARALLEL) $(QUIET) || failed=1; \
	$(PYTEST) -m "not slow" $(TWO) $(QUIET:%=--ignore=%) || failed=1; \
	exit $$failed

check: .venv/.dev format lint types imports test  ## format, lint, strict types, import contracts, tests

format: .venv/.dev  ## is everything formatted?
	$(BIN)/ruff format --check .

lint: .venv/.dev
	$(BIN)/ruff check .

types: .venv/.dev
	$(BIN)/mypy

imports: .venv/.dev
	$(BIN)/lint-imports

chaos: .venv/.dev  ## the long runs: random kills, many times
	$(PYTEST) -m slow

slurm-up:  ## a real SLURM cluster on this machine (Debian or Ubuntu, root)
	slurm/cluster/up.sh

slurm-down:  ## end that cluster, and every job in it
	slurm/cluster/down.sh

clean:  ## remove what make created, runs/ excepted
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
