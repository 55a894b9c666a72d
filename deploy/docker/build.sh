#!/usr/bin/env bash
# Builds both images from this checkout: localhost/flopmeter-agent and localhost/flopmeter-collector.
#
#   deploy/docker/build.sh [--base IMAGE] [--tag TAG] [--with EXTRA …] [agent|collector …]
#
# Beside what each needs, the collector's has the extras otlp and timestamps, which its settings may ask for.
# The agent's, which runs on every node, has none: --with otlp. Exports as Parquet: --with parquet collector.
#
# Wheels are fetched here, by the hashes of requirements/*.lock, with the Python of .venv (make demo makes
# it): its minor version must be that of the base. Then the build runs offline. Uses buildah, podman or
# docker, whichever is there, or what BUILDER says ("buildah --root DIR"); BUILD_ARGS adds arguments.
set -euo pipefail
cd "$(dirname "$0")/../.."
base= tag=dev images=() extras=()
while [ $# -gt 0 ]; do
  case $1 in
    --base) base=$2; shift 2 ;;
    --tag) tag=$2; shift 2 ;;
    --with)
      case ${2-} in
        otlp|parquet|timestamps) extras+=("$2"); shift 2 ;;
        *) echo "--with: expected otlp, parquet or timestamps, got ${2-nothing}" >&2; exit 2 ;;
      esac ;;
    agent|collector) images+=("$1"); shift ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
[ ${#images[@]} -gt 0 ] || images=(agent collector)
python=.venv/bin/python
[ -x $python ] || { echo "expected .venv; make demo ARGS=--help makes it" >&2; exit 3; }
builder=${BUILDER:-$(command -v buildah || command -v podman || command -v docker)} \
  || { echo "expected buildah, podman or docker" >&2; exit 3; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT

$python -m pip -qq wheel --no-deps --no-build-isolation -w "$work/own" .
for image in "${images[@]}"; do
  context=$work/$image
  mkdir "$context"
  parts=("$image" "${extras[@]}")
  [ "$image" = agent ] || parts+=(otlp timestamps)
  printf 'requirements/%s.lock\n' "${parts[@]}" | sort -u | xargs cat >"$context/requirements.lock"
  $python -m pip -qq download --require-hashes --only-binary :all: -d "$context/wheels" -r "$context/requirements.lock"
  cp "$work"/own/*.whl "$context/wheels/"
  # shellcheck disable=SC2086  # both are lists of words
  $builder build ${BUILD_ARGS:-} ${base:+--build-arg "BASE=$base"} \
    -t "localhost/flopmeter-$image:$tag" -f "deploy/docker/$image.Dockerfile" "$context" >&2
  echo "localhost/flopmeter-$image:$tag"
done
