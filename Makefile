# Everything a fresh machine needs is Python >= 3.11 and make; `make` alone lists the targets.
PYTHON  ?= python3
JOB     ?= jobs/digits.yaml
RUN     ?= runs/$(basename $(notdir $(JOB)))
# More arguments for train, report and bench, e.g. ARGS='--set training.epochs=5', and for pytest, e.g. TESTS=tests/test_spec.py.
ARGS    ?=
TESTS   ?= tests
WORKERS ?= 2

VENV := .venv
BIN  := $(VENV)/bin
DONE := $(VENV)/.installed
PEERS := benchmarks/peers/.venv

.DEFAULT_GOAL := help
.PHONY: help setup train report test test-all check lint format-check typecheck contracts format constraints clean
.PHONY: lecture correctness bench bench-full bench-gpu bench-aggregate bench-peers

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(DONE) ## create .venv and install the pinned packages

# Both, because newer pips read the second for the isolated build environment and older ones the first.
$(DONE): export PIP_CONSTRAINT := constraints.txt
$(DONE): export PIP_BUILD_CONSTRAINT := constraints.txt
$(DONE): export PIP_DISABLE_PIP_VERSION_CHECK := 1
$(DONE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed, e.g. make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "Installing the pinned packages into $(VENV); this takes a few minutes, once."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq "$$(grep '^torch==' constraints.txt)"
	@$(BIN)/python -m pip install -qq -e '.[dev]'
	@touch $@

train: setup ## train JOB (jobs/digits.yaml) and print its report; the same command again resumes
	@$(BIN)/ensemble-svc train $(JOB) $(ARGS)

report: setup ## write RUN/report.html again and print the table
	@$(BIN)/ensemble-svc report $(RUN) $(ARGS)

# Tests that start Ray come last and one at a time: each is several processes, and two heads on one host take each
# other's ports. Status 5 says that a part has no test among TESTS.
part = $(BIN)/python -m pytest -q $(1) $(TESTS) || [ $$? -eq 5 ] || failed=1;

test: setup ## run the test suite, but for the tests that take minutes
	@failed=0; $(call part,-n $(WORKERS) --dist worksteal -m 'not ray and not slow') $(call part,-m 'ray and not slow') exit $$failed

test-all: setup ## run the whole test suite
	@failed=0; $(call part,-n $(WORKERS) --dist worksteal -m 'not ray') $(call part,-m ray) exit $$failed

check: lint format-check typecheck contracts ## everything that is checked without running the code

lint: setup ## ruff's rules
	@$(BIN)/ruff check --quiet . && echo "lint: clean"

format-check: setup ## ruff's formatting
	@$(BIN)/ruff format --quiet --check . && echo "format: clean"

typecheck: setup ## mypy
	@$(BIN)/mypy --no-error-summary && echo "types: clean"

contracts: setup ## who may import whom
	@out=$$($(BIN)/lint-imports --no-logo 2>&1) && echo "contracts: kept" || { echo "$$out"; exit 1; }

format: setup ## format the code and mend what ruff can
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format .

correctness: setup ## compare every quantity with independent implementations and write docs/correctness.md again
	@$(BIN)/python -m benchmarks.correctness $(ARGS)

lecture: setup ## train every job of jobs/lecture and write docs/lecture.md again, a few minutes
	@$(BIN)/python -m benchmarks.lecture $(ARGS)

bench: setup ## time ours beside a few others, under 10 minutes on a quiet machine
	@$(BIN)/python -m benchmarks.run $(ARGS)

bench-full: setup ## every contender and every measure, over an hour; writes benchmarks/results
	@$(BIN)/python -m benchmarks.run --full $(ARGS)

bench-gpu: setup ## packs on a CUDA device; writes benchmarks/results/gpu.json
	@$(BIN)/python -m benchmarks.gpu $(ARGS)

bench-aggregate: setup ## combining from disk, selection, bootstrap; 5 GB for temporary files; writes benchmarks/results
	@$(BIN)/python -m benchmarks.aggregate $(ARGS)

bench-peers: ## install the libraries that bench-full and correctness compare with, in an environment of their own
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip --disable-pip-version-check install -qq \
	  "$$(grep '^torch==' constraints.txt)" -r benchmarks/peers/requirements.txt
	@$(PEERS)/bin/python -m pip --disable-pip-version-check install -qq --no-deps --upgrade \
	  --target $(PEERS)/autogluon -r benchmarks/peers/apart.txt

constraints: setup ## write the versions that .venv holds into constraints.txt
	@sed -n '/^#/p;/^#/!q' constraints.txt > constraints.tmp
	@$(BIN)/python -m pip --disable-pip-version-check freeze --all --exclude-editable --exclude pip | sed -E 's/\+[A-Za-z0-9.]+$$//' >> constraints.tmp
	@mv constraints.tmp constraints.txt && touch $(DONE)

clean: ## remove .venv and every cache; runs/ stays
	@rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
