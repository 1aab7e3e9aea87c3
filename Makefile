# make demo    set up, then train, forecast and write runs/demo/report.html
# make test    set up with the test tools, then run all tests
# make check   lint and types
# make docs    build the documentation into docs/_build/html
# make clean   remove the environment and build products, keep runs/

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
export OMP_NUM_THREADS ?= 1

.PHONY: help demo test check docs clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# make/make/p' Makefile

# A stamp file per set of packages: the set-up runs again only when what it installs has changed.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fourfold needs Python 3.11 or newer, $(PYTHON) is older: make PYTHON=python3.11 ..."; exit 1; }
	@echo "fourfold: making the environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	@echo "fourfold: installing into $(VENV) (about 1.5 GB, a few minutes the first time)"
	@$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "fourfold: installing the test tools"
	@$(PIP) install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@echo "fourfold: installing the documentation tools"
	@$(PIP) install --quiet -c constraints.txt -e ".[docs]"
	@touch $@

demo: $(VENV)/.installed
	@echo "fourfold: running the demo (fourfold demo $(DEMO))"
	@$(BIN)/fourfold demo $(DEMO)

test: $(VENV)/.installed-dev
	@echo "fourfold: running the tests (pytest $(TESTS))"
	@$(BIN)/python -m pytest $(TESTS)

check: $(VENV)/.installed-dev
	@echo "fourfold: ruff and pyright"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python .ci/typecheck.py

docs: $(VENV)/.installed-docs
	@echo "fourfold: building docs/_build/html"
	@$(BIN)/python -m sphinx -q -b html docs docs/_build/html

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
