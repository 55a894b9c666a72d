#!/usr/bin/env bash
# Hash-locked requirement files without index addresses; plain pip installs them.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$(command -v .venv/bin/uv || command -v uv) || { echo "expected uv in .venv or on the PATH: pip install uv" >&2; exit 3; }
compile() { "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate "$@"; }
compile pyproject.toml --extra agent -o requirements/agent.lock
compile pyproject.toml --extra collector -o requirements/collector.lock
compile pyproject.toml --extra agent --extra collector --group dev --group bench -o requirements/bench.lock
compile pyproject.toml --extra agent --extra collector --group dev -c requirements/bench.lock -o requirements/dev.lock
compile pyproject.toml --extra agent --extra collector -c requirements/bench.lock -o requirements/run.lock
printf 'hatchling\neditables\n' | compile - -c requirements/bench.lock -o requirements/build.lock
