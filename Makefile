# Each target sets up what it needs. Debian 12: apt-get install -y python3-venv ca-certificates make git
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo test lint bench proto lock clean test-lowest
help: ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

# Two levels of set-up in one environment: `run` (what is deployed) and `dev` (everything). Stamped by
# the content of the lock files and pyproject.toml, so that an upgrade of either installs again.
$(BIN)/python:
	@$(PYTHON) -m venv $(VENV) || { echo "cannot make a virtual environment: install python3-venv (Debian: apt-get install -y python3-venv)" >&2; rm -rf $(VENV); exit 3; }

$(VENV)/.run: requirements/run.lock pyproject.toml | $(BIN)/python
	@echo "setting up .venv (about 20 s, once)" >&2
	@$(PIP) install --require-hashes -r requirements/build.lock
	@$(PIP) install --require-hashes -r requirements/run.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.lock $(VENV)/.run
	@echo "setting up the development tools (about 40 s, once)" >&2
	@$(PIP) install --require-hashes -r requirements/dev.lock
	@touch $@

demo: $(VENV)/.run ## a whole metered cluster on this machine, no GPU needed; ARGS=--once for one pass
	@$(BIN)/flopmeter demo $(ARGS)

test: $(VENV)/.dev ## every test that needs no GPU
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

lint: $(VENV)/.dev ## ruff, mypy strict, import walls, generated stubs unchanged
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	tests/stubs_unchanged.sh

bench: $(VENV)/.dev ## ratios of our speed to peers and floors, measured side by side
	@$(PIP) install --require-hashes -r requirements/bench.lock
	$(BIN)/python tests/bench/run.py $(ARGS)

proto: $(VENV)/.dev ## generate protos/flopmeter/wire/v1/*_pb2* again
	$(BIN)/python -m grpc_tools.protoc -I protos --python_out=protos --mypy_out=protos protos/flopmeter/wire/v1/*.proto

lock: $(VENV)/.dev ## resolve the lock files again (needs uv on the PATH or in .venv)
	requirements/lock.sh

clean: ## remove everything that was generated here
	rm -rf $(VENV) out dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
