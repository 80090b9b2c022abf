# Two commands for a newcomer: `make run` and `make test`. Each installs what it needs into .venv,
# and does so again only when a requirements file has changed.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PORT   ?= 8501

.PHONY: run test check format bench bench-6b bench-long screenshots clean

run: $(VENV)/.run
	$(BIN)/streamlit run Home.py --server.port $(PORT)

test: $(VENV)/.dev $(VENV)/.chromium
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict glm_backend

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.bench $(VENV)/.chromium
	$(BIN)/python -m benchmarks

bench-6b: $(VENV)/.bench
	$(BIN)/python -m benchmarks chatglm_6b

bench-long: $(VENV)/.bench
	$(BIN)/python -m benchmarks durability company

screenshots: $(VENV)/.dev $(VENV)/.chromium
	$(BIN)/python docs/make_screenshots.py

clean:
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.txt requirements-nodeps.txt constraints.txt | $(BIN)/python
	@echo "Installing what the dashboard needs into $(VENV) (some minutes, once) ..."
	$(PIP) -r requirements.txt
	$(PIP) --no-deps -r requirements-nodeps.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	@echo "Installing what the tests need ..."
	$(PIP) -r requirements-dev.txt
	@touch $@

# llama.cpp's own use of AMX ends with a signal on some virtual machines.
NO_AMX := $(if $(filter x86_64,$(shell uname -m)),-mno-amx-tile -mno-amx-int8 -mno-amx-bf16)

$(VENV)/.bench: requirements-bench.txt $(VENV)/.dev
	@echo "Building what ours is measured beside ..."
	CMAKE_ARGS="-DCMAKE_C_FLAGS='$(NO_AMX)' -DCMAKE_CXX_FLAGS='$(NO_AMX)'" \
	  $(PIP) --no-deps -r requirements-bench.txt
	@touch $@

$(VENV)/.chromium: $(VENV)/.dev
	@PLAYWRIGHT="$(BIN)/python -m playwright" sh tests/browser/install_chromium.sh
	@touch $@
