#!/bin/sh
# The same rules as objects of the Prometheus operator, on standard output: deploy/prometheus/operator/rule.sh | kubectl apply -f -
set -eu
cd "$(dirname "$0")/.."
for name in flopmeter-recording flopmeter-alerts; do
    cat <<HEAD
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: $name
  namespace: flopmeter
  labels:
    app.kubernetes.io/name: flopmeter
spec:
HEAD
    sed -n '/^groups:/,$p' "$name.yml" | sed 's/^\(.\)/  \1/'
done
