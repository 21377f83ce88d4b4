PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

# Build environments obey the pins too, not only the packages named on pip's command line.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export ORT_DISABLE_TELEMETRY := 1

.PHONY: demo test netem lint types check clean boards

demo: $(VENV)/.demo  ## train ten boards and write runs/<time>/report.html
	@$(BIN)/python -m hub demo --reference benchmarks/results $(ARGS)

test: $(VENV)/.dev lint types  ## everything CI runs
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations 25 $(ARGS)

netem: $(VENV)/.dev  ## trials by tc netem under Debian's kernel in an emulated machine (needs qemu-system-x86, busybox-static, apt)
	rm -rf build/kernel && mkdir -p build/kernel
	cd build/kernel && apt-get download "$$(apt-cache depends linux-image-amd64 | sed -n 's/ *Depends: //p' | head -n 1)"
	dpkg-deb -x build/kernel/*.deb build/kernel
	CUTLAYER_KERNEL=$(CURDIR)/build/kernel $(BIN)/python -m pytest tests/hub/trial/test_netem.py

boards: $(VENV)/.dev  ## emulated arm64 boards, one of them set up by cloud-init from its card (needs root, qemu-system-arm, qemu-user-static, mmdebstrap, dosfstools, mtools, mosquitto)
	CUTLAYER_CARD=1 $(BIN)/python -m pytest tests/boards $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev
	$(BIN)/mypy

clean:  ## remove what was built; runs/ stays
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "cutlayer needs Python 3.11 or newer; this is %d.%d (set PYTHON=...)" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e '.[all]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@ $(VENV)/.demo
