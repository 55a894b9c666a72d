#!/bin/sh
# Slurm's Epilog to prolog.sh: the job has its GPUs no longer. docs/slurm.md says how to install it.
#
# An epilog that fails drains its node: this one ends in 0 whatever happens, and says what went wrong to syslog. It
# looks for the job's id, not its restart count, which Slurm has raised by now if the job is requeued.

PATH=/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 022
trap 'exit 0' TERM INT HUP PIPE

MAPPING_DIR=/run/flopmeter/job-mapping
LOCK_WAIT=0.5

say() {
    echo "flopmeter-epilog: job ${SLURM_JOB_ID:-?}: $1" >&2
    logger -t flopmeter-epilog -p daemon.warning -- "job ${SLURM_JOB_ID:-?}: $1" 2>/dev/null
    return 0
}

# The job is taken out of file $1; the file goes with its last job.
let_go() {
    if grep -qvx "$SLURM_JOB_ID" "$1"; then
        tmp=$MAPPING_DIR/.${1##*/}.$$
        { grep -vx "$SLURM_JOB_ID" "$1" >"$tmp" && mv -fT "$tmp" "$1"; } 2>/dev/null && return
        rm -f "$tmp" 2>/dev/null
    elif rm -f "$1" 2>/dev/null; then
        return
    fi
    say "cannot change $1"
}

main() {
    CONF=${1:-/etc/flopmeter/slurm-prolog.conf}
    if [ -e "$CONF" ]; then
        sh -n "$CONF" 2>/dev/null || { say "$CONF: cannot be read, or is no shell: nothing is done"; return; }
        # shellcheck source=/dev/null
        . "$CONF"
    fi
    case $SLURM_JOB_ID in
        '' | *[!0-9]*) say "SLURM_JOB_ID: expected a number, got '$SLURM_JOB_ID'" && return ;;
    esac
    [ -d "$MAPPING_DIR" ] || return
    if ! { true >>"$MAPPING_DIR/.lock"; } 2>/dev/null; then
        say "cannot write to $MAPPING_DIR"
        return
    fi
    {
        flock -w "$LOCK_WAIT" 9 2>/dev/null
        for file in "$MAPPING_DIR"/GPU-* "$MAPPING_DIR"/MIG-* "$MAPPING_DIR"/[0-9]*; do
            if [ -f "$file" ] && grep -qx "$SLURM_JOB_ID" "$file"; then
                let_go "$file"
            fi
        done
        rm -f "$MAPPING_DIR/.flopmeter/$SLURM_JOB_ID" 2>/dev/null
    } 9>>"$MAPPING_DIR/.lock"
}

(main "$@")
exit 0
