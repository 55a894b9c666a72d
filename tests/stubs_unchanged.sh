#!/usr/bin/env bash
# The checked-in stubs are what the pinned generator makes of the .proto files today.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp -d); trap 'rm -rf "$out"' EXIT
.venv/bin/python -m grpc_tools.protoc --plugin=protoc-gen-mypy=.venv/bin/protoc-gen-mypy -I protos --python_out="$out" --mypy_out="$out" protos/flopmeter/wire/*/*.proto
made=$(cd "$out" && find . -name '*_pb2*' | sort)
for f in $made; do
  cmp -s "$out/$f" "protos/$f" || { echo "stub differs: $f; run make proto and commit" >&2; exit 1; }
done
[ "$(cd protos && find . -name '*_pb2*' -not -path '*/__pycache__/*' | sort)" = "$made" ] || { echo "stubs left over from a deleted .proto" >&2; exit 1; }
echo "stubs unchanged"
