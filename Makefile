# The one entry point for people and CI. `make` alone lists the targets.
#
# Everything lives in .venv. Three stamps say how far it is set up, each built on the
# one before, so that two targets running at once never run two pips in one place:
#   .venv/.torch   pip, torch and the build backend   (again when constraints.txt changes)
#   .venv/.demo    nnlr, editable, and the demo needs  (again when pyproject.toml changes)
#   .venv/.dev     tools and test dependencies         (again when either changes)

PYTHON ?= python3
VENV   := .venv
CENSUS := .census
BIN    := $(VENV)/bin
ARGS   ?=

# -qq: pip speaks up only when something failed. --no-compile: what is imported is compiled
# then, and kept; compiling all there is takes longer than installing it.
PIP         = $(BIN)/python -m pip --disable-pip-version-check --no-input
PIP_INSTALL = $(PIP) install -qq --no-compile -c constraints.txt
unexport PYTHONDONTWRITEBYTECODE
# One process per core, a file to each at a time: the examples of a page build on each other. In
# the order of conftest.py: what takes longest comes first.
# One thread in each: two that both use all cores wait for each other.
JOBS       ?= 2
PYTEST      = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
BENCHMARKS  = $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test full census check fmt fmt-check lint type layers docs bench \
        setup constraints clean distclean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

# --- set-up ---------------------------------------------------------------------

# torch comes first and alone: no later step may pick another build of it.
$(VENV)/.torch: constraints.txt
	@echo "set-up 1/3: $(VENV) with pip and torch"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nnlr needs Python 3.11 or newer; set PYTHON=")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) --upgrade pip
	@$(PIP_INSTALL) torch
	@$(PIP_INSTALL) hatchling editables
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	@echo "set-up 2/3: nnlr (editable) and what the demo needs"
	@$(PIP_INSTALL) --no-build-isolation -e . --group demo
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo "set-up 3/3: tools and test dependencies"
	@$(PIP_INSTALL) --no-build-isolation -e '.[all]' --group dev --group test
	@$(BIN)/python tests/torchvision_shim.py
	@touch $@

# Sphinx and its theme, which only `make docs` needs.
$(VENV)/.docs: $(VENV)/.dev
	@echo "set-up: what the documentation needs"
	@$(PIP_INSTALL) --group docs
	@touch $@

setup: $(VENV)/.dev  ## create .venv with everything, run nothing

# --- use ------------------------------------------------------------------------

demo: $(VENV)/.demo  ## train the example network; options in ARGS="--epochs 5"
	@$(BIN)/python examples/digits/demo.py $(ARGS)

docs: $(VENV)/.docs  ## build docs/_build/html; warnings are errors
	@$(BIN)/python -m sphinx -nWq --keep-going -d docs/_build/trees docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(VENV)/.dev  ## run every script in benchmarks/
	@test -n "$(BENCHMARKS)" || { echo "no benchmarks/*.py"; exit 1; }
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script; done

# --- checks ---------------------------------------------------------------------

# The tests stand last: their closing line is the last thing printed.
check: fmt-check lint type layers test  ## everything that must hold before a commit lands

test: $(VENV)/.dev  ## tests, doctests, README and docs, with branch coverage
	@$(PYTEST) --cov --cov-report=term -q $(ARGS)

full: $(VENV)/.dev census  ## the same with the long tests
	@NNLR_FULL=1 $(PYTEST) --cov --cov-report=term -q -o faulthandler_timeout=3600 $(ARGS)

# Beside .venv, whose packages it sees: some change what other libraries do when they are there.
$(CENSUS)/.done: $(VENV)/.dev
	@echo "set-up: $(CENSUS) with optimizers of others"
	@$(PYTHON) -m venv $(CENSUS)
	@$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
	  > $$($(CENSUS)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/main.pth
	@$(CENSUS)/bin/python -m pip install -qq --disable-pip-version-check --no-input --upgrade pip
	@$(CENSUS)/bin/python -m pip install -qq --disable-pip-version-check --no-input --no-deps --group census
	@touch $@

census: $(CENSUS)/.done  ## optimizers of others through the life of a plan
	@NNLR_FULL=1 OMP_NUM_THREADS=1 $(CENSUS)/bin/python -m pytest -q --no-cov tests/apply/test_third_party.py tests/optim/test_mixed_census.py $(ARGS)

fmt: $(VENV)/.dev  ## format the code and apply safe lint fixes
	@$(BIN)/ruff check -q --fix-only
	@$(BIN)/ruff format -q

fmt-check: $(VENV)/.dev  ## is the code formatted?
	@$(BIN)/ruff format --check

lint: $(VENV)/.dev  ## ruff
	@$(BIN)/ruff check

type: $(VENV)/.dev  ## mypy --strict: sources, users' calls, code in README and docs
	@$(BIN)/mypy src tests/typing/calls.py
	@$(BIN)/python tests/typing/pages.py

layers: $(VENV)/.dev  ## who may import whom
	@$(BIN)/lint-imports --no-logo

# --- upkeep ---------------------------------------------------------------------

# Resolve everything anew beside one torch version: make constraints TORCH=2.13.0
# (default: the version now pinned). The local label of a build (+cpu) is dropped, so
# that the pins fit every build.
TORCH   ?= $(shell sed -n 's/^torch==//p' constraints.txt)
PIN_DIR := .pins
constraints:  ## pin the newest versions into constraints.txt (TORCH=x.y.z)
	@echo "resolving everything beside torch $(TORCH)"
	@rm -rf $(PIN_DIR)
	@$(PYTHON) -m venv $(PIN_DIR)
	@$(PIN_DIR)/bin/python -m pip install -qq --upgrade pip
	@$(PIN_DIR)/bin/python -m pip install -qq torch==$(TORCH)
	@$(PIN_DIR)/bin/python -m pip install -qq torch==$(TORCH) hatchling editables
	@$(PIN_DIR)/bin/python -m pip install -qq torch==$(TORCH) --no-build-isolation \
	    -e '.[all]' --group dev --group test --group docs
	@{ echo "# Every package that set-up installs, pinned: the versions the tests ran with."; \
	   echo "# Generated by 'make constraints' from a fresh environment; do not edit by hand."; \
	   $(PIN_DIR)/bin/python -m pip freeze --all --exclude nnlr \
	     | sed 's/+[a-z0-9.]*$$//' | LC_ALL=C sort -f; } > constraints.new
	@mv constraints.new constraints.txt
	@rm -rf $(PIN_DIR)

clean:  ## remove caches and build products
	@rm -rf build dist htmlcov docs/_build .coverage .coverage.* .hypothesis .mypy_cache \
	    .pytest_cache .ruff_cache .import_linter_cache $(PIN_DIR) constraints.new
	@find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean  ## clean, and remove .venv
	@rm -rf $(VENV) $(CENSUS)
