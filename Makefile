# `make` lists what there is. Everything runs from Python 3.11 or later and make alone: uv is taken from
# PATH or installed into .tools/, the dependencies go into .venv/.

.DEFAULT_GOAL := help
.PHONY: help demo test test-service check bench bench-micro torture bake clean setup baked workshop peers

PYTHON ?= python3
UV ?= $(or $(shell command -v uv 2>/dev/null),$(CURDIR)/.tools/bin/uv)
RUN = "$(UV)" run --no-sync

# The service that the default answers give, in the folder $(1): what it has installed and stored is kept,
# everything else is written anew.
BAKE = @mkdir -p $(1)/country-service && \
	find $(1)/country-service -mindepth 1 -maxdepth 1 \
	  ! -name .venv ! -name uv.lock ! -name .dev ! -name .env -exec rm -rf {} + && \
	$(RUN) cookiecutter . --default-config --no-input --overwrite-if-exists --output-dir $(1)
SERVICE = $(MAKE) --no-print-directory UV="$(UV)" PYTEST_ARGS= -C

# workshop/ holds what no service has to own: the cache's own tests, torture, benchmarks. It is laid over a
# generated service and runs there, in its environment and with its fixtures.
IN_SERVICE = cd .baked/country-service && $(RUN)
WORKSHOP_TESTS = $(shell cd workshop && find tests -name 'test_*.py' | sort)

# What all that is measured runs on, in the versions of the service.
COMMON = fastapi|starlette|pydantic|pydantic-core|uvicorn|uvloop|httptools

unexport VIRTUAL_ENV

help: ## list the commands
	@echo "make COMMAND, where COMMAND is one of:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s%s\n", $$1, $$2 }' Makefile

demo: setup ## generate the default service into demo/ and run it, without Docker (Ctrl-C ends it)
	@echo "== Generating the default service: demo/country-service"
	$(call BAKE,demo) >/dev/null
	@echo "== Running it, as you would: cd demo/country-service && make run"
	@trap : INT; $(SERVICE) demo/country-service run || [ $$? -eq 130 ]

test: setup ## test the template, then a generated service; TEST_SERVICES and PYTEST_ARGS as you like
	@echo "== Testing the template (tests/)"
	$(RUN) pytest $(PYTEST_ARGS)
	@$(MAKE) --no-print-directory test-service

test-service: baked ## test a generated service, then the cache in it (workshop/)
	@echo "== Testing the service: cd .baked/country-service && make test"
	@$(SERVICE) .baked/country-service test
	@$(MAKE) --no-print-directory workshop
	@echo "== Testing what a service does not own, in its environment (workshop/)"
	@$(IN_SERVICE) pytest -n 2 $(WORKSHOP_TESTS)

check: setup ## lint, format, types and links of the template, then of a generated service
	@echo "== Checking the template"
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	@$(MAKE) --no-print-directory baked
	$(RUN) python tests/links.py . .baked/country-service
	@echo "== Checking the service: cd .baked/country-service && make check"
	@$(MAKE) --no-print-directory workshop
	@$(SERVICE) .baked/country-service check --assume-old=setup

torture: workshop ## kill 200 writers under readers, then again while Redis and COMMITs are harmed; prints a table
	@$(IN_SERVICE) python -m tests.torture
	@$(IN_SERVICE) python -m tests.torture --faults

bench: peers ## measure the cache beside its peers; BENCH_ARGS="--rounds 1 --only 249"
	@cd .baked/country-service && $(RUN) python -m benchmarks --peers ../../.bench --goals ../../benchmarks/goals.toml \
	  --svg "../../{{cookiecutter.project_slug}}/docs/benchmark.svg" $(BENCH_ARGS)

bench-micro: workshop ## compare the CPU time per request with that of BASE=revision (default: HEAD)
	@rm -rf .bench/base && mkdir -p .bench/base
	@git archive "$(or $(BASE),HEAD):{{cookiecutter.project_slug}}" | tar -x -C .bench/base
	@cd .baked/country-service && env -u DATABASE_URL -u CACHE_URL $(RUN) python -m devtools up \
	  --data ../../.bench/servers -- .venv/bin/python ../../benchmarks/micro.py ../../.bench/base

bake: setup ## generate the default service into demo/, to look at
	$(call BAKE,demo)

clean: ## remove everything that make has written here, the data of the demo included
	rm -rf .baked .bench demo .venv .tools .mypy_cache .pytest_cache .ruff_cache uv.lock

# Each peer in an environment of its own, with the FastAPI and the uvicorn of the service.
peers: workshop
	@mkdir -p .bench && rm -f .bench/*/app.py && cp -R benchmarks/peers/. .bench/
	@"$(UV)" pip freeze --quiet --python .baked/country-service/.venv | grep -E '^($(COMMON))==' >.bench/common.txt
	@for app in .bench/*/app.py; do \
	  peer=$$(dirname "$$app"); \
	  [ -d "$$peer/.venv" ] || echo "Installing $$peer (the first time only)"; \
	  "$(UV)" venv --quiet --allow-existing --python .baked/country-service/.venv/bin/python "$$peer/.venv" && \
	  "$(UV)" pip install --quiet --python "$$peer/.venv" -r "$$peer/requirements.txt" -r .bench/common.txt || exit 1; \
	done

workshop: baked
	@$(SERVICE) .baked/country-service setup
	@cp -R workshop/. .baked/country-service/
	@"$(UV)" pip install --quiet --python .baked/country-service/.venv -r workshop/requirements.txt

baked: setup
	@echo "== Generating the default service: .baked/country-service"
	$(call BAKE,.baked) >/dev/null

setup:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or later is needed, and $(PYTHON) is not. Name one: make PYTHON=python3.13 ..." >&2; exit 1; }
	@"$(UV)" --version >/dev/null 2>&1 || { \
	  echo "uv is not on PATH: installing it into .tools/"; \
	  "$(PYTHON)" -m venv .tools && .tools/bin/python -m pip install --quiet "uv>=0.9,<1"; }
	@[ -d .venv ] || echo "Installing what the template's tests need into .venv/ (the first time only)"
	@"$(UV)" sync --python "$(PYTHON)" $(if $(wildcard .venv),--quiet)
