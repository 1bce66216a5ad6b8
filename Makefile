# Everything sets itself up in .venv; nothing but Python >= 3.11, pip, gcc and make is needed.
#   make demo       a real federation on this machine, ends with the report's path
#   make test       the fast tests        make test-all  also real brokers, PostgreSQL and slow ones
#   make test-arm   on emulated ARM systems, those that take minutes too
#   make test-image            cards made of stock images boot, enrol and train; as root, minutes (docs/flash.md)
#   make test-chaos [SEED=7]   kill -9, bad networks, full disks; as root, under ten minutes (docs/chaos.md)
#   make fuzz [ARGS='--seed 7']   a million inputs for all that reads bytes from elsewhere; under five minutes
#   make lint       format, lint, types   make clean     forget .venv and outputs
#   make web        the page for phones: kernels in WebAssembly, TypeScript; needs clang, lld, wasi-libc, node, npm
#   make test-web   phones in a real Chromium: federations, bad days, accessibility; needs mosquitto and chromium too
#   make executorch   the third runtime, for programs that train in apps (make test-all does it too)
#   make wheels     dist/*.whl for x86-64, 64-bit and 32-bit ARM
#   make bench-kernels [NETS=conv4 DENSITIES=0.05 BATCH=32]   one training step on every runtime
#   make bench-web                a training step in Chromium, against native and onnxruntime-web
#   make bench-wire               bytes and speed of the mask coder
#   make bench-method [ARGS=--quick]   accuracy against bytes, HideNseek and nine rivals

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
KERNELS := $(wildcard edge_client/kernels/*.c edge_client/kernels/*.h edge_client/kernels/build.py wire/native/*.c wire/native/*.h wire/native/build.py wire/compiler.py)
ARGS   ?=
SEED   ?=

# Tests start many processes; each would compile all it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo web test-web executorch test test-all test-arm test-chaos test-image fuzz bench-kernels bench-method bench-web bench-wire bench-attacks wheels lint clean

help:
	@sed -n '/^$$/q; s/^#//p' Makefile

# Where Python comes without venv (Debian's python3-venv is a package of its own), virtualenv does the same.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $$($(PYTHON) --version) found; name another: make PYTHON=python3.12" >&2; exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { rm -rf $(VENV); \
	  $(PYTHON) -m pip install --quiet --user virtualenv && $(PYTHON) -m virtualenv --quiet $(VENV); }

$(READY): pyproject.toml $(BIN)/python
	@echo "installing into $(VENV) (once, about 1 GB, mostly torch)"
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on torch==2.13.0 | grep -v -i 'already satisfied' || true
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[coordinator,postgres,dev]'
	@touch $@

# Installing compiles them too; this does it again when a source has changed.
$(VENV)/.kernels: $(READY) $(KERNELS)
	@$(BIN)/python -m wire.native.build || echo "no native coder: masks will be coded in Python, which is slower"
	@$(BIN)/python -m edge_client.kernels.build || echo "no kernels: devices here will train with the onnx runtime"
	@touch $@

# Without all that its wheel names (torchao, pandas, ...): neither making nor running programs needs it.
$(VENV)/.executorch: $(READY) edge_client/executorch/shim.cpp edge_client/executorch/build.py wire/compiler.py
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps executorch==1.5.1 tabulate && \
	  $(BIN)/python -m edge_client.executorch.build || echo "no executorch: its tests are skipped"
	@touch $@

executorch: $(VENV)/.executorch

# What goes into the web client.
WEB := $(wildcard edge_client/web/*.json edge_client/web/*.py edge_client/web/src/*/* edge_client/web/check/*.ts) \
  $(wildcard edge_client/kernels/*.c edge_client/kernels/*.h wire/native/*.c wire/native/*.h)

$(VENV)/.web: $(READY) $(WEB)
	@$(BIN)/python -m edge_client.web.build
	@touch $@

web: $(VENV)/.web

test-web: $(VENV)/.kernels $(VENV)/.web
	@$(BIN)/python -m pytest tests/integration/test_phone_page.py tests/integration/test_phone_days.py tests/integration/test_web_kernels.py tests/unit/test_web_command.py $(ARGS)

demo: $(VENV)/.kernels
	@$(BIN)/hidenseek demo $(ARGS)

# Three processes on two cores: a seventh of the time tests wait for what they have started.
test: $(VENV)/.kernels
	@$(BIN)/python -m pytest -n 3 --dist worksteal -m "not slow and not broker and not chaos and not image" $(ARGS)

# Likewise, and its longest tests take minutes: whoever is done takes some of another's.
test-all: $(VENV)/.kernels $(VENV)/.executorch
	@$(MAKE) --no-print-directory web || echo "no web client: its tests are skipped"
	@$(BIN)/python -m pytest -n 3 --dist worksteal -m "not arm and not chaos and not image" $(ARGS)

# Debian systems of those machines, unpacked into the user's cache, under qemu-user.
test-arm: $(VENV)/.kernels $(VENV)/.executorch
	@missing=; \
	need() { PATH="$$PATH:/usr/sbin" command -v $$1 >/dev/null || missing="$$missing $$2"; }; \
	need qemu-aarch64-static qemu-user-static; \
	need aarch64-linux-gnu-gcc 'gcc-aarch64-linux-gnu libc6-dev-arm64-cross'; \
	need aarch64-linux-gnu-g++ g++-aarch64-linux-gnu; \
	need arm-linux-gnueabihf-gcc 'gcc-arm-linux-gnueabihf libc6-dev-armhf-cross'; \
	need mosquitto mosquitto; \
	[ -z "$$missing" ] || { echo "packages are missing; install them: apt-get install$$missing" >&2; exit 1; }
	@$(BIN)/python -m pytest -n 2 tests/integration/test_arm*.py $(ARGS)

# One process at a time: the fleet needs the machine. It says what is missing.
test-chaos: $(VENV)/.kernels
	@HIDENSEEK_CHAOS_SEED=$(SEED) timeout --foreground 600 $(BIN)/python -m pytest -s -m chaos tests/chaos $(ARGS)

# Base systems are made once, by mmdebstrap, and kept in the user's cache.
test-image: $(VENV)/.kernels
	@timeout --foreground 2700 $(BIN)/python -m pytest -s -m image tests/boot $(ARGS)

# What is found is told with a command that tries it again; new ground goes to out/fuzz.
fuzz: $(VENV)/.kernels
	@timeout --foreground 600 $(BIN)/python -m tests.fuzz $(ARGS)

bench-kernels: $(VENV)/.kernels
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || $(BIN)/python -m pip install --quiet --editable '.[bench]'
	@$(BIN)/python -m benchmarks.kernels $(if $(NETS),--nets $(NETS)) $(if $(DENSITIES),--densities $(DENSITIES),--synflow) \
	  $(if $(BATCH),--batches $(BATCH)) $(if $(MODES),--modes $(MODES)) $(ARGS)

# HideNseek and its rivals on the same data; resumable. ARGS=--quick: under ten minutes.
bench-method: $(VENV)/.kernels
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || $(BIN)/python -m pip install --quiet --editable '.[bench]'
	@$(BIN)/python -m benchmarks.method $(ARGS)

# Ours in Chromium against native and onnxruntime-web, which nothing else needs.
RIVAL := benchmarks/onnxruntime-web
$(RIVAL)/node_modules/.package-lock.json: $(RIVAL)/package-lock.json
	@npm ci --prefix $(RIVAL) --silent --no-audit --no-fund
	@touch $@

bench-web: $(VENV)/.kernels $(VENV)/.web $(RIVAL)/node_modules/.package-lock.json
	@$(BIN)/python -m benchmarks.web $(ARGS)

# Bytes and speed of the mask coder, against the ideal code length and other coders.
bench-wire: $(VENV)/.kernels
	@$(BIN)/python -c 'import constriction, zstandard' 2>/dev/null || $(BIN)/python -m pip install --quiet --editable '.[bench]'
	@$(BIN)/python -m benchmarks.wire $(ARGS)

# How many hostile devices a federation survives, and what randomised response costs; resumable.
bench-attacks: $(VENV)/.kernels
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || $(BIN)/python -m pip install --quiet --editable '.[bench]'
	@$(BIN)/python -m benchmarks.attacks $(ARGS)

# Wheels for PCs and ARM boards, by Debian's cross compilers; each works with every Python from 3.11 on.
wheels: $(READY)
	@missing=; \
	need() { command -v $$1-gcc >/dev/null || missing="$$missing $$2"; }; \
	need x86_64-linux-gnu 'gcc libc6-dev'; \
	need aarch64-linux-gnu 'gcc-aarch64-linux-gnu libc6-dev-arm64-cross'; \
	need arm-linux-gnueabihf 'gcc-arm-linux-gnueabihf libc6-dev-armhf-cross'; \
	[ -z "$$missing" ] || { echo "cross compilers are missing; install them: apt-get install$$missing" >&2; exit 1; }
	@rm -rf build dist
	@for target in x86_64-linux-gnu aarch64-linux-gnu arm-linux-gnueabihf; do \
	  rm -rf build; \
	  CC=$$target-gcc $(BIN)/python -m pip wheel --disable-pip-version-check --quiet --no-deps --wheel-dir dist . || exit 1; \
	done; rm -rf build
	@ls -l dist

lint: $(READY)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist out edge_client/web/dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find edge_client wire -name '*.so' -delete
