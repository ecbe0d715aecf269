# The whole reproduction. `make` alone lists the targets; PROFILE= selects the scale, SEEDS="0 1 2" the seeds,
# TASKS="GP-L V-IRL-L" the tasks.
PROFILE ?= laptop
SEEDS ?=
TASKS ?=
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env reproduce smoke figures test lint play foundation doctor clean

# An active conda environment with all packages is used as it is; otherwise .venv is built from requirements.lock.
ifneq ($(CONDA_PREFIX),)
CONDA_PYTHON := $(shell "$(CONDA_PREFIX)/bin/python" sftrl_lib/doctor.py --packages 2>/dev/null && echo "$(CONDA_PREFIX)/bin/python")
endif
PY := $(or $(CONDA_PYTHON),$(CURDIR)/.venv/bin/python)
# The Python that builds .venv: the first that is new enough. To choose one: make PYTHON=/usr/local/bin/python3.12
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)

# By default glibc returns large blocks to the system at once, so that every update in training page-faults them again.
export MALLOC_MMAP_THRESHOLD_ ?= 4294967296
export MALLOC_TRIM_THRESHOLD_ ?= 4294967296
export MALLOC_TOP_PAD_ ?= 268435456
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
export PYTHONHASHSEED ?= 0
export PYTHONPATH := $(CURDIR)
export SFTRL_HOME ?= $(CURDIR)
PIPELINE = "$(PY)" -m sftrl_lib.pipeline

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile
	@echo '  Options of reproduce: PROFILE=smoke|laptop|..., SEEDS="0 1 2", TASKS="GP-L V-IRL-L" (any of them) and -jN;'
	@echo '  the default is laptop, all its seeds and tasks, all cores.'

reproduce: env ## the paper's figures from scratch: run every notebook of PROFILE, then print where the output is
	@$(PIPELINE) rules --profile "$(PROFILE)" --seeds "$(SEEDS)" --tasks "$(TASKS)"
	+@$(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$$($(PIPELINE) jobs)) \
		-f "$(SFTRL_HOME)/build/$(PROFILE)/rules.mk" PYTHON="$(PY)"
	@$(PIPELINE) report --profile "$(PROFILE)"

smoke: ## run everything once at toy size, in minutes
	@$(MAKE) --no-print-directory reproduce PROFILE=smoke

figures: env ## redraw the figures of PROFILE from the committed tables, without training
	@$(PIPELINE) figures --profile "$(PROFILE)"

test: lint ## lint, unit tests, and every notebook at its smoke defaults
	@"$(PY)" -m pytest tests
	@rm -rf build/test
	@SFTRL_HOME="$(CURDIR)/build/test" "$(PY)" -m pytest --nbval-lax --nbval-current-env notebooks

lint: env ## ruff
	@"$(PY)" -m ruff check .

play: env ## play GeneralPoints yourself, alongside the models, in JupyterLab
	@"$(PY)" -m jupyterlab notebooks/10_play.ipynb

foundation: env ## retrain the shipped tiny foundation models (over an hour on two cores)
	@"$(PY)" -m sftrl_lib.foundation.pretrain

doctor: ## check Python, packages, cores, memory, disk, GPU, and say how to fix what is wrong
	@"$(or $(CONDA_PYTHON),$(wildcard .venv/bin/python),$(PYTHON),python3)" sftrl_lib/doctor.py

clean: ## delete what PROFILE has built (checkpoints, executed notebooks); tables and figures are kept
	@case "$(PROFILE)" in ''|*[!a-z0-9_]*) echo 'Unknown profile "$(PROFILE)".' >&2; exit 2;; esac
	rm -rf "$(SFTRL_HOME)/build/$(PROFILE)"

env: $(if $(CONDA_PYTHON),,.venv/ready) ## build the Python environment; every target that needs it does so by itself

# `building` marks an unfinished environment, which is deleted and built again, never reused.
.venv/ready: requirements.lock pyproject.toml
	@"$(or $(PYTHON),python3)" -c '$(NEW_ENOUGH)' || { echo "Python 3.11 or newer is needed: install it, or" \
		"name one as in make PYTHON=/usr/local/bin/python3.12" >&2; exit 2; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments" \
		"(ensurepip is missing): on Debian or Ubuntu, apt install python3-venv" >&2; exit 2; }
	@if [ -e .venv/building ]; then rm -rf .venv; fi
	@mkdir -p .venv && touch .venv/building && rm -f .venv/ready
	@"$(PYTHON)" -m venv .venv
	@echo "Building .venv from requirements.lock, a few minutes the first time: torch ..."
	@.venv/bin/python -m pip install -q -c requirements.lock torch
	@echo "... the other packages ..."
	@.venv/bin/python -m pip install -q -r requirements.lock
	@.venv/bin/python -m pip install -q --no-deps --no-build-isolation -e .
	@mv .venv/building .venv/ready
	@echo "... done."
