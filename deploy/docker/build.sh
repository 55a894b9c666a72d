#!/usr/bin/env bash
# Builds both images from this checkout: localhost/flopmeter-agent and localhost/flopmeter-collector.
#
#   deploy/docker/build.sh [--base IMAGE] [--tag TAG] [agent|collector …]
#
# Wheels are fetched here, by the hashes of requirements/*.lock, with the Python of .venv (make demo makes
# it): its minor version must be that of the base. Then the build runs offline. Uses buildah, podman or
# docker, whichever is there, or what BUILDER says ("buildah --root DIR"); BUILD_ARGS adds arguments.
set -euo pipefail
cd "$(dirname "$0")/../.."
base= tag=dev images=()
while [ $# -gt 0 ]; do
  case $1 in
    --base) base=$2; shift 2 ;;
    --tag) tag=$2; shift 2 ;;
    agent|collector) images+=("$1"); shift ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
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
  cp requirements/"$image".lock "$context/requirements.lock"
  $python -m pip -qq download --require-hashes --only-binary :all: -d "$context/wheels" -r requirements/"$image".lock
  cp "$work"/own/*.whl "$context/wheels/"
  # shellcheck disable=SC2086  # both are lists of words
  $builder build ${BUILD_ARGS:-} ${base:+--build-arg "BASE=$base"} \
    -t "localhost/flopmeter-$image:$tag" -f "deploy/docker/$image.Dockerfile" "$context" >&2
  echo "localhost/flopmeter-$image:$tag"
done
