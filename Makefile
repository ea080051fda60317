# Bare `make` lists the targets. Everything runs in .venv, which `setup` makes; nothing else is needed.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/installed
FUZZ   := .venv-fuzz
DOCS   := .venv-docs
JOBS   ?= 2
# uv looks for certificates in this variable, pip in PIP_CERT: where a network has its own authority, one is enough.
ifneq ($(PIP_CERT),)
export SSL_CERT_FILE ?= $(PIP_CERT)
endif

.DEFAULT_GOAL := help
.PHONY: help setup run platform test test-fast coverage chaos chaos-proof soak outages fuzz bench demo conformance keys image image-test bundle dist lint docs reference picture format lock clean

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  make %-11s %s\n' "$$name" "$$text"; done

setup: $(STAMP)  ## make .venv with the locked dependencies and the receiver command

$(STAMP): requirements.txt requirements-dev.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; say which: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "Python's venv module is missing: sudo apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes --requirement requirements-dev.txt
	$(BIN)/pip install --quiet --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

run: setup  ## start the receiver on 127.0.0.1:8080 with SQLite under var/ and demo keys under keys/
	@$(BIN)/receiver keys generate --if-none
	@$(BIN)/receiver keys sealing --if-none
	@exec $(BIN)/receiver serve

platform: setup  ## start a simulated platform on 127.0.0.1:8090, wired to the receiver that make run starts
	@$(BIN)/receiver keys generate --if-none
	@exec $(BIN)/receiver platform serve

test: setup  ## run all tests, those of JOBS (2) files at a time
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

test-fast: setup  ## run the tests that are not marked slow: the loop of a developer
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile -m "not slow"

coverage: setup  ## run the same tests and print which lines and branches of the receiver they reach, also in processes that they start
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile -m "not slow" --cov --cov-report=term:skip-covered

chaos: setup  ## inject faults under load and check every promise: all that make chaos LIST=1 names, or FAULT=… STORE=… SECONDS=… SEED=…
	$(BIN)/python -m tests.chaos $(if $(LIST),--list) $(if $(FAULT),--fault $(FAULT)) $(if $(STORE),--store $(STORE)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(if $(DEFECT),--defect $(DEFECT))

chaos-proof: setup  ## put defects into the receiver on purpose and show that make chaos finds each
	$(BIN)/python -m tests.chaos.proof

soak: setup  ## send good and hostile traffic for ten minutes, or HOURS=…, and tell whether memory or anything else grows; STORE=…
	$(BIN)/python -m tests.chaos.soak $(if $(HOURS),--hours $(HOURS)) $(if $(STORE),--store $(STORE))

outages: setup  ## run the tests of outages, restarts and large stores at full length: three quarters of an hour
	CHAOS=20 $(BIN)/python -m pytest -s tests/chaos tests/deploy/test_proxies.py tests/deploy/test_rolling.py

fuzz: $(FUZZ)/installed  ## look for inputs that break a promise, 10 minutes of CPU for each of TARGETS="…" (all: 90 minutes)
	$(FUZZ)/bin/python -m tests.fuzz $(TARGETS)

$(FUZZ)/installed: requirements-fuzz.txt $(STAMP)
	$(BIN)/uv venv --quiet --clear $(FUZZ)
	$(BIN)/uv pip install --quiet --python $(FUZZ)/bin/python --require-hashes --requirement requirements-fuzz.txt
	@touch $@

bench: setup  ## measure speed side by side with a floor and a plain server, and what refusals cost: twelve minutes
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench.refusals

demo: setup  ## play the platform against a receiver; make demo DATABASE_URL=… takes that store instead of a temporary one
	@$(BIN)/receiver demo

conformance: setup  ## check that a receiver keeps the contract: one started for it, or that at URL=… with the keys under keys/
	@$(BIN)/receiver conformance $(if $(URL),--url "$(URL)" --keys keys)

keys: setup  ## make a new set of demo keys under keys/
	$(BIN)/receiver keys generate

image:  ## build the container image, with Docker or buildah
	@deploy/docker/build.sh

image-test: setup  ## run the image that make image has built, read-only and without rights, and check all that it must keep
	$(BIN)/python -m pytest -s tests/deploy/image_checks.py $(if $(CHECKS),-k "$(CHECKS)")

bundle:  ## pack the image, its bill of materials and the samples of deploy/ into one file under dist/, for places without internet
	@deploy/docker/bundle.sh

dist: setup  ## build sdist and wheel of the last commit under dist/, twice, compare them, and run the installed wheel
	$(BIN)/python deploy/release/dist.py

lint: setup  ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(DOCS)/installed  ## build the manual into build/site, after checking its generated pages; then check its links
	$(DOCS)/bin/python -m docs.generate --check
	@rm -rf build/site
	$(DOCS)/bin/sphinx-build --quiet --fail-on-warning --keep-going -d build/doctrees docs build/site
	$(DOCS)/bin/python docs/check_site.py build/site

reference: $(DOCS)/installed  ## write the generated parts of docs/reference anew, from the code
	$(DOCS)/bin/python -m docs.generate

picture: setup  ## take the picture of the simulated platform for README and manual, with Chromium
	$(BIN)/python -m docs.generate.picture

$(DOCS)/installed: requirements-docs.txt $(STAMP)
	$(BIN)/uv venv --quiet --clear $(DOCS)
	$(BIN)/uv pip install --quiet --python $(DOCS)/bin/python --require-hashes --requirement requirements-docs.txt
	@touch $@

format: setup  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup  ## pin all dependencies of setup.cfg with their hashes, anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' --extra postgresql --extra mysql setup.cfg --output-file requirements.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' --extra fuzz --constraint requirements.txt setup.cfg --output-file requirements-fuzz.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' --extra docs --constraint requirements.txt setup.cfg --output-file requirements-docs.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' --extra postgresql --extra mysql --extra dev --constraint requirements.txt setup.cfg --output-file requirements-dev.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' deploy/docker/requirements-build.in --output-file deploy/docker/requirements-build.txt

clean:  ## remove .venv and caches; keys/ and var/ stay
	rm -rf $(VENV) $(FUZZ) $(DOCS) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage .coverage.*
