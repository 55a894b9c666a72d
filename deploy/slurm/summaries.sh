#!/bin/sh
# What each job computed, in one line, for Slurm's accounting: sacct -o jobid,admincomment. docs/slurm.md says how.
#
# Nothing of it is in any job's way: a timer starts it where the collector's store can be read, as a user whom slurmdbd
# takes for an operator, and a job that it cannot say anything of stays as it is. Run again it changes only what has
# changed since. What somebody else wrote into the field is never written over.

PATH=/opt/flopmeter/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL

CLUSTER=      # the agents' --cluster; must be set where the store has several
RECENT=2d     # jobs that were seen within; late records change a line for as long
FIELD=AdminComment  # or SystemComment, Comment: beside jobstats, which keeps its own in AdminComment
RUNNING=no    # yes: jobs that run have the line, too (scontrol; the only way without slurmdbd)
ENDED=yes     # no: no slurmdbd
SUMMARIES=    # another way to the lines, for instance: ssh collector flopmeter runs summary --recent 2d
PATIENCE=60   # seconds for any one command

CONF=${1:-/etc/flopmeter/slurm-summaries.conf}
if [ -e "$CONF" ]; then
    sh -n "$CONF" || exit 2
    # shellcheck source=/dev/null
    . "$CONF"
fi
TAB=$(printf '\t')
field=$(printf '%s' "$FIELD" | tr '[:upper:]' '[:lower:]')
case $field in
admincomment | systemcomment | comment) ;;
*)
    echo "FIELD: expected AdminComment, SystemComment or Comment, got '$FIELD'" >&2
    exit 2
    ;;
esac
failed=0
said() {
    echo "flopmeter-summaries: $1" >&2
    failed=1
}

# id, state, line: one a job. Nothing passes that is not what `flopmeter runs summary` writes.
lines() {
    if [ -n "$SUMMARIES" ]; then
        timeout "$PATIENCE" sh -c "$SUMMARIES"
    else
        timeout "$PATIENCE" flopmeter runs summary --recent "$RECENT" ${CLUSTER:+--cluster "$CLUSTER"}
    fi
}

# Of what Slurm says (number|name|begun|comment) and our lines: the jobs that are to be written, as name and line. A task
# of an array or a component of a het job is called by its own name (2_0, 4+1): the number of one of them is the whole's.
wanted() { # $1: our states
    awk -F "$TAB" -v states=" $1 " '
        NR == FNR {
            if (index(states, " " $2 " ") && $1 ~ /^[0-9]+$/ && $3 ~ /^flopmeter\/[0-9]+ [A-Za-z0-9 ._:\/@+~=,%-]+$/) line[$1] = $3
            next
        }
        {
            split($0, of, "|")
            comment = substr($0, length(of[1]) + length(of[2]) + 3)
            if (!(of[1] in line) || of[2] !~ /^[0-9]+([_+][0-9]+)?$/) next
            if (tolower(comment) == tolower(line[of[1]])) next  # sacctmgr writes small letters
            if (comment != "" && comment != "(null)" && comment !~ /^flopmeter\/[0-9]+ /) { others++; next }
            print of[2] "\t" line[of[1]]
        }
        END { if (others) print others " jobs have another comment in that field: left alone" > "/dev/stderr" }
    ' "$work/lines" "$2"
}

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' TERM INT HUP PIPE
if ! lines >"$work/lines"; then
    said "cannot have the lines: nothing is written"
    exit 1
fi

if [ "$ENDED" = yes ]; then
    seconds=$(printf '%s' "$RECENT" | sed -n 's/^\([0-9]*\)m$/\1*60/p; s/^\([0-9]*\)h$/\1*3600/p; s/^\([0-9]*\)d$/\1*86400/p')
    since=$(date -d "@$(($(date +%s) - (${seconds:-172800})))" +%Y-%m-%dT%H:%M:%S)
    # A job that runs gets its comment from slurmctld when it ends, over whatever the database had: ended ones only.
    if timeout "$PATIENCE" sacct -n -X -P -a -S "$since" -E now \
        -o "jobidraw,jobid,state,end,$field" >"$work/sacct"; then
        awk -F '|' '$4 != "Unknown" && $3 !~ /^(RUNNING|PENDING|SUSPENDED|REQUEUED|RESIZING)/ {
            rest = substr($0, length($1 $2 $3 $4) + 5); print $1 "|" $2 "|" rest }' "$work/sacct" >"$work/ended"
        wanted "complete late" "$work/ended" >"$work/write"
        while IFS=$TAB read -r job line; do
            timeout "$PATIENCE" sacctmgr -i -Q modify job where jobid="$job" set "$FIELD=$line" </dev/null >"$work/out" 2>&1 ||
                said "job $job: sacctmgr: $(tr '\n' ' ' <"$work/out")"
        done <"$work/write"
    else
        said "sacct gave no answer: is there a slurmdbd? Without one set ENDED=no RUNNING=yes"
    fi
fi

if [ "$RUNNING" = yes ]; then
    if timeout "$PATIENCE" squeue -h -r -t RUNNING -O 'JobID:|,ArrayJobID:|,ArrayTaskID:|,HetJobID:|,HetJobOffset:|,admin_comment:' >"$work/squeue"; then
        awk -F '|' '{
            name = $1
            if ($3 ~ /^[0-9]+$/) name = $2 "_" $3
            else if ($5 ~ /^[0-9]+$/ && $4 > 0) name = $4 "+" $5
            print $1 "|" name "|" $6 }' "$work/squeue" >"$work/running"
        wanted "open complete late" "$work/running" >"$work/write"
        while IFS=$TAB read -r job line; do
            timeout "$PATIENCE" scontrol update JobId="$job" AdminComment="$line" </dev/null >"$work/out" 2>&1 ||
                said "job $job: scontrol: $(tr '\n' ' ' <"$work/out")"
        done <"$work/write"
    else
        said "squeue gave no answer"
    fi
fi
exit "$failed"
