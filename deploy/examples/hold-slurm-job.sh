#!/bin/sh
# An example for a sink of type "command" (docs/delivery.md): when a run has crossed a threshold, or will, hold its
# Slurm jobs, so that none of them is started (again) before somebody has decided. Jobs that run now go on; with
# `requeuehold` as the second argument they are put back into the queue too, and lose what they have not saved.
#
# This is your switch, not flopmeter's: you write down which runs it may act on. FILE has a line for each:
#
#   llm-7  4711,4712
#   llm-8  jobname=pretrain-8
#
#   [[sinks]]
#   name = "hold"
#   type = "command"
#   command = ["/etc/flopmeter/hold-slurm-job.sh", "/etc/flopmeter/held-runs"]
#   types = ["threshold.crossed", "threshold.forecast"]
#   regimes = ["eu-systemic-risk"]
#
# The collector's user must be an operator or administrator of Slurm, or own the jobs.
set -eu
runs=$1
how=${2:-hold}
case $how in
hold | requeuehold) ;;
*)
    echo "expected hold or requeuehold, got $how" >&2
    exit 2
    ;;
esac

# Standard input is the event. A run's name may have been written by a stranger: it is compared, and never run.
said=$(python3 -I -c '
import json, sys
event = json.load(sys.stdin)
run = event["data"].get("run", "")
print(event["type"])
print(run if isinstance(run, str) and run.isprintable() and " " not in run else "")
')
type=$(printf '%s\n' "$said" | sed -n 1p)
RUN=$(printf '%s\n' "$said" | sed -n 2p)
export RUN

case $type in
threshold.crossed | threshold.forecast) ;;
*) exit 0 ;; # a test event, an answer: nothing to hold
esac
jobs=$(awk 'ENVIRON["RUN"] != "" && $1 == ENVIRON["RUN"] { print $2; exit }' "$runs")
[ -n "$jobs" ] || exit 0 # none of those that you wrote down
exec scontrol "$how" "$jobs"
