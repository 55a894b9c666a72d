"""Makes the DaemonSet's own pod template playable by `podman kube play`, changing only what podman lacks.

    python .ci/playable.py FOLDER NAME=VALUE… >pod.yaml

Dropped: probes, hooks, ports, scheduling, priority, the token. Host folders move under FOLDER, image tags become
`ci`, the node's name is a constant. NAME=VALUE adds settings to the container whose side NAME names
(FLOPMETER_AGENT_…, FLOPMETER_COLLECTOR_…). Security contexts, init container, mounts and commands stay.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

MANIFEST = Path(__file__).parents[1] / "deploy/k8s/agent-daemonset.yaml"
KEPT = (
    "initContainers",
    "containers",
    "volumes",
    "hostPID",
    "securityContext",
    "terminationGracePeriodSeconds",
)


def playable(folder: Path, settings: dict[str, str]) -> dict[str, Any]:
    (workload,) = [o for o in yaml.safe_load_all(MANIFEST.read_text()) if o["kind"] == "DaemonSet"]
    template = workload["spec"]["template"]["spec"]
    spec = {key: template[key] for key in KEPT}
    spec["restartPolicy"] = "Never"  # podman 4.3 would restart the init container for ever
    for container in spec["containers"] + spec["initContainers"]:
        container["image"] = container["image"].rpartition(":")[0] + ":ci"
        container["imagePullPolicy"] = "Never"
        for key in ("ports", "livenessProbe", "readinessProbe", "lifecycle"):
            container.pop(key, None)
        side = f"FLOPMETER_{container['name'].upper()}_"
        env = {e["name"]: e.get("value", "ci-node") for e in container.get("env", [])}
        env |= {name: value for name, value in settings.items() if name.startswith(side)}
        container["env"] = [{"name": name, "value": value} for name, value in env.items()]
    for volume in spec["volumes"]:
        if "hostPath" in volume:
            path = folder / volume["name"]
            path.mkdir(parents=True, exist_ok=True)
            volume["hostPath"] = {"path": str(path), "type": "DirectoryOrCreate"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "flopmeter"}, "spec": spec}


if __name__ == "__main__":
    pairs = dict(word.split("=", 1) for word in sys.argv[2:])
    yaml.safe_dump(playable(Path(sys.argv[1]), pairs), sys.stdout)
