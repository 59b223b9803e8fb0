# `make train` and `make test` set up whatever is missing; `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
LOWEST := .venv-lowest

.PHONY: train test test-all test-lowest test-gpu lint same moves bench format clean help

train: $(READY)  ## set up .venv and train: make train ARGS="model=nn optimizer.lr=0.05"
	$(BIN)/python train.py $(ARGS)

test: $(READY) lint  ## lint, type check and the fast tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

test-all: $(READY) lint  ## every test, the slow ones too, with coverage
	$(BIN)/python -m pytest -n auto -m "slow or not slow" --cov --cov-report=term:skip-covered

test-lowest: $(LOWEST)/ready  ## the fast tests with the lowest versions that pyproject.toml allows
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n auto --dist worksteal $(ARGS)

test-gpu: $(READY)  ## what needs a GPU, in one process; skipped without one
	$(BIN)/python -m pytest -m gpu tests/gpu

lint: $(READY)  ## what pre-commit and CI check before the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

same: $(READY)  ## do golden runs end with the same bits as before? make same BASE=COMMIT
	$(BIN)/python -m tests.refactoring.same --base "$(BASE)" $(ARGS)

moves: $(READY)  ## the functions and classes that changed: make moves BASE=COMMIT ARGS=--diff
	$(BIN)/python -m tests.refactoring.moves --base "$(BASE)" $(ARGS)

bench: $(READY)  ## the table of comparisons: make bench ARGS="--root FOLDER" with MNIST's files
	$(BIN)/python -m benchmarks $(ARGS)

format: $(READY)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and all caches; logs and data stay
	rm -rf .venv $(LOWEST) .pytest_cache .ruff_cache .mypy_cache .coverage *.egg-info

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /	/'

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "convtrain needs Python 3.10 or later; set PYTHON=python3.11 or the like")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(READY)

$(LOWEST)/ready: pyproject.toml lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --upgrade pip
	$(LOWEST)/bin/python -m pip install --quiet --constraint lowest.txt --editable ".[sweep,svhn,onnx]" \
		pytest pytest-xdist scikit-learn ruff
	touch $@
