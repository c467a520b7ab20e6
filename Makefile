# Two commands do all the set-up: `make serve` and `make test`.

PYTHON ?= python3
PORT ?=
CONFIG ?= serve_config.yaml
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := $(shell sed -n "s/^uv==\([^ ]*\).*/\1/p" requirements.lock)
SLOW := requirements.lock Makefile $(shell find bundles engine tests/bundles -name "*.py" | sort)
IMAGE := Dockerfile .dockerignore requirements.image.lock serve_config.yaml \
	$(shell find engine deployments graph api launch tests/image -type f -not -name "*.pyc" | sort)
APART := not faults and not training and not kubernetes and not image and not pages
# $(call once,MARKER,FILES): the tests of a marker, unless they passed with the same files.
once = @passed=$(VENV)/.$(1)-$$(cat $(2) | sha256sum | cut -c1-16); \
	if [ -e $$passed ]; then echo "$(1): passed before, and nothing has changed since"; \
	else $(BIN)/python -m pytest -m $(1) && touch $$passed; fi
PACKAGES := engine deployments graph api launch k8s client bundles benchmarks tests demos

.PHONY: serve soak test test-faults test-pages test-kubernetes test-slow test-training test-image test-image-deps parity check unit lint format types lock test-deps clean

serve: $(VENV)/.installed
	@exec $(BIN)/python -m launch $(CONFIG) $(if $(PORT),--port $(PORT))

test: $(VENV)/.installed
	$(BIN)/python -m pytest -m "$(APART)"

# Kills, stops and fills what a cluster of its own stands on, with requests under way.
test-faults: $(VENV)/.installed
	$(BIN)/python -m pytest -m faults

# An hour of mixed load with kills; nothing may be lost or leaked. MINUTES=3 is a short one.
soak: $(VENV)/.installed
	$(BIN)/python -m benchmarks.soak --minutes $(or $(MINUTES),60) --load 0.7

# The playground in Debian's Chromium.
test-pages: $(VENV)/.installed
	$(BIN)/python -m pytest -m pages

# A real API server, and a double of KubeRay's operator on a real Ray. KUBERAY_CRDS: docs/kubernetes.md.
test-kubernetes: $(VENV)/.installed
	$(BIN)/python -m pytest -m kubernetes

# Passed once, each passes until what it runs changes.
test-slow: test-training test-image

test-training: $(VENV)/.installed
	$(call once,training,$(SLOW))

test-image: $(VENV)/.installed
	$(call once,image,$(IMAGE))

test-image-deps:
	apt-get update -qq
	xargs apt-get install -y -qq --no-install-recommends < tests/image/debian-packages.txt

# What the tests see of the distance to AudioCraft, as docs/parity.md's table.
parity: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not cluster and $(APART)" --parity docs/parity.md tests/engine tests/api

check: lint types unit

lint: $(VENV)/.installed
	$(BIN)/ruff format --check $(PACKAGES)
	$(BIN)/ruff check $(PACKAGES)

types: $(VENV)/.installed
	$(BIN)/mypy

unit: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not cluster and not slow and $(APART)"

format: $(VENV)/.installed
	$(BIN)/ruff format $(PACKAGES)
	$(BIN)/ruff check --fix $(PACKAGES)

# Debian packages that some tests use; without them those tests skip and name the package.
test-deps:
	apt-get update -qq
	xargs apt-get install -y -qq --no-install-recommends < tests/debian-packages.txt

# Versions and hashes only, no addresses: any mirror of the registry serves them.
lock: $(BIN)/uv
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --fork-strategy fewest --generate-hashes \
		--no-header --no-annotate --upgrade --quiet --output-file requirements.lock
	cp requirements.lock requirements.image.lock  # whose versions it keeps
	$(BIN)/uv pip compile pyproject.toml --universal --fork-strategy fewest \
		--generate-hashes --no-header --no-annotate --quiet --output-file requirements.image.lock

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if v in [(3, 11), (3, 12)] else f"error: Python 3.11 or 3.12 is needed, {sys.executable} is {v[0]}.{v[1]}; name another with PYTHON=")'
	@$(PYTHON) -m venv $(VENV) || { echo "error: python3 cannot make an environment; on Debian install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/.installed: requirements.lock | $(BIN)/uv
	@echo "installing  $$(grep -c '^[a-z]' requirements.lock) packages into $(VENV) (about 6 GB, once)"
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode \
		requirements.lock
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
