# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet -c constraints.txt

.PHONY: demo test test-fast lint bench clean
.DELETE_ON_ERROR:

# TensorRT-RTX has no wheels for some platforms, so its failure leaves a usable installation.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(PIP) -e ".[export,train,dev]"
	$(PIP) -e ".[tensorrt-rtx]" || echo "note: TensorRT-RTX is not available for this platform"
	touch $@

demo: $(STAMP)  ## export the shipped models, upscale the sample image on every backend, compare
	$(BIN)/python examples/demo.py

test: $(STAMP) lint  ## style, types and the whole test suite
	$(BIN)/python -m pytest

test-fast: $(STAMP)  ## the suite without its slow part
	$(BIN)/python -m pytest -m "not slow"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo-out .pytest_cache .mypy_cache .ruff_cache
