# make demo | runtime | test | test-gpu | check | audit | setup: each makes .venv first where it is missing or out of date.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo runtime test test-gpu check audit format

setup: .venv/ready

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vitreous needs Python 3.11 or newer; name one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch .venv/ready

demo: setup
	$(BIN)/vitreous demo

# onnxruntime-web, for the tests of the page that stands alone; kept in the user's cache folder.
runtime: setup
	$(BIN)/python -c 'from vitreous.core.console import Console; from vitreous.exporting.web import find_runtime; find_runtime(None, Console())'

# A process for each core, up to four, each with one thread: most tests are too small for two.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

test-gpu: setup
	VITREOUS_TEST_GPU=1 $(BIN)/python -m pytest tests/training/test_captured.py

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

# Known vulnerabilities of what is installed; needs the network.
audit: setup
	$(BIN)/pip-audit --local --skip-editable --progress-spinner off

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
