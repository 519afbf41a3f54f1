# Every target installs what it needs first; nothing but Python >= 3.11 and make is a prerequisite.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Where a machine forbids bytecode files, every process would compile torch and robosuite anew: seconds each.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup gl demo test test-all check lock clean

help:  ## Show the targets
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

setup: $(INSTALLED) gl  ## Install everything into .venv from the pinned requirements

$(INSTALLED): requirements.lock requirements-uv.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Armature needs Python 3.11 or newer, and no python3 was found."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Armature needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version)."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "Python's venv module is missing; on Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	@echo "Installing the pinned requirements into $(VENV) (about 7 GB with PyTorch; a minute on a fast line) ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock >&2
	@UV_HTTP_TIMEOUT=300 $(BIN)/uv pip sync --python $(BIN)/python --require-hashes requirements.lock >&2
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . >&2
	@touch $@

gl:  # Software OpenGL for videos: installed where permitted, else the command is printed. Nothing but pictures needs it.
	@libs=$$(PATH=$$PATH:/sbin:/usr/sbin ldconfig -p); { echo "$$libs" | grep -q libOSMesa && echo "$$libs" | grep -q libEGL.so.1; } || \
	if command -v apt-get >/dev/null && { test "$$(id -u)" = 0 || sudo -n true 2>/dev/null; }; then \
	  SUDO=$$(test "$$(id -u)" = 0 || echo sudo); \
	  { $$SUDO apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$SUDO apt-get install -y -qq libegl1 libgl1-mesa-dri libosmesa6; } >/dev/null 2>&1 \
	  || echo "Could not install OpenGL; videos are left out. By hand: sudo apt-get install libegl1 libgl1-mesa-dri libosmesa6" >&2; \
	else echo "No OpenGL library found; videos are left out. To have them: sudo apt-get install libegl1 libgl1-mesa-dri libosmesa6" >&2; fi

demo: setup  ## Demonstrations to a policy on an arm, on a CPU, in some minutes: one table and an HTML report
	$(BIN)/python -m examples.demo

test: setup  ## Run the tests (fast ones; no GPU, no hardware)
	$(BIN)/python -m pytest

test-all: setup  ## Run the slow tests too
	$(BIN)/python -m pytest -m "not gpu and not hardware"

check: setup  ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench-%: setup  ## Run benchmarks/%.py, e.g. bench-sim, bench-inference: JSON lines with ratios
	@$(BIN)/python -m benchmarks.$*

lock: $(INSTALLED)  ## Pin the requirements again, with hashes and without addresses
	$(BIN)/uv pip compile --quiet --upgrade --universal --all-extras --generate-hashes --no-emit-index-url --custom-compile-command "make lock" pyproject.toml -o requirements.lock
	echo uv | $(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url --custom-compile-command "make lock" - -o requirements-uv.lock

clean:  ## Remove the environment and caches; data and runs stay
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache *.egg-info
