# Two commands matter: `make demo` and `make test`. Both set up all they need: a virtual environment with
# locked dependencies, the Envoy binary among them. A second run finds it in place.
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CHECKS := $(VENV)/.checks
ARGS ?=
# The lock files serve these. Of those on the PATH the newest is taken; PYTHON=... names another. Each is tried, since
# a name alone says little: pyenv has one for every version that it manages, and it fails for those not activated;
# Debian ships Python without ensurepip.
SUPPORTED := 3.14 3.13 3.12 3.11
CANDIDATES := $(SUPPORTED:%=python%) python3
SERVES := import ensurepip, sys, venv; sys.exit("%d.%d" % sys.version_info[:2] not in "$(SUPPORTED)".split())
PYTHON ?= $(shell for name in $(CANDIDATES); do $$name -c '$(SERVES)' 2>/dev/null && echo $$name && break; done)
NO_PYTHON = make: $(or $(PYTHON),none of $(CANDIDATES) on the PATH) cannot set up $(VENV). Needed is one of Python \
	$(SUPPORTED), with its modules venv and ensurepip (on Debian in python3-venv). PYTHON=... names another.
# Packages are installed without bytecode, and each process that meets a module first writes it for the others: of
# thousands of generated modules few are ever imported.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup tools golden demo test mutants lint format docs bench lock release-check sbom site clean
help:
	@echo "make demo [ARGS='--once --json']   real traffic through a real Envoy into two emulated pools"
	@echo "make test [ARGS='-k name']         all tests"
	@echo "make setup | tools | golden | mutants | lint | format | docs | bench | lock | release-check | sbom | site | clean"

setup: $(READY)
	@echo "$(VENV) is ready: $$($(BIN)/python --version)"

$(BIN)/python:
	@$(or $(PYTHON),false) -c '$(SERVES)' 2>/dev/null || { echo "$(NO_PYTHON)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(READY): requirements/dev.txt pyproject.toml setup.py $(wildcard protos/dualpool/*/*.proto) | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --no-compile --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(CHECKS): requirements/checks.txt | $(READY)
	@$(BIN)/python -m pip install --quiet --no-compile --require-hashes -r requirements/checks.txt
	@touch $@

# The real helm, and kubeconform with the schemas of what gateways add to Kubernetes, for the tests of the chart and the
# manifests. Built from source by Go's own means: minutes, once.
GO_INSTALL = GOBIN=$(abspath build/tools) CGO_ENABLED=0 GOFLAGS=-trimpath go install -ldflags='-s -w'
HELM := build/tools/helm
KUBECONFORM := build/tools/kubeconform
SCHEMAS := build/schemas/.ready
tools: $(HELM) $(KUBECONFORM) $(SCHEMAS)
$(HELM):
	$(GO_INSTALL) helm.sh/helm/v3/cmd/helm@v3.19.0
$(KUBECONFORM):
	$(GO_INSTALL) github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0
$(SCHEMAS): tests/golden/schemas.py | $(READY)
	PYTHONPATH=. $(BIN)/python -m tests.golden.schemas
	@touch $@

# Envoy Gateway's and Istio's own translators, asked anew of deploy/envoy-gateway/ and deploy/istio/ (tests/golden/). Of
# Envoy Gateway the version is here, of Istio in tests/golden/istio/go.mod: one that names no tag, as Go knows no others.
EGCTL := build/tools/egctl
ISTIO := build/tools/istio-translate
golden: $(EGCTL) $(ISTIO) $(READY)
	PYTHONPATH=. $(BIN)/python -m tests.golden.translate
	PYTHONPATH=. $(BIN)/python -m tests.golden.translate_istio
$(EGCTL):
	$(GO_INSTALL) github.com/envoyproxy/gateway/cmd/egctl@v1.9.1
# In a copy: what is written into go.mod and go.sum on the way is Go's to find again by what go.mod names.
$(ISTIO): tests/golden/istio/main.go tests/golden/istio/go.mod
	mkdir -p build/istio
	cp $^ build/istio/
	cd build/istio && GOFLAGS=-mod=mod go build -trimpath -ldflags='-s -w' -o $(abspath $@) .

demo: $(READY)
	@$(BIN)/dualpool demo $(ARGS)

# Some tests reach some of the code: only all of them, which is without ARGS, have to reach every branch (pyproject.toml).
# Two processes: those of tests/envoy wait most of the time while those of tests/unit compute.
test: $(READY) $(CHECKS)
	$(BIN)/python -m pytest $(or $(ARGS),--cov --numprocesses=2 --dist=worksteal)

mutants: $(READY)
	@$(BIN)/python -m pip install --quiet --no-compile --require-hashes -r requirements/mutants.txt
	$(BIN)/python -m bench.mutation $(ARGS)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

site: $(READY) $(CHECKS)
	$(BIN)/python docs/site.py
	@echo "build/site/README.html"

docs: $(READY)
	$(BIN)/python docs/generate.py
	$(BIN)/python deploy/generate.py

bench: $(READY)
	$(BIN)/python -m bench $(ARGS)

# What the wheel needs; what demo, tests and lint need beside it; what builds the wheel. One version of each package for
# all of SUPPORTED. Pinned versions stay unless pyproject.toml moves them; ARGS=--upgrade takes the newest of all.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version $(lastword $(SUPPORTED)) --fork-strategy fewest \
	--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(ARGS)
# Not $(READY): that installs what is locked, and so would fail on a lock file that is to be fixed.
lock: | $(BIN)/uv
	$(LOCK) pyproject.toml -o requirements/runtime.txt
	$(LOCK) pyproject.toml --group dev --all-extras -c requirements/runtime.txt -o requirements/dev.txt
	$(LOCK) --group checks -c requirements/dev.txt -o requirements/checks.txt
	$(LOCK) --group build -c requirements/dev.txt -o deploy/build-requirements.txt
	$(LOCK) --group mutants -c requirements/dev.txt -o requirements/mutants.txt
	@for version in $(SUPPORTED); do $(BIN)/uv pip install --quiet --dry-run --target build/wheels --only-binary :all: \
		--python-version $$version --require-hashes -r requirements/dev.txt || exit 1; done
$(BIN)/uv:
	@$(MAKE) $(READY)

# A release as strangers get it: an sdist, the wheel that it builds with locked tools, and that wheel in environments
# that hold nothing else but the locked requirements, or the oldest and the newest ones that pyproject.toml allows.
EMPTY := build/empty
ALLOWED := build/allowed
release-check: $(READY)
	rm -rf dist
	$(BIN)/uv build --quiet --python $(BIN)/python --build-constraints deploy/build-requirements.txt --require-hashes
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m venv --clear $(EMPTY)
	$(EMPTY)/bin/python -m pip install --quiet --require-hashes -r requirements/runtime.txt
	$(EMPTY)/bin/python -m pip install --quiet --no-index --no-deps dist/*.whl
	$(EMPTY)/bin/python -m pip check
	$(EMPTY)/bin/python -I tests/release/smoke.py
	for resolution in lowest-direct highest; do \
		allowed=$(ALLOWED)/$$resolution && mkdir -p $(ALLOWED) && \
		$(BIN)/uv pip compile --quiet --resolution $$resolution --only-binary :all: \
			--python $(BIN)/python pyproject.toml -o $$allowed.txt && \
		$(BIN)/uv venv --quiet --clear --python $(BIN)/python $$allowed && \
		$(BIN)/uv pip sync --quiet --only-binary :all: --python $$allowed $$allowed.txt && \
		$(BIN)/uv pip install --quiet --python $$allowed --no-deps dist/*.whl && \
		$$allowed/bin/python -I tests/release/smoke.py || exit 1; done
	$(BIN)/python tests/release/container.py build/container
	@$(MAKE) --no-print-directory sbom

# What the wheel runs with, as a CycloneDX bill of materials, read from the environment that release-check made.
SBOM := build/dualpool.cdx.json
sbom: $(CHECKS)
	@test -x $(EMPTY)/bin/python || { echo "make release-check first: the bill is of what it installs" >&2; exit 1; }
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o $(SBOM) $(EMPTY)/bin/python
	$(BIN)/python tests/release/bill.py $(SBOM)

clean:
	rm -rf $(VENV) build dist *.egg-info extproc/state/pb .mypy_cache .ruff_cache .pytest_cache .coverage
