# make repro: environment, then the pipeline.  make test: environment, then the tests.  make bench: speed, as a table.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
LOCK := requirements.lock

.PHONY: repro test bench install lint lock

repro: install
	PATH="$(CURDIR)/$(BIN):$$PATH" dvc repro

test: install
	PATH="$(CURDIR)/$(BIN):$$PATH" python -m pytest -n auto --maxprocesses 8 --dist loadfile

# make bench BENCH="--images FOLDER --count 480"
bench: install
	PATH="$(CURDIR)/$(BIN):$$PATH" python -m tests.bench.speed $(BENCH)

install: .venv/.installed

# Again only when the lock has changed.
.venv/.installed: $(LOCK)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	touch $@

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# Exact versions with hashes, from the ranges in pyproject.toml.
lock:
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --group dev --generate-hashes --no-emit-index-url --no-header --python-version 3.11 -o $(LOCK)
