#!/bin/sh
# Slurm's Prolog: writes down which job each GPU of this node was given to, by UUID, for `flopmeter agent run`
# (--slurm-job-mapping-dir) and for dcgm-exporter (DCGM_HPC_JOB_MAPPING_DIR). docs/slurm.md says how to install it.
#
#   $MAPPING_DIR/GPU-<uuid>, MIG-<uuid>   a job id a line: who has it now
#   $MAPPING_DIR/<index>                  the same by NVML's index, as dcgm-exporter reads it
#   $MAPPING_DIR/.flopmeter/<job id>      what else slurmd says of the job: user, account, restart count, …
#
# A prolog that fails drains its node: this one ends in 0 whatever happens, and says what went wrong to syslog. It waits
# for nothing longer than 0.5 s. Slurm gives a prolog no PATH, and nothing of the job's own environment.

PATH=/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 022
trap 'exit 0' TERM INT HUP PIPE

# What a site may say otherwise: in /etc/flopmeter/slurm-prolog.conf, or the file named as first argument.
MAPPING_DIR=/run/flopmeter/job-mapping
GPUS=            # UUIDs in the order of gres.conf, where the two lines below cannot tell it
GPU_ORDER=       # pci (AutoDetect=nvml) or minor (File=/dev/nvidia[0-7]); "" = only where both are the same
SHARED=          # yes: one GPU may have several jobs; "" = as slurm.conf says (shard, mps, suspension)
INDEX_FILES=yes  # no: by UUID only
DRIVER=/proc/driver/nvidia
LOCK_WAIT=0.5 # s; then it goes on without: on a GPU that is not shared nothing can be lost

say() {
    echo "flopmeter-prolog: job ${SLURM_JOB_ID:-?}: $1" >&2
    logger -t flopmeter-prolog -p daemon.warning -- "job ${SLURM_JOB_ID:-?}: $1" 2>/dev/null
    return 0
}

# What comes in becomes file $2 of directory $1, whole or not at all.
put() {
    if { cat >"$1/.$2.$$"; } 2>/dev/null && mv -fT "$1/.$2.$$" "$1/$2" 2>/dev/null; then
        return 0
    fi
    rm -f "$1/.$2.$$" 2>/dev/null
    say "cannot write $1/$2"
    return 1
}

is_uuid() {
    case $1 in
        *[!0-9A-Za-z-]*) return 1 ;;
        GPU-?* | MIG-?*) return 0 ;;
        *) return 1 ;;
    esac
}

# "PCI-address minor UUID" of each GPU that the driver has, in the order of the addresses, which is NVML's.
on_the_bus() {
    set -- "$DRIVER"/gpus/*/information
    [ -r "$1" ] || return 1
    awk '
        function out() { if (pci != "" && excluded != "Yes") print pci, minor, uuid }
        FNR == 1 { out(); n = split(FILENAME, part, "/"); pci = part[n - 1]; minor = uuid = excluded = "?" }
        /^GPU UUID:/ { uuid = $3 }
        /^Device Minor:/ { minor = $3 }
        /^GPU Excluded:/ { excluded = $3 }
        END { out() }
    ' "$@" 2>/dev/null
}

# The same, where the driver does not know a UUID as nobody has used the GPU yet: nvidia-smi does.
with_uuids() {
    case $1 in
        *'?'*) ;;
        *) printf '%s\n' "$1" && return 0 ;;
    esac
    asked=$(timeout -k 0.1 0.4 nvidia-smi --query-gpu=pci.bus_id,uuid --format=csv,noheader 2>/dev/null) || return 1
    printf '%s\n' "$asked" | tr -d ',' | awk -v bus="$1" '
        { known[tolower(substr($1, length($1) - 11))] = $2 }
        END {
            n = split(bus, line, "\n")
            for (i = 1; i <= n; i++) {
                split(line[i], field, " ")
                uuid = known[tolower(substr(field[1], length(field[1]) - 11))]
                print field[1], field[2], (uuid == "" ? "?" : uuid)
            }
        }
    '
}

# The UUIDs in the order in which Slurm counts GPUs: that of gres.conf.
in_gres_order() {
    if [ -n "$GPUS" ]; then
        # shellcheck disable=SC2086 # a list of words
        printf '%s\n' $GPUS
        return 0
    fi
    for instance in "$DRIVER"/capabilities/gpu*/mig/gi*; do
        if [ -e "$instance" ]; then
            say "GPUs are cut by MIG, and slurmd names no UUIDs: set AutoDetect=nvml in gres.conf, or GPUS in $CONF"
            return 1
        fi
    done
    by_minor=$(printf '%s\n' "$BUS" | sort -n -k 2,2)
    case $GPU_ORDER in
        pci) ordered=$BUS ;;
        minor) ordered=$by_minor ;;
        *)
            if [ "$BUS" != "$by_minor" ]; then
                say "/dev/nvidia* are counted otherwise than on the bus: set GPU_ORDER or GPUS in $CONF"
                return 1
            fi
            ordered=$BUS
            ;;
    esac
    printf '%s\n' "$ordered" | awk '{ print $3 }'
}

# The UUIDs of this job's GPUs.
of_this_job() {
    # Not by CUDA_VISIBLE_DEVICES as a list of numbers: those are CUDA's. But where slurmd itself knows UUIDs (MIG by
    # AutoDetect=nvml, or asked to in gres.conf), it writes them there; nothing of the user's reaches a prolog.
    if [ -n "$CUDA_VISIBLE_DEVICES" ]; then
        all=yes
        for each in $(printf '%s' "$CUDA_VISIBLE_DEVICES" | tr ',' ' '); do
            is_uuid "$each" || all=no
        done
        if [ "$all" = yes ]; then
            printf '%s\n' "$CUDA_VISIBLE_DEVICES" | tr ',' '\n'
            return 0
        fi
    fi
    case $SLURM_JOB_GPUS in
        '') return 0 ;;
        *[!0-9,]*) say "SLURM_JOB_GPUS: expected numbers, got '$SLURM_JOB_GPUS'" && return 0 ;;
    esac
    table=$(in_gres_order) || return 0
    for index in $(printf '%s' "$SLURM_JOB_GPUS" | tr ',' ' '); do
        uuid=$(printf '%s\n' "$table" | sed -n "$((index + 1))p")
        if is_uuid "$uuid"; then
            printf '%s\n' "$uuid"
        else
            say "GPU $index of Slurm's: its UUID is not known"
        fi
    done
}

several_jobs_a_gpu() {
    case $SHARED in
        yes) return 0 ;;
        no) return 1 ;;
    esac
    grep -Eiq '^[[:space:]]*(GresTypes[[:space:]]*=.*(shard|mps)|PreemptMode[[:space:]]*=.*(suspend|gang))' \
        "${SLURM_CONF:-/etc/slurm/slurm.conf}" 2>/dev/null
}

# This job holds the GPU named $1; on one that is not shared nobody else does, whatever was left behind.
hold() {
    if [ -f "$MAPPING_DIR/$1" ] && several_jobs_a_gpu; then
        { grep -vx "$SLURM_JOB_ID" "$MAPPING_DIR/$1"; echo "$SLURM_JOB_ID"; } | put "$MAPPING_DIR" "$1"
    else
        echo "$SLURM_JOB_ID" | put "$MAPPING_DIR" "$1"
    fi
}

fact() {
    case $2 in
        '' | *[[:cntrl:]]*) ;;
        *) printf '%s=%.256s\n' "$1" "$2" ;;
    esac
}

facts() {
    echo flopmeter-slurm-job/1
    fact job "$SLURM_JOB_ID"
    fact restart "$SLURM_JOB_RESTART_COUNT"
    fact user "$SLURM_JOB_USER"
    fact account "$SLURM_JOB_ACCOUNT"
    fact partition "$SLURM_JOB_PARTITION"
    fact cluster "$SLURM_CLUSTER_NAME"
    fact het_job "$SLURM_HET_JOB_ID"
    fact sluid "$SLURM_JOB_SLUID"
    # Not in the environment of a prolog up to 26.05; written where a later Slurm, or a site's wrapper, gives them.
    fact name "$SLURM_JOB_NAME"
    fact array_job "$SLURM_ARRAY_JOB_ID"
    fact array_task "$SLURM_ARRAY_TASK_ID"
    fact het_offset "$SLURM_HET_JOB_OFFSET"
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
    [ -n "$SLURM_JOB_GPUS$CUDA_VISIBLE_DEVICES" ] || return # a job without GPUs
    mkdir -p "$MAPPING_DIR/.flopmeter" 2>/dev/null
    if ! { true >>"$MAPPING_DIR/.lock"; } 2>/dev/null; then
        say "cannot write to $MAPPING_DIR"
        return
    fi
    BUS=$(on_the_bus) && BUS=$(with_uuids "$BUS")
    uuids=$(of_this_job)
    facts | put "$MAPPING_DIR/.flopmeter" "$SLURM_JOB_ID"
    {
        flock -w "$LOCK_WAIT" 9 2>/dev/null
        for uuid in $uuids; do
            hold "$uuid"
            index=$(printf '%s\n' "$BUS" | awk -v uuid="$uuid" '$3 == uuid { print NR - 1 }')
            if [ "$INDEX_FILES" = yes ] && [ -n "$index" ]; then
                hold "$index"
            fi
        done
    } 9>>"$MAPPING_DIR/.lock"
}

(main "$@")
exit 0
