# Two commands set everything up on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Folder of the quickstart: world, run, results, report. A second call goes on where the first one stopped.
QUICKSTART ?= quickstart
# Processes of the test suite, one thread each.
JOBS ?= 2

.PHONY: quickstart test lint benchmark clean

# A stamp per set of extras, so that a second call installs nothing.
$(VENV)/.base: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(BIN)/python -m pip install --quiet -e '.[test,mmseg]'
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

quickstart: $(VENV)/.base
	$(BIN)/mtv-eval selftest
	$(BIN)/mtv-eval quickstart --out $(QUICKSTART)

test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	tools/typecheck

benchmark: $(VENV)/.test
	for f in tests/benchmarks/bench_*.py; do $(BIN)/python $$f || exit 1; done

clean:
	rm -rf $(VENV) .typecheck .mypy_cache .ruff_cache .hypothesis
