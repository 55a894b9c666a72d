#!/bin/sh
# An example for a sink of type "command" (docs/delivery.md): when a run has crossed a threshold, or will, suspend the
# Kueue workloads of the jobs that carry its label flopmeter.dev/run, so that their pods end and none is admitted before
# somebody has set spec.active to true again. What the pods have not saved is lost.
#
# This is your switch, not flopmeter's: it acts in the one namespace, and on the kinds of jobs, that you name.
#
#   [[sinks]]
#   name = "suspend"
#   type = "command"
#   command = ["/etc/flopmeter/suspend-kueue-workload.sh", "training", "jobs.batch,jobsets.jobset.x-k8s.io"]
#   environment = ["KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"]
#   types = ["threshold.crossed", "threshold.forecast"]
#   regimes = ["eu-systemic-risk"]
#
# It needs: get and list on those kinds, get, list and patch on workloads.kueue.x-k8s.io in that namespace.
set -eu
namespace=$1
kinds=${2:-jobs.batch}

# Standard input is the event. A run's name may have been written by a stranger: only what can be a label is used.
said=$(python3 -I -c '
import json, re, sys
event = json.load(sys.stdin)
run = event["data"].get("run", "")
good = isinstance(run, str) and re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", run)
print(event["type"])
print(run if good else "")
')
type=$(printf '%s\n' "$said" | sed -n 1p)
run=$(printf '%s\n' "$said" | sed -n 2p)

case $type in
threshold.crossed | threshold.forecast) ;;
*) exit 0 ;; # a test event, an answer: nothing to suspend
esac
[ -n "$run" ] || exit 0 # no label can say that, so no job carries it

uids=$(kubectl --namespace "$namespace" get "$kinds" --selector "flopmeter.dev/run=$run" \
    --output 'jsonpath={range .items[*]}{.metadata.uid}{"\n"}{end}')
for uid in $uids; do
    for workload in $(kubectl --namespace "$namespace" get workloads.kueue.x-k8s.io \
        --selector "kueue.x-k8s.io/job-uid=$uid" --output name); do
        kubectl --namespace "$namespace" patch "$workload" --type merge --patch '{"spec":{"active":false}}'
    done
done
