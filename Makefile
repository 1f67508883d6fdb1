# Every target can be called at any time and makes .venv if it is missing.  CONTRIBUTING.md lists them.
PYTHON ?= python3
BIN := .venv/bin
DEMO_OUT ?= demo
TEST_PROCESSES ?= 2
QUICK_TESTS := tests/resad tests/test_docs.py tests/test_readme.py

# Real photographs and weights for tests and benchmarks, if they are beside the checkout.
ifneq ($(wildcard ../shared/data),)
export RESAD_DATA ?= $(abspath ../shared)
endif

.PHONY: setup demo serve quick check test long-test bench gpu-bench docker-test dicom-test cluster-test clean

setup: .venv/ready

.venv/ready: pyproject.toml clients/python/pyproject.toml clients/dicom/pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock \
	  --editable '.[dev]' --editable clients/python --editable clients/dicom
	@touch $@

demo: setup
	$(BIN)/python demo.py --out '$(DEMO_OUT)' $(if $(PHOTOS),--photos '$(PHOTOS)') \
	  $(if $(BACKBONE),--backbone '$(BACKBONE)') $(if $(WEIGHTS),--weights '$(WEIGHTS)') $(STAY)

# The demo, with the service left running until Ctrl-C.
serve: STAY = --stay
serve: demo

# About a minute: no types, and only unit tests of the method and of the pages, which need no real photographs, no index
# and no server.
quick: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	env -u RESAD_DATA $(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist loadscope -m quick $(QUICK_TESTS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file clients/python/pyproject.toml clients/python/src clients/python/tests
	$(BIN)/mypy --config-file clients/dicom/pyproject.toml clients/dicom/src clients/dicom/tests
	$(BIN)/lint-imports

test: check
	$(BIN)/pytest -ra --numprocesses $(TEST_PROCESSES) --dist loadscope

# What takes long for what it shows: statistics over many photographs, training, load, kills at every step.  Some ten minutes.
long-test: setup
	$(BIN)/pytest -ra -m long --numprocesses $(TEST_PROCESSES) --dist loadscope

bench: setup
	@for name in $$(ls benchmarks/*.py | sed 's#benchmarks/\(.*\)\.py#\1#' | grep -v '^_'); do \
	  $(BIN)/python -m benchmarks.$$name $(ARGS) || exit 1; done

# On a machine with a GPU: the tests marked `gpu`, then the GPU cases of the benchmarks; docs/gpu.md describes them.
gpu-bench: setup
	$(BIN)/python -m benchmarks.gpu $(ARGS)

# Builds both images and runs them, in about 15 minutes.  Needs a Linux Docker engine, a package registry and 25 GB of disk.
# Not in CI, whose 25 minutes the other tests need.  RESAD_BASE_IMAGE names another base image.
docker-test: setup
	$(BIN)/pytest -ra -m docker tests/docker

# Kills the DICOM node, the service and the PACS in turn under 200 photographs, in about five minutes.  Needs Orthanc with
# its DICOMweb plugin, as Debian has them.
dicom-test: setup
	$(BIN)/pytest -ra -m dicom tests/dicom

# Installs the extra `cluster` into .venv and tests it, in about three minutes.  Not part of `test`, since the extra brings
# uvloop and httptools: `test` runs the service with what a plain installation has.
cluster-test: setup
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev,cluster]'
	$(BIN)/pytest -ra tests/cluster

clean:
	rm -rf .venv demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
	  clients/typescript/node_modules clients/typescript/dist
	find . -name __pycache__ -prune -exec rm -rf {} +
