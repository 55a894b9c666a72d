#!/usr/bin/env bash
# The newcomer: a bare Debian 12, the README's one apt line, `make demo`, `make test`, as a plain user.
#
#   tests/newcomer/run.sh [SHARED]     SHARED: folder of recorded data beside the checkout (default ../shared)
#
# Nothing is kept from one run to the next. Needs root, mmdebstrap and the right to mount; says so and
# fails where it has not. From this machine the new one gets only what its package clients need to reach
# the outside: apt sources, pip settings with the local folders that they name, proxies, certificates, DNS.
#
# CI is handed on where it is set: hypothesis then draws what it draws in the other stages.
# NEWCOMER_PYTEST="…" hands arguments to the newcomer's pytest; .ci/run hands none: all of `make test`.
set -euo pipefail
repo=$(cd "$(dirname "$0")/../.." && pwd)
shared=$(realpath "${1:-$repo/../shared}")
fail() { echo "newcomer: $*" >&2; exit 1; }
say() { echo "newcomer: $*" >&2; }

[ "$(id -u)" = 0 ] || fail "expected root (to make a Debian root and mount in it), got uid $(id -u)"
command -v mmdebstrap >/dev/null || fail "expected mmdebstrap; apt-get install -y mmdebstrap"
unshare --mount --propagation private mount -t tmpfs none /mnt || fail "expected the right to mount; got none here"
[ -d "$shared" ] || fail "expected recorded data in $shared; name its folder as the first argument"

work=$(mktemp -d "${TMPDIR:-/tmp}/newcomer.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root
began=$SECONDS

# 1. A bare root from the sources that this machine's apt uses, with its proxy and check settings.
apt-config dump | grep -E '^Acquire::(https?::|ftp::|Check-|Retries)' >"$work/apt.conf" || true
find /etc/apt -name '*.list' -o -name '*.sources' | grep -E '/sources.list(\.d/[^/]+)?$' >"$work/sources" || true
[ -s "$work/sources" ] || fail "expected apt sources in /etc/apt, got none"
mapfile -t sources <"$work/sources"
mmdebstrap --quiet --variant=minbase --aptopt="$work/apt.conf" bookworm "$root" "${sources[@]}" \
  || fail "mmdebstrap could not make a Debian root"
say "bare Debian $(cat "$root/etc/debian_version") in $((SECONDS - began)) s"
for tool in python3 make git; do [ ! -e "$root/usr/bin/$tool" ] || fail "expected a bare root, got $tool in it"; done

# 2. What package clients need to reach the outside, and nothing else of ours.
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf; do [ ! -e "$file" ] || install -m 644 "$file" "$root$file"; done
mkdir -p "$root/usr/local/share/ca-certificates"
cp -L /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/" 2>/dev/null || true
chroot "$root" useradd --create-home --shell /bin/bash newcomer
for file in "${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf" "$HOME/.pip/pip.conf"; do
  [ -e "$file" ] || continue
  mkdir -p "$root/home/newcomer/.config/pip"
  cat "$file" >>"$root/home/newcomer/.config/pip/pip.conf"
done
env | grep -iE '^(PIP_[A-Z_]+|https?_proxy|no_proxy|all_proxy|SSL_CERT_FILE|SSL_CERT_DIR)=' >"$work/env" || true
# Folders that pip's settings name appear at the same place, read-only: a wheel folder itself, of an index
# on disk (a file: address) the folder above it, for its pages link to files beside them.
{ cat "$root/etc/pip.conf" "$root/home/newcomer/.config/pip/pip.conf" 2>/dev/null || true; grep '^PIP_' "$work/env" || true; } |
  grep -oE '(file://)?/[A-Za-z0-9._/-]+' | sed -E 's,^file://(.*[^/])/*$,\1/..,' | while read -r folder; do
  if [ -d "$folder" ] && [ "$(realpath "$folder")" != / ]; then realpath "$folder"; fi
done | sort -u >"$work/folders"

# 3. A clean clone, and the data beside it.
home=$root/home/newcomer
git -c safe.directory='*' clone --quiet --no-hardlinks "file://$repo" "$home/flopmeter" 2>/dev/null \
  || git -c safe.directory='*' clone --quiet --no-hardlinks "$repo" "$home/flopmeter"
mkdir "$home/shared"
chroot "$root" chown -R newcomer: /home/newcomer

# 4. The README's line, taken from the README, so that the two cannot part.
apt_line=$(grep -m1 -oE 'apt-get install -y [a-z0-9 .+-]+' "$repo/README.md") || fail "expected the apt line in README.md, found none"
cat >"$root/as-root.sh" <<EOS
set -e
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
apt-get -qq update
$apt_line -qq >/dev/null
EOS
cat >"$root/as-newcomer.sh" <<'EOS'
set -e
cd ~/flopmeter
clock() { echo "newcomer: $1 in $((SECONDS - since)) s" >&2; since=$SECONDS; }
since=$SECONDS
make demo ARGS="--once --json" >/var/tmp/demo.json
clock "make demo ARGS=\"--once --json\", set-up included,"
python3 tests/newcomer/check_demo.py /var/tmp/demo.json
python3 tests/newcomer/check_page.py .venv/bin/flopmeter
clock "the demo's page"
make test ARGS="$NEWCOMER_PYTEST" 2>&1 | tee /var/tmp/test.log
[ "${PIPESTATUS[0]}" = 0 ]
clock "make test"
[ -z "$(git status --porcelain)" ] || { echo "newcomer: the checkout is not clean afterwards:" >&2; git status --short >&2; exit 1; }
EOS

# 5. Its own mounts and processes; the network is this machine's, for the package clients.
cat >"$work/enter.sh" <<'EOS'
set -euo pipefail
work=$1 root=$2 shared=$3
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
  IFS=: read -r name major minor <<<"$node"; mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
bind() { mkdir -p "$2"; mount --rbind "$1" "$2"; mount -o remount,bind,ro "$2"; }
bind "$shared" "$root/home/newcomer/shared"
while read -r folder; do bind "$folder" "$root$folder"; done <"$work/folders"
mapfile -t settings <"$work/env"
env -i "${settings[@]}" PATH="$PATH" chroot "$root" bash /as-root.sh
exec env -i "${settings[@]}" HOME=/home/newcomer USER=newcomer LOGNAME=newcomer LANG=C.UTF-8 TERM=dumb SHELL=/bin/bash \
  PATH=/usr/local/bin:/usr/bin:/bin NEWCOMER_PYTEST="$NEWCOMER_PYTEST" ${CI:+"CI=$CI"} \
  "$(command -v chroot)" --userspec=newcomer:newcomer "$root" bash /as-newcomer.sh
EOS
export NEWCOMER_PYTEST=${NEWCOMER_PYTEST:-}
unshare --mount --pid --ipc --uts --fork --kill-child --propagation private bash "$work/enter.sh" "$work" "$root" "$shared" \
  || fail "did not get through (see above)"
grep -qE '[0-9]+ passed' "$root/var/tmp/test.log" || fail "expected a count of passed tests, got: $(tail -1 "$root/var/tmp/test.log")"
say "through in $((SECONDS - began)) s: demo, and $(grep -oE '[0-9]+ passed.*' "$root/var/tmp/test.log" | tail -1 | tr -d '=')"
