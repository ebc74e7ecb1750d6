# `make help` lists the targets. All they need is make and Python 3.11 or newer: the first one
# makes the virtualenv .venv, and makes it anew when pyproject.toml or uv.lock changes.

VENV ?= .venv
# More arguments for pytest: make test ARGS='tests/unit -k priority'
ARGS ?=
PYTEST ?= "$(bin)/pytest"

bin := $(VENV)/bin
ready := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test lint style types layers generated format sync codegen bench bench-quick bench-install chaos clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

demo: $(ready) ## a real workload on a throw-away PostgreSQL
	@"$(bin)/zodworker" demo

test: $(ready) ## all tests, on a throw-away PostgreSQL; those beside Node need node and npm
	@$(PYTEST) -n auto $(ARGS); status=$$?; \
	command -v node >/dev/null && command -v npm >/dev/null || printf '%s\n' '' \
		'!!! PARITY TESTS SKIPPED: node and npm are not on PATH, so nothing was compared with' \
		'!!! a real graphile-worker. Install Node 20 or newer and run make test again.' >&2; \
	exit $$status

lint: style types layers generated ## style, types, layers; generated files are current

style: $(ready)
	"$(bin)/ruff" check
	"$(bin)/ruff" format --check

types: $(ready)
	"$(bin)/mypy"

layers: $(ready)
	"$(bin)/lint-imports"

generated: $(ready)
	"$(bin)/python" tools/async_to_sync.py --check
	"$(bin)/zodworker" catalog check
	"$(bin)/zodworker" catalog codegen --check

format: $(ready) ## write everything in the house style
	"$(bin)/ruff" check --fix-only
	"$(bin)/ruff" format

sync: $(ready) ## generate the sync twins of the async sources
	"$(bin)/python" tools/async_to_sync.py

codegen: $(ready) ## generate zodworker_compat/triggerdev from schemas/
	"$(bin)/zodworker" catalog codegen

bench-install: $(ready) ## the queues to compare with, in a cache of their own
	"$(bin)/python" -m benchmarks.install

bench: bench-install ## compare the speed with the others': benchmarks/results, in ten minutes
	"$(bin)/python" -m benchmarks $(ARGS)

bench-quick: bench-install ## prove that the comparison runs
	"$(bin)/python" -m benchmarks --quick $(ARGS)

chaos: $(ready) ## break things for half an hour: no job may be lost
	@"$(bin)/python" tests/chaos/soak.py $(ARGS)

clean: ## remove what was made, .venv too
	rm -rf "$(VENV)" build dist .coverage .coverage.* .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(ready): pyproject.toml uv.lock tools/make_venv.sh
	@PYTHON="$(PYTHON)" ./tools/make_venv.sh "$(VENV)"
	@touch "$@"
