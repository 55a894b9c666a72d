#!/usr/bin/env bash
# The checked-in stubs are what the pinned generator makes of the .proto files today.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp -d); trap 'rm -rf "$out"' EXIT
.venv/bin/python -m grpc_tools.protoc --plugin=protoc-gen-mypy=.venv/bin/protoc-gen-mypy -I protos --python_out="$out" --mypy_out="$out" protos/flopmeter/wire/v1/*.proto
for f in "$out"/flopmeter/wire/v1/*; do
  cmp -s "$f" "protos/flopmeter/wire/v1/$(basename "$f")" || { echo "stub differs: $(basename "$f"); run make proto and commit" >&2; exit 1; }
done
[ "$(ls protos/flopmeter/wire/v1 | grep -c _pb2)" = "$(ls "$out"/flopmeter/wire/v1 | grep -c _pb2)" ] || { echo "stubs left over from a deleted .proto" >&2; exit 1; }
echo "stubs unchanged"
