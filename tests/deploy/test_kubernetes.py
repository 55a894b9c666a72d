"""The manifests' policy, on the parsed objects. Their schema is checked by .ci/manifests."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flopmeter.collector.settings import CollectorSettings
from flopmeter.contract.enrolment import DEFAULT_ENROL_PORT

ROOT = Path(__file__).parents[2]
#: To be applied by those who want it, with names of their own; tested at the end.
PAGE = ROOT / "deploy/k8s/page-ingress.yaml"
FILES = sorted(set((ROOT / "deploy/k8s").glob("*.yaml")) - {PAGE})
OBJECTS: list[dict[str, Any]] = [o for f in FILES for o in yaml.safe_load_all(f.read_text())]
WORKLOADS = [o for o in OBJECTS if o["kind"] in ("DaemonSet", "StatefulSet", "Deployment")]


def containers(workload: dict[str, Any], *, init: bool = True) -> Iterator[dict[str, Any]]:
    spec = workload["spec"]["template"]["spec"]
    yield from spec["containers"]
    if init:
        yield from spec.get("initContainers", [])


CONTAINERS = [(w["kind"] + "/" + c["name"], w, c) for w in WORKLOADS for c in containers(w)]
LONG_RUNNING = [(w["kind"] + "/" + c["name"], w, c) for w in WORKLOADS for c in containers(w, init=False)]


def named(entries: list[tuple[str, Any, Any]]) -> Any:
    return pytest.mark.parametrize(
        ("workload", "container"), [e[1:] for e in entries], ids=[e[0] for e in entries]
    )


def get(kind: str) -> dict[str, Any]:
    (found,) = [o for o in OBJECTS if o["kind"] == kind]
    return found


def test_what_is_shipped() -> None:
    kinds = sorted(o["kind"] for o in OBJECTS)
    assert kinds == [
        "ClusterRole",
        "ClusterRoleBinding",
        "DaemonSet",
        "Namespace",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
        "ServiceAccount",
        "ServiceAccount",
        "StatefulSet",
    ]
    everywhere = ("Namespace", "ClusterRole", "ClusterRoleBinding")
    assert all(o["metadata"].get("namespace") == "flopmeter" for o in OBJECTS if o["kind"] not in everywhere)
    assert not [o for o in OBJECTS if o["kind"] in everywhere and "namespace" in o["metadata"]]


@named(CONTAINERS)
def test_no_container_is_privileged(workload: dict[str, Any], container: dict[str, Any]) -> None:
    pod = workload["spec"]["template"]["spec"]
    security = container["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert not security.get("privileged")
    assert security["capabilities"]["drop"] == ["ALL"]
    assert security["capabilities"].get("add", []) == []
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "hostNetwork" not in pod
    assert "hostIPC" not in pod


@named(LONG_RUNNING)
def test_the_collector_is_never_root(workload: dict[str, Any], container: dict[str, Any]) -> None:
    pod = workload["spec"]["template"]["spec"]
    security = {**pod.get("securityContext", {}), **container["securityContext"]}
    if container["name"] == "collector":
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == 65532
    else:
        assert container["name"] == "agent"
        assert security["runAsUser"] == 0


@named(CONTAINERS)
def test_resources_are_asked_for_and_memory_is_limited(workload: Any, container: dict[str, Any]) -> None:
    resources = container["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert set(resources["limits"]) == {"memory"}, (
        "a CPU limit throttles a tick; a GPU would be taken from a job"
    )


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w["kind"])
def test_no_token_is_mounted(workload: dict[str, Any]) -> None:
    assert workload["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    for account in (o for o in OBJECTS if o["kind"] == "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_roles_are_asked_for_in_a_file_of_their_own_and_grant_no_more_than_is_used() -> None:
    """reference/deploy.md 1.5: pods only with labels, resourceslices only with DRA, nothing else, never to write."""
    granting = [
        f.name for f in FILES if "Role" in str([o["kind"] for o in yaml.safe_load_all(f.read_text())])
    ]
    assert granting == ["agent-labels.yaml"]
    rules = get("ClusterRole")["rules"]
    granted = [
        (g, r, tuple(rule["verbs"])) for rule in rules for g in rule["apiGroups"] for r in rule["resources"]
    ]
    assert granted == [
        ("", "pods", ("get",)),
        ("ray.io", "rayclusters", ("get",)),
        ("resource.k8s.io", "resourceslices", ("list",)),
    ]
    binding = get("ClusterRoleBinding")
    assert binding["roleRef"]["name"] == get("ClusterRole")["metadata"]["name"]
    (subject,) = binding["subjects"]
    spec = get("DaemonSet")["spec"]["template"]["spec"]
    assert (subject["name"], subject["namespace"]) == (spec["serviceAccountName"], "flopmeter")


def test_the_role_grants_what_the_client_asks_for() -> None:
    """Each path that the agent may ask of the API server has its rule."""
    source = (ROOT / "agent/flopmeter/agent/workloads/kubelet/api.py").read_text()
    asked = set(re.findall(r"[/}](pods|rayclusters|resourceslices)[/?]", source))
    assert asked == {r for rule in get("ClusterRole")["rules"] for r in rule["resources"]}


def test_the_agent_meets_the_kubelet() -> None:
    """The directory is mounted, not the socket, which the kubelet makes anew; read-only; and labels are off."""
    (agent,) = [c for name, _, c in LONG_RUNNING if name == "DaemonSet/agent"]
    socket = Path(environment(agent)["FLOPMETER_AGENT_KUBELET"])
    (mount,) = [m for m in agent["volumeMounts"] if m["name"] == "pod-resources"]
    assert Path(mount["mountPath"]) == socket.parent
    assert mount["readOnly"] is True
    spec = get("DaemonSet")["spec"]["template"]["spec"]
    (volume,) = [v for v in spec["volumes"] if v["name"] == "pod-resources"]
    assert volume["hostPath"]["path"] == str(socket.parent)
    assert spec["hostPID"] is True
    assert environment(agent)["FLOPMETER_AGENT_KUBERNETES_LABELS"] == "false"


def test_what_the_manifest_sets_loads() -> None:
    from flopmeter.agent.settings import load_settings

    (agent,) = [c for name, _, c in LONG_RUNNING if name == "DaemonSet/agent"]
    given = {k: v for k, v in environment(agent).items() if k.startswith("FLOPMETER_") and v}
    assert load_settings({}, given, None).kubelet == given["FLOPMETER_AGENT_KUBELET"]
    assert load_settings({}, {**given, "FLOPMETER_AGENT_KUBERNETES_LABELS": "true"}, None).kubernetes_labels


@named(CONTAINERS)
def test_images_are_ours_and_of_this_version(workload: Any, container: dict[str, Any]) -> None:
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert re.fullmatch(rf"localhost/flopmeter-(agent|collector):{re.escape(version[1])}", container["image"])


@named(LONG_RUNNING)
def test_probes_never_ask_the_port_for_agents(workload: Any, container: dict[str, Any]) -> None:
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert container["livenessProbe"]["httpGet"]["port"] in ("metrics", "agent-metrics")
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert ports[container["livenessProbe"]["httpGet"]["port"]]
    if container["name"] == "collector":
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


@named(LONG_RUNNING)
def test_settings_are_ones_that_the_program_has(workload: Any, container: dict[str, Any]) -> None:
    """Unknown FLOPMETER_* variables are refused at start: a misspelt one here would be a crash loop."""
    side = container["name"]
    command = ["agent", "run"] if side == "agent" else ["collector", "serve"]
    program = Path(sys.executable).with_name("flopmeter")
    shown = subprocess.run([program, *command, "--help"], capture_output=True, text=True, timeout=60).stdout
    options = set(re.findall(r"--([a-z][a-z-]+)", shown))
    for variable in (e["name"] for e in container["env"] if e["name"].startswith("FLOPMETER_")):
        prefix = f"FLOPMETER_{side.upper()}_"
        assert variable.startswith(prefix)
        assert variable.removeprefix(prefix).lower().replace("_", "-") in options, variable


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {e["name"]: e.get("value", "") for e in container["env"]}


def one(name: str) -> dict[str, Any]:
    (container,) = [c for full, _, c in LONG_RUNNING if full == name]
    return container


def test_agents_and_collector_meet_over_mtls_by_the_service() -> None:
    """The name that agents dial stands in the collector's certificate, and the ports are those that it listens on."""
    agent, collector = environment(one("DaemonSet/agent")), environment(one("StatefulSet/collector"))
    host, _, port = agent["FLOPMETER_AGENT_COLLECTOR"].rpartition(":")
    service = get("Service")
    assert host == f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    assert host in collector["FLOPMETER_COLLECTOR_TLS_NAME"].split(",")
    listening = {p["name"]: p["containerPort"] for p in one("StatefulSet/collector")["ports"]}
    assert collector["FLOPMETER_COLLECTOR_LISTEN"] == f"0.0.0.0:{port}" == f"0.0.0.0:{listening['agents']}"
    assert collector["FLOPMETER_COLLECTOR_ENROL"] == f"0.0.0.0:{DEFAULT_ENROL_PORT}"
    assert listening["enrol"] == DEFAULT_ENROL_PORT
    assert "FLOPMETER_COLLECTOR_ADMIT_NEW" not in collector
    offered = {p["port"]: p["targetPort"] for p in service["spec"]["ports"]}
    assert offered == {listening[name]: name for name in listening}


def test_the_token_is_a_file_of_a_secret_that_may_be_gone() -> None:
    agent = one("DaemonSet/agent")
    path = Path(environment(agent)["FLOPMETER_AGENT_JOIN_FILE"])
    (mount,) = [m for m in agent["volumeMounts"] if m["name"] == "join"]
    assert (Path(mount["mountPath"]), mount["readOnly"]) == (path.parent, True)
    (volume,) = [v for v in get("DaemonSet")["spec"]["template"]["spec"]["volumes"] if v["name"] == "join"]
    assert volume["secret"]["optional"] is True
    assert volume["secret"]["defaultMode"] == 0o400
    page = (ROOT / "docs/deploy.md").read_text()
    assert f"secret generic {volume['secret']['secretName']} --from-file={path.name}=" in page


def test_two_agents_never_share_a_spool() -> None:
    spec = get("DaemonSet")["spec"]
    assert spec["updateStrategy"]["rollingUpdate"]["maxSurge"] == 0
    (spool,) = [v for v in spec["template"]["spec"]["volumes"] if v["name"] == "spool"]
    assert spool["hostPath"]["type"] == "DirectoryOrCreate"


def test_one_writer_per_store() -> None:
    assert get("StatefulSet")["spec"]["replicas"] == 1


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w["kind"])
def test_there_is_time_to_stop(workload: dict[str, Any]) -> None:
    from flopmeter.agent.settings import AgentSettings

    grace = workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert AgentSettings().stop_timeout / 1e9 < grace


@named(CONTAINERS)
def test_mounts_name_volumes_and_cover_the_state(workload: dict[str, Any], container: dict[str, Any]) -> None:
    spec = workload["spec"]
    volumes = {v["name"] for v in spec["template"]["spec"]["volumes"]}
    volumes |= {v["metadata"]["name"] for v in spec.get("volumeClaimTemplates", [])}
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    assert set(mounts.values()) <= volumes
    state = [v for v in environment({"env": container.get("env", [])}).values() if v.startswith("/var/lib/")]
    for path in state:
        assert any(path == m or path.startswith(m + "/") for m in mounts), path


def test_selectors_meet_their_pods() -> None:
    pods = [w["spec"]["template"]["metadata"]["labels"] for w in WORKLOADS]
    for workload, labels in zip(WORKLOADS, pods, strict=True):
        assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for selector in (
        get("Service")["spec"]["selector"],
        get("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ):
        assert [p for p in pods if selector.items() <= p.items()] == [
            w["spec"]["template"]["metadata"]["labels"] for w in WORKLOADS if w["kind"] == "StatefulSet"
        ]
    policy = get("NetworkPolicy")["spec"]
    assert all(policy["podSelector"]["matchLabels"].items() <= p.items() for p in pods)


def test_the_policy_opens_what_is_served_to_whom_it_is_for_and_nothing_else() -> None:
    policy = get("NetworkPolicy")["spec"]
    names = {p["name"] for _, _, c in LONG_RUNNING for p in c["ports"]}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert {p["port"] for rule in policy["ingress"] for p in rule["ports"]} == names
    metrics, agents = policy["ingress"]
    assert {p["port"] for p in metrics["ports"]} == {"metrics", "agent-metrics"}
    pods = {w["kind"]: w["spec"]["template"]["metadata"]["labels"] for w in WORKLOADS}
    assert agents["from"][0]["podSelector"]["matchLabels"] == pods["DaemonSet"]
    assert {p["port"] for p in agents["ports"]} == {"agents", "enrol"}
    collector, names_server = policy["egress"]
    assert collector["to"][0]["podSelector"]["matchLabels"] == pods["StatefulSet"]
    assert {p["port"] for p in collector["ports"]} == {9840, DEFAULT_ENROL_PORT}
    assert {p["port"] for p in names_server["ports"]} == {53}


def test_the_page_by_an_ingress_that_ends_tls() -> None:
    """The Service meets the collector's port, the Ingress the Service, and the policy lets the controller in to that alone."""
    objects = {o["kind"]: o for o in yaml.safe_load_all(PAGE.read_text())}
    assert set(objects) == {"Service", "Ingress", "NetworkPolicy"}
    assert all(o["metadata"]["namespace"] == "flopmeter" for o in objects.values())
    ports = {p["name"]: p["containerPort"] for p in one("StatefulSet/collector")["ports"]}
    service, ingress, policy = (objects[k] for k in ("Service", "Ingress", "NetworkPolicy"))
    labels = get("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    (port,) = service["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (ports["metrics"], "metrics")
    (rule,) = ingress["spec"]["rules"]
    assert {h for tls in ingress["spec"]["tls"] for h in tls["hosts"]} == {rule["host"]}
    for path in rule["http"]["paths"]:
        backend = path["backend"]["service"]
        assert (backend["name"], backend["port"]["name"]) == (service["metadata"]["name"], port["name"])
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert [[p["port"] for p in rule["ports"]] for rule in policy["spec"]["ingress"]] == [["metrics"]]


def test_the_setting_that_the_ingress_needs_is_one_and_is_not_on_by_itself() -> None:
    """Behind a proxy that nobody set up, anybody in the cluster could say that TLS was ended."""
    assert "FLOPMETER_COLLECTOR_HTTP_PROXIED=true" in PAGE.read_text()
    environ = environment(one("StatefulSet/collector"))
    assert not [name for name in environ if name.startswith("FLOPMETER_COLLECTOR_HTTP_")]
    assert CollectorSettings(http="0.0.0.0:9841", http_proxied=True).http_proxied
