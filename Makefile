# Two commands for a newcomer: `make run` and `make test`. Each installs what it needs into .venv,
# and does so again only when a requirements file has changed.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PORT   ?= 8501

.PHONY: run test check format bench screenshots clean

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

bench: $(VENV)/.dev $(VENV)/.chromium
	$(BIN)/python -m benchmarks

screenshots: $(VENV)/.dev $(VENV)/.chromium
	$(BIN)/python docs/make_screenshots.py

clean:
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.txt requirements-starter.txt constraints.txt | $(BIN)/python
	@echo "Installing what the dashboard needs into $(VENV) (some minutes, once) ..."
	$(PIP) -r requirements.txt
	$(PIP) --no-deps -r requirements-starter.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	@echo "Installing what the tests need ..."
	$(PIP) -r requirements-dev.txt
	@touch $@

$(VENV)/.chromium: $(VENV)/.dev
	@PLAYWRIGHT="$(BIN)/python -m playwright" sh tests/browser/install_chromium.sh
	@touch $@
