# Two commands do everything on a fresh machine: `make demo` and `make test`; `make web` adds the page.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The package alone, without torch: the page takes bundles that are there.
BASE := $(VENV)/.base
PIP := $(BIN)/python -m pip install --quiet -c constraints.txt

# Two workers: tracing is one Python thread, and libraries that start as many threads as there are
# processors would only get into each other's way.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# The theme advertises its successor with every build.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs

WEB_STAMP := web/node_modules/.installed
SITE := web/build/site

.PHONY: demo demo-all pictures wheel docs models web test test-slow test-long test-networks test-executorch test-oldest lint clean
.DELETE_ON_ERROR:

# TensorRT-RTX has no wheels for some platforms, so its failure leaves a usable installation.
# Spandrel without what it requires: torchvision has to be built for the very build of torch, and
# the tests of imports, which stand in for it, do without.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(PIP) -e ".[export,train,eval,video,dev]"
	$(PIP) einops && $(PIP) --no-deps spandrel
	$(PIP) -e ".[tensorrt-rtx]" || echo "note: TensorRT-RTX is not available for this platform"
	touch $@

$(BASE): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

demo: $(STAMP) models  ## upscale two photographs, then export one network to every format and prove it
	$(BIN)/python examples/demo.py

demo-all: $(STAMP) models  ## the same with every shipped network: most of half an hour
	$(BIN)/python examples/demo.py --all

pictures: $(STAMP) models  ## draw the comparison in README again
	$(BIN)/python examples/demo.py --sheet docs/images/side-by-side.png

wheel: $(STAMP) models  ## build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

$(WEB_STAMP): web/package.json web/package-lock.json
	cd web && npm ci --no-audit --no-fund
	touch $@

models: $(STAMP)  ## make the bundles that come with the package from scaleport/weights
	$(BIN)/python tools/make_models.py

web: $(BASE) $(WEB_STAMP)  ## build the static site of the demo page with the shipped models
	$(BIN)/python -m scaleport.serving.site $(SITE)
	cd web && node build.mjs site build/site
	@echo "built $(SITE); see it with: $(BIN)/scaleport web"

docs: $(STAMP)  ## build the documentation; a link to nothing is an error
	$(MKDOCS) build --strict --quiet
	@echo "built build/docs; open build/docs/index.html"

test: $(STAMP) lint  ## style, types and the test suite
	$(PYTEST) -m "not slow and not long and not networks"

test-slow: $(STAMP)  ## what takes longer: full-size networks, the shipped models on every backend
	$(PYTEST) -m slow

test-long: $(STAMP)  ## training that must learn, memory of large images, calibration: most of an hour
	$(PYTEST) -m long

test-networks: $(STAMP)  ## every encoder and upsampler through every format
	$(PYTEST) -m networks

# Beside the other packages, not among them: importing coremltools takes ten seconds longer where
# there is torchao, and what else ExecuTorch asks for is not needed here.
EXECUTORCH := build/executorch

$(EXECUTORCH)/.installed: constraints.txt
	rm -rf $(EXECUTORCH)
	$(PIP) --no-deps --no-compile --target $(EXECUTORCH) executorch torchao tabulate ruamel.yaml
	touch $@

test-executorch: $(STAMP) $(EXECUTORCH)/.installed  ## ExecuTorch's programs, which `make test` skips
	PYTHONPATH=$(EXECUTORCH) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs \
	  tests/runtimes/test_executorch.py tests/export/test_executorch_export.py

# Without constraints.txt: its versions are for newer Pythons. What is installed is what pip finds
# for a user of this Python.
OLDEST ?= $(shell for p in python3.10 "$$HOME"/.pyenv/versions/3.10.*/bin/python; do \
  "$$p" -c "" 2> /dev/null && echo "$$p" && break; done)
OLDEST_VENV := build/oldest
OLDEST_TESTS := $(addprefix tests/,test_atomic.py test_errors.py test_grid.py test_rooms.py \
  test_tensor.py batch/test_journal.py batch/test_many.py batch/test_plan.py bundle/test_reader.py \
  bundle/test_schema.py bundle/test_signing.py cli/test_tables.py imaging runtimes/test_tiles.py \
  runtimes/test_blended_tiles.py runtimes/test_video.py runtimes/test_view.py \
  validation/test_gates.py validation/test_metrics.py validation/test_pictures.py)

$(OLDEST_VENV)/.installed: pyproject.toml
	rm -rf $(OLDEST_VENV)
	$(OLDEST) -m venv $(OLDEST_VENV)
	$(OLDEST_VENV)/bin/python -m pip install --quiet -e ".[onnxruntime,sign,video]" \
	  onnx pytest pytest-xdist hypothesis jsonschema
	touch $@

test-oldest:  ## what needs no torch, on Python 3.10, where that is installed
	@if [ -z "$(OLDEST)" ]; then echo "note: no Python 3.10 here; make test-oldest OLDEST=PATH"; \
	else $(MAKE) $(OLDEST_VENV)/.installed && PYTHONPATH=. OMP_NUM_THREADS=1 \
	  $(OLDEST_VENV)/bin/python -m pytest -n 2 --dist loadfile -p no:cacheprovider \
	  -m "not slow and not long and not networks" $(OLDEST_TESTS); fi

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build web/build web/dist web/node_modules demo-out .pytest_cache .mypy_cache .ruff_cache
