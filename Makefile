# `make run` and `make test` need Python >= 3.11 and nothing else; the environment is made in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
SAMPLE := build/sample.pcap
PCAP ?= $(SAMPLE)
LOG_DIR ?= build/triage
MODEL ?=
DATA ?= $(or $(FLOWVANE_CORPUS),../shared/data)

.PHONY: run test lint format bench fuzz flood docs results clean

# A capture of one's own is no target: a missing one is flowvane's to name.
run: $(VENV)/.runtime $(if $(filter $(SAMPLE),$(PCAP)),$(SAMPLE))
	@mkdir -p $(LOG_DIR) && rm -f $(LOG_DIR)/eve.json
	$(BIN)/flowvane triage -r $(PCAP) -l $(LOG_DIR) $(if $(MODEL),--model $(MODEL))
	@if [ -s $(LOG_DIR)/eve.json ]; then \
	  echo "The first alert in $(LOG_DIR)/eve.json:"; \
	  head -n 1 $(LOG_DIR)/eve.json | $(BIN)/python -m json.tool --no-ensure-ascii; fi

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 $(ARGS)
	$(MAKE) --no-print-directory lint

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev
	$(BIN)/python -m benchmarks.agreement
	$(BIN)/flowvane schemas -o docs/features.md
	$(BIN)/flowvane config docs -o docs/configuration.md
	$(BIN)/flowvane config schema -o systemd/flowvane.schema.json
	$(BIN)/flowvane config dump -o systemd/flowvane.yaml
	$(BIN)/python -m sensor.manpage docs/man
	$(BIN)/python -m sensor.completion docs/completion

# Hours; goes on where it was interrupted. ARGS="--minutes 60" writes what there is after an hour.
results: $(VENV)/.dev
	$(BIN)/python -m benchmarks.results $(DATA) $(ARGS)

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.speed $(ARGS)

fuzz: $(VENV)/.dev
	$(BIN)/python -m benchmarks.fuzz $(ARGS)

flood: $(VENV)/.dev
	$(BIN)/python -m benchmarks.flood $(ARGS)

$(SAMPLE): examples/sample_capture.py examples/traffic.py | $(VENV)/.runtime
	@mkdir -p $(@D)
	$(BIN)/python -m examples.sample_capture -o $@

# Stale when pyproject.toml changed: the stamps are older than it then.
$(VENV)/.runtime: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "flowvane needs Python 3.11 or newer; this is $$($(PYTHON) -V). Try: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing flowvane into $(VENV)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.runtime
	@echo "installing the development tools into $(VENV)"
	@$(PIP) --editable '.[dev]'
	@touch $@

clean:
	rm -rf build dist .venv *.egg-info
