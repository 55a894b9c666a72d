"""Makes the shipped pods, the agent's and the collector's, one that `podman kube play` plays, changing only what it lacks.

    python .ci/playable.py FOLDER NAME=VALUE… >pod.yaml

Dropped: probes, hooks, ports, scheduling, priority, service account tokens. Host folders, the claim and the Secret move
under FOLDER (the claim's belongs to the collector's group, as fsGroup makes it), image tags become `ci`, the node's
name is a constant. NAME=VALUE adds settings to the container whose side NAME names (FLOPMETER_AGENT_…,
FLOPMETER_COLLECTOR_…). Security contexts, mounts and commands stay.
"""

import os
import sys
from pathlib import Path
from typing import Any

import yaml

MANIFESTS = Path(__file__).parents[1] / "deploy/k8s"
KEPT = ("containers", "volumes", "hostPID", "securityContext", "terminationGracePeriodSeconds")
#: Of a pod's security context, what its containers would inherit.
INHERITED = ("runAsUser", "runAsGroup", "runAsNonRoot", "seccompProfile")


def pod_of(name: str, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(pod template's spec, workload's spec)."""
    (workload,) = [o for o in yaml.safe_load_all((MANIFESTS / name).read_text()) if o["kind"] == kind]
    return workload["spec"]["template"]["spec"], workload["spec"]


def playable(folder: Path, settings: dict[str, str]) -> dict[str, Any]:
    template, _ = pod_of("agent-daemonset.yaml", "DaemonSet")
    beside, of_set = pod_of("collector-statefulset.yaml", "StatefulSet")
    spec = {key: template[key] for key in KEPT}
    spec["restartPolicy"] = "Never"
    for container in beside["containers"]:
        inherited = {key: beside["securityContext"][key] for key in INHERITED}
        spec["containers"].append(container | {"securityContext": inherited | container["securityContext"]})
    known = {volume["name"] for volume in spec["volumes"]}
    spec["volumes"] += [volume for volume in beside["volumes"] if volume["name"] not in known]
    for claim in of_set["volumeClaimTemplates"]:
        spec["volumes"].append({"name": claim["metadata"]["name"], "hostPath": {}})
        path = folder / claim["metadata"]["name"]
        path.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(path, -1, beside["securityContext"]["fsGroup"])
            path.chmod(0o2770)
    for container in spec["containers"]:
        container["image"] = container["image"].rpartition(":")[0] + ":ci"
        container["imagePullPolicy"] = "Never"
        for key in ("ports", "livenessProbe", "readinessProbe", "lifecycle"):
            container.pop(key, None)
        side = f"FLOPMETER_{container['name'].upper()}_"
        env = {e["name"]: e.get("value", "ci-node") for e in container.get("env", [])}
        env |= {name: value for name, value in settings.items() if name.startswith(side)}
        container["env"] = [{"name": name, "value": value} for name, value in env.items()]
    for volume in spec["volumes"]:
        if volume.pop("secret", None) is not None or "hostPath" in volume:
            path = folder / volume["name"]
            path.mkdir(parents=True, exist_ok=True)
            volume["hostPath"] = {"path": str(path), "type": "DirectoryOrCreate"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "flopmeter"}, "spec": spec}


if __name__ == "__main__":
    pairs = dict(word.split("=", 1) for word in sys.argv[2:])
    yaml.safe_dump(playable(Path(sys.argv[1]), pairs), sys.stdout)
