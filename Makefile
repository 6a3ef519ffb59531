# sparsejax: needs only Python 3.11 or 3.12 and make. `make help` lists the targets.
#   PYTHON   the interpreter that makes the environment       make quickstart PYTHON=python3.12
#   VENV     where the environment lives                      make test VENV=/tmp/sparsejax-test
#   WORKERS  how many processes share the tests               make test WORKERS=8
#   TESTS    which tests, in pytest's words                   make test TESTS=tests/topology
#   SEED     of the campaign, MINUTES how long it takes       make campaign SEED=17 MINUTES=5

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
TESTS ?= tests
BIN := $(VENV)/bin
PINS = constraints/py$$($(BIN)/python -c 'import sys; print("%d%d" % sys.version_info[:2])').txt
PIP = $(BIN)/python -m pip --disable-pip-version-check
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile
# The TPU compiler serves one process of a machine: what compiles for TPUs runs in one, after the rest. 5: no such test.
ALONE = $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-slow campaign test-gpu compile-gpu lint results format lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | awk -F'|' '{ printf "make %-12s %s\n", $$1, $$2 }'

# The two stamps: an environment that runs, and the same one with the tools of the gate. An environment older than
# the pins or pyproject.toml is made again from nothing, so that what runs is always what the files say.
$(VENV)/.runs: pyproject.toml $(wildcard constraints/*.txt)
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.11 or 3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = "%d.%d" % sys.version_info[:2]; v in ("3.11", "3.12") or sys.exit( \
	  f"sparsejax needs Python 3.11 or 3.12 and $(PYTHON) is {v}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --quiet --constraint $(PINS) --editable .
	@touch $@

$(VENV)/.tests: $(VENV)/.runs
	$(PIP) install --quiet --constraint $(PINS) --editable '.[test]'
	@touch $@

quickstart: $(VENV)/.runs ## train a sparse language model on this machine, in minutes
	$(BIN)/sparsejax train --config=configs/quickstart.py --workdir=runs/quickstart

test: lint ## the whole gate: environment, lint, types, import rules, tests
	$(PYTEST) -m 'not slow and not tpu' $(TESTS)
	$(ALONE) -m 'tpu and not slow' $(TESTS) || [ $$? -eq 5 ]

test-slow: $(VENV)/.tests ## the tests that are left out of the gate
	$(PYTEST) -m 'slow and not tpu' $(TESTS)
	$(ALONE) -m 'slow and tpu' $(TESTS) || [ $$? -eq 5 ]

campaign: $(VENV)/.tests ## random faults against every command; SEED and MINUTES choose which and how long
	SPARSEJAX_CAMPAIGN_SEED=$(SEED) SPARSEJAX_CAMPAIGN_MINUTES=$(MINUTES) $(ALONE) -m slow -s tests/campaign

test-gpu: $(VENV)/.tests ## the tests that need a Hopper GPU
	$(PIP) install --quiet --constraint $(PINS) --editable '.[cuda]'
	$(BIN)/python -m pytest --confcutdir=tests/gpu tests/gpu

compile-gpu: $(VENV)/.runs ## compile the kernels for Hopper without a GPU (optional: downloads 4 GB)
	$(PIP) install --quiet --constraint $(PINS) --editable '.[cuda]'
	$(BIN)/python -m benchmarks.gpu_compile

lint: $(VENV)/.tests ## lint, formatting, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/import_rules_test.py

results: $(VENV)/.runs ## make the tables and figures of docs/RESULTS.md from docs/results/*.csv
	$(BIN)/python -m docs.results.tables

format: $(VENV)/.tests ## rewrite the files as the formatter wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## pin the newest versions that pyproject.toml allows, for the Python that PYTHON names
	@rm -rf build/lock && $(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip --disable-pip-version-check install --quiet --dry-run --ignore-installed \
	  --report build/lock/report.json '.[test]'
	@pins=constraints/py$$($(PYTHON) -c 'import sys; print("%d%d" % sys.version_info[:2])').txt; \
	  $(PYTHON) constraints/lock.py < build/lock/report.json > build/lock/pins.txt && mv build/lock/pins.txt $$pins; \
	  echo "wrote $$pins"

clean: ## remove environment, build outputs and caches; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find sparsejax configs tests benchmarks launch -name __pycache__ -type d -prune -exec rm -rf {} +
