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

.PHONY: serve test test-faults test-pages test-kubernetes test-slow test-training test-image test-image-deps parity check unit lint format types lock test-deps clean help

# Install once, and serve CONFIG (serve_config.yaml) until Ctrl-C; PORT=8001 changes the port.
serve: $(VENV)/.installed
	@exec $(BIN)/python -m launch $(CONFIG) $(if $(PORT),--port $(PORT))

# Install once, and run the unit tests and those that start a Ray cluster.
test: $(VENV)/.installed
	$(BIN)/python -m pytest -m "$(APART)"

# Kill, stop and fill what a cluster of its own stands on, with requests under way.
test-faults: $(VENV)/.installed
	$(BIN)/python -m pytest -m faults

# Test the playground in Debian's Chromium.
test-pages: $(VENV)/.installed
	$(BIN)/python -m pytest -m pages

# Test with a real API server and a double of KubeRay's operator. KUBERAY_CRDS: docs/kubernetes.md.
test-kubernetes: $(VENV)/.installed
	$(BIN)/python -m pytest -m kubernetes

# Run test-training and test-image; what passed is not run again until its files change.
test-slow: test-training test-image

# Run a short piece of every training stage of the bundle.
test-training: $(VENV)/.installed
	$(call once,training,$(SLOW))

# Build the image, and run it.
test-image: $(VENV)/.installed
	$(call once,image,$(IMAGE))

# Install the Debian packages that test-image uses.
test-image-deps:
	apt-get update -qq
	xargs apt-get install -y -qq --no-install-recommends < tests/image/debian-packages.txt

# Write the table of docs/parity.md: the distance to AudioCraft that the tests see.
parity: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not cluster and $(APART)" --parity docs/parity.md tests/engine tests/api

# Run lint, types and unit tests, before each commit.
check: lint types unit

# Check the format and the rules of the code.
lint: $(VENV)/.installed
	$(BIN)/ruff format --check $(PACKAGES)
	$(BIN)/ruff check $(PACKAGES)

# Check the types.
types: $(VENV)/.installed
	$(BIN)/mypy

# Run the unit tests that are not slow.
unit: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not cluster and not slow and $(APART)"

# Format the code, and mend what the linter can mend.
format: $(VENV)/.installed
	$(BIN)/ruff format $(PACKAGES)
	$(BIN)/ruff check --fix $(PACKAGES)

# Install the Debian packages that some tests use; without them those tests skip.
test-deps:
	apt-get update -qq
	xargs apt-get install -y -qq --no-install-recommends < tests/debian-packages.txt

# Resolve the newest versions: names, versions and hashes only, so that any mirror serves them.
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

# Remove the environment and the caches.
clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

# Say what each target does.
help:
	@awk '/^# / {said = said " " substr($$0, 3)} \
		/^[a-z-]+:/ && said {split($$0, name, ":"); printf "%-16s%s\n", name[1], said} \
		!/^# / {said = ""}' Makefile
