# Every command a developer needs. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for each in python3.11 python3; do $$each -c '' 2>/dev/null && echo $$each && break; done)
BIN := .venv/bin
INSTALLED := .venv/.installed
PROTOS := $(shell find protos -name '*.proto' -not -path 'protos/mesh/inference/*')
# Their messages live in a pool of descriptors of their own, made at run time: mesh/inference/protocol/messages.py.
INFERENCE_PROTOS := $(wildcard protos/mesh/inference/protocol/*.proto)
SERVICE_PROTOS := $(shell grep -l '^service' $(PROTOS))
# Protos of the benchmarks, examples and tests; their code is generated beside them.
USER_PROTOS := $(shell find benchmarks examples tests -name '*.proto' 2>/dev/null)
# Where the protos of googleapis-common-protos are, which those of users may import: google/api, google/rpc.
GOOGLEAPIS = $(wildcard .venv/lib/python3*/site-packages)
CODE := mesh gateway tests benchmarks $(wildcard examples)

.PHONY: help setup protos check test test-newest test-oldest mutants storms demo bench bench-grpcio bench-tuning clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 14

setup: $(INSTALLED)  ## create .venv and install everything, pinned by constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No python3 is on the PATH: install Python 3.11 or newer."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, not " + sys.version)'
	@echo "Setting up .venv (once, about a minute) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[dev]' \
	    | sed -nu 's/^\(Collecting\|Installing\) /  &/p'
	@touch $@

# $(call generate,DIRECTORY): the generated code of all protos, written below DIRECTORY.
define generate
	$(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=$(1) --pyi_out=$(1) $(PROTOS)
	$(BIN)/python -m grpc_tools.protoc -Iprotos --grpc_python_out=$(1) $(SERVICE_PROTOS)
	$(BIN)/python -m grpc_tools.protoc -Iprotos --pyi_out=$(1) \
	    --descriptor_set_out=$(1)/mesh/inference/protocol/open_inference.binpb $(INFERENCE_PROTOS)
	PATH=$(BIN):$$PATH python -m grpc_tools.protoc -I. -I$(GOOGLEAPIS) --python_out=$(1) --mypy_out=quiet:$(1) \
	    --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) $(USER_PROTOS)
endef

protos: setup  ## regenerate the code that comes from .proto files
	$(call generate,.)

.PHONY: check-protos
check-protos: setup
	@rm -rf build/protos && mkdir -p build/protos/mesh/inference/protocol
	@$(call generate,build/protos)
	@cd build/protos && for file in $$(find . -name '*.py*' -o -name '*.binpb'); do \
	    cmp "$$file" "../../$$file" || { echo "$$file is not what its .proto says: run 'make protos' and commit"; exit 1; }; done

# $(call beside,NAME,COMMAND,OTHERS): runs COMMAND in the background of OTHERS, and shows at the end what it has said.
define beside
	@mkdir -p build && { { $(2); } > build/$(1).txt 2>&1 & other=$$!; failed=0; { $(3); } || failed=1; \
	    wait $$other || failed=1; cat build/$(1).txt; exit $$failed; }
endef

check: setup check-protos  ## format, lint, types, generated code, architecture, unit and sim tests
	$(BIN)/ruff format --check --quiet $(CODE)
	$(BIN)/ruff check --quiet $(CODE)
	@# Where PYTHONDONTWRITEBYTECODE is set, each process that the tests start would compile what it imports.
	@$(BIN)/python -m compileall -q mesh gateway tests $(wildcard examples)
	@# A module that has moved is seen here, and not after minutes of end-to-end tests.
	@PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -q --collect-only tests/e2e tests/nodes > build/collected.txt || { tail -40 build/collected.txt; exit 1; }
	@# mypy has work for one core, and the tests wait now and then.
	$(call beside,mypy,$(BIN)/mypy,\
	    $(BIN)/pytest -q -n auto --dist worksteal tests/test_architecture.py $(wildcard tests/unit tests/sim))

# End-to-end tests wait much. At a low priority, unit tests only take the time of the processor that these leave.
# The demo is run when there is no other Ray, which it would use.
# The first hour of a user is tried with the wheel, by the last command.
test: check  ## check, then the end-to-end tests on a real Ray, then what test-newest and test-oldest do
	$(call beside,installs,nice $(BIN)/python -m tests.fresh_install unit newest oldest,\
	    $(BIN)/pytest -q -n 2 --dist loadfile tests/e2e --ignore tests/e2e/test_first_hour.py)
	$(BIN)/python -m tests.fresh_install demo newest oldest
	$(call beside,nodes,$(BIN)/pytest -q tests/nodes,$(BIN)/python -m tests.fresh_install end-to-end newest oldest)

test-newest: setup  ## build the wheel, install it as pip resolves it into a clean environment, test it there
	$(BIN)/python -m tests.fresh_install newest

test-oldest: setup  ## the same with the oldest versions that pyproject.toml allows
	$(BIN)/python -m tests.fresh_install oldest

mutants: setup  ## nightly: each known fault of a controller has to be seen by its tests (ONLY="canary drain": some)
	$(BIN)/python -m tests.mutants $(ONLY)

storms: setup  ## nightly: many more seeds of the simulations than `make check` tries (SEEDS=10000)
	$(BIN)/python -m tests.sim.season $(SEEDS)

demo: setup  ## deploy an example, call it from a separate client, report, shut down
	@$(BIN)/python -m examples.demo

bench: setup  ## ours, raw grpc.aio, uvicorn and Ray Serve in one table (QUICK=1: four minutes)
	$(BIN)/python -m benchmarks.compare $(if $(QUICK),--quick)

bench-grpcio: setup  ## raw grpc.aio under the versions of grpcio we could pin
	$(BIN)/python -m benchmarks.grpcio_versions $(if $(QUICK),--quick)

bench-tuning: setup  ## settings whose defaults come from measurement, value by value
	$(BIN)/python -m benchmarks.tuning

clean:  ## remove the environments and everything that was built or measured
	rm -rf .venv .venv-serve build results *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
