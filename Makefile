# Each target sets up what it needs. Debian 12: apt-get install -y python3-venv ca-certificates make git
PYTHON ?= python3
ARGS   ?=
VENV   := .venv
LOWEST := .venv-lowest
PEERS  := .venv-peers
BIN    := $(VENV)/bin
PIP    := -m pip --disable-pip-version-check -qq
LOCKED := $(PIP) install --require-hashes -r

.PHONY: help demo test test-lowest peers lint bench validate-gpu proto lock images clean
help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

%/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "expected Python 3.11 or newer, got $$($(PYTHON) -V 2>&1); try make PYTHON=python3.12" >&2; exit 3; }
	@$(PYTHON) -m venv $* || { rm -rf $*; \
	  echo "cannot make a virtual environment; Debian: apt-get install -y python3-venv" >&2; exit 3; }

# Two levels of set-up in one environment: `run` (what is deployed) and `dev` (everything). A stamp each:
# once its lock file or pyproject.toml is newer, the level is installed again.
$(VENV)/.run: requirements/run.lock requirements/build.lock pyproject.toml | $(BIN)/python
	@echo "setting up .venv (about 20 s, once)" >&2
	@$(BIN)/python $(LOCKED) requirements/build.lock
	@$(BIN)/python $(LOCKED) requirements/run.lock
	@$(BIN)/python $(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.lock $(VENV)/.run
	@echo "setting up the development tools (about 40 s, once)" >&2
	@$(BIN)/python $(LOCKED) requirements/dev.lock
	@touch $@

$(VENV)/.bench: requirements/bench.lock $(VENV)/.dev
	@echo "setting up the peers that the benchmark measures (once)" >&2
	@$(BIN)/python $(LOCKED) requirements/bench.lock
	@touch $@

$(LOWEST)/.run: requirements/lowest.lock requirements/build.lock pyproject.toml | $(LOWEST)/bin/python
	@echo "setting up .venv-lowest (about 30 s, once)" >&2
	@$(LOWEST)/bin/python $(LOCKED) requirements/build.lock
	@$(LOWEST)/bin/python $(LOCKED) requirements/lowest.lock
	@$(LOWEST)/bin/python $(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(PEERS)/.run: requirements/peers.lock | $(PEERS)/bin/python
	@echo "setting up .venv-peers (about 30 s, once)" >&2
	@$(PEERS)/bin/python $(LOCKED) requirements/peers.lock
	@touch $@

demo: $(VENV)/.run ## a whole metered cluster on this machine, no GPU needed; ARGS=--once for one pass
	@$(BIN)/flopmeter demo $(ARGS)

test: $(VENV)/.dev ## every test that needs no GPU
	@$(BIN)/python -m pytest -n 3 --dist loadfile $(ARGS)

# Tests wait for processes more than they work: three at once on two cores. Left out of the lowest: rooms that use no
# dependency but click (and the store and the records, by what the rooms that stay do with them), and what needs a peer.
NO_DEPENDENCY := $(addprefix tests/collector/,forecast filing estimate) \
  $(filter-out %/test_signing.py,$(wildcard tests/collector/law/test_*.py))
test-lowest: $(LOWEST)/.run ## the unit tests on the lowest versions that pyproject.toml admits
	@$(LOWEST)/bin/python -m pytest -q -n 3 --dist loadfile tests/contract tests/evidence tests/agent tests/collector tests/store \
	  $(NO_DEPENDENCY:%=--ignore=%) --ignore=tests/collector/api/test_schemathesis.py $(ARGS)

peers: $(PEERS)/.run ## programs of others that some tests run against; without them those tests are skipped

lint: $(VENV)/.dev ## ruff, mypy strict, import walls, generated stubs unchanged
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	tests/stubs_unchanged.sh

bench: $(VENV)/.bench ## ratios of our speed to peers and floors, measured side by side
	@$(BIN)/python tests/bench/run.py $(ARGS)

validate-gpu: ## the figures against known work on a real GPU; resumable (needs a GPU, PyTorch, nvidia-ml-py)
	$(PYTHON) tests/gpu/validate.py run --out out/gpu $(ARGS)

proto: $(VENV)/.dev ## generate protos/flopmeter/wire/*/*_pb2* again
	$(BIN)/python -m grpc_tools.protoc --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy -I protos --python_out=protos --mypy_out=protos protos/flopmeter/wire/*/*.proto

lock: $(VENV)/.dev ## resolve the lock files again (needs uv on the PATH or in .venv)
	requirements/lock.sh

images: $(VENV)/.run ## both container images, by podman, buildah or docker; ARGS="--base IMAGE" for another base
	deploy/docker/build.sh $(ARGS)

clean: ## remove everything that was generated here
	rm -rf $(VENV) $(LOWEST) $(PEERS) out dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
