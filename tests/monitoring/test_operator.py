"""deploy/prometheus/operator held to the Prometheus operator's own definitions: their schemas, and their types, strictly.

A cluster drops a key that it does not know without a word, and scrapes something else: so the types, which know which
keys there are; the schemas know how a value is written. Both are made of the operator's CRDs by kubernetes-models.
"""

import copy
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from npm_packages import compiler_says, installed

OPERATOR = Path(__file__).parents[2] / "deploy/prometheus/operator"
#: All that it needs, pinned.
PACKAGES = re.findall(r"\S+", """
@kubernetes-models/apimachinery@3.0.2 @kubernetes-models/base@6.0.1 @kubernetes-models/prometheus-operator@6.0.0
@kubernetes-models/validate@5.0.2 ajv@8.20.0 ajv-formats@3.0.1 ajv-formats-draft2019@1.6.1 ajv-i18n@4.2.0
cidr-regex@5.0.5 commander@2.20.3 discontinuous-range@1.0.0 extend@3.0.2 fast-deep-equal@3.1.3 fast-uri@3.1.9
is-cidr@6.0.4 json-schema-traverse@1.0.0 kubernetes-models@5.1.0 moo@0.5.3 nearley@2.20.1 punycode@2.3.1
railroad-diagrams@1.0.0 randexp@0.4.6 re2-wasm@1.0.2 require-from-string@2.0.2 ret@0.1.15 schemes@1.4.0
smtp-address-parser@1.1.0 typescript@5.9.3 uri-js@4.4.1
""")  # fmt: skip
MODULE = "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1"
#: Reads objects by name, prints what each is refused for, or "".
CHECK = f"""
import {{ readFileSync }} from 'node:fs';
import * as models from '{MODULE}';
const said = {{}};
for (const [name, object] of Object.entries(JSON.parse(readFileSync(0)))) {{
  try {{ new models[object.kind](object).validate(); said[name] = ''; }} catch (e) {{ said[name] = String(e.message) || 'refused'; }}
}}
console.log(JSON.stringify(said));
"""
Thing = dict[str, Any]


def shipped() -> dict[str, Thing]:
    rules = subprocess.run(
        ["sh", OPERATOR / "rule.sh"], capture_output=True, text=True, timeout=60, check=True
    )
    every = [*yaml.safe_load_all(rules.stdout), *yaml.safe_load_all((OPERATOR / "monitors.yaml").read_text())]
    return {f"{thing['kind']}-{thing['metadata']['name']}": thing for thing in every}


def alert(thing: Thing) -> Thing:
    found: Thing = thing["spec"]["groups"][0]["rules"][0]
    return found


def relabeling(thing: Thing) -> Thing:
    found: Thing = thing["spec"]["endpoints"][0]["relabelings"][0]
    return found


RULES, PODS, SERVICES = (
    "PrometheusRule-flopmeter-alerts",
    "PodMonitor-flopmeter-agent",
    "ServiceMonitor-flopmeter-collector",
)
MISTAKES: dict[str, tuple[str, Callable[[Thing], object]]] = {
    "no-expression": (RULES, lambda d: alert(d).pop("expr")),
    "a-key-of-nothing": (RULES, lambda d: alert(d).update(form="5m")),
    "no-duration": (RULES, lambda d: alert(d).update({"for": "5 min"})),
    "a-label-that-is-no-text": (RULES, lambda d: alert(d)["labels"].update(severity=3)),
    "endpoints-of-the-other-kind": (PODS, lambda d: d["spec"].update(endpoints=d["spec"].pop("podMetricsEndpoints"))),
    "no-selector": (PODS, lambda d: d["spec"].pop("selector")),
    "a-relabeling-misspelt": (SERVICES, lambda d: relabeling(d).update(replacment="x")),
    "an-action-of-nothing": (SERVICES, lambda d: relabeling(d).update(action="replce")),
    "an-interval": (SERVICES, lambda d: d["spec"]["endpoints"][0].update(interval="30 s")),
}  # fmt: skip


@pytest.fixture(scope="module")
def operator() -> Path:
    return installed("prometheus-operator-6.0.0", *PACKAGES)


def test_each_is_what_the_operator_defines_and_a_mistake_is_not(operator: Path, tmp_path: Path) -> None:
    good = shipped()
    assert good.keys() == {"PrometheusRule-flopmeter-recording", RULES, PODS, SERVICES}
    things = dict(good)
    for name, (of, mistake) in MISTAKES.items():
        things[name] = copy.deepcopy(good[of])
        mistake(things[name])
    typed = compiler_says(
        operator,
        tmp_path,
        {
            name: f"import type {{ I{d['kind']} }} from '{MODULE}';\nexport const d: I{d['kind']} = {json.dumps(d)};\n"
            for name, d in things.items()
        },
    )
    (tmp_path / "check.mjs").write_text(CHECK)
    done = subprocess.run(
        ["node", "check.mjs"],
        cwd=tmp_path,
        input=json.dumps(things),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    schema = json.loads(done.stdout)
    assert {name: (typed[name], schema[name]) for name in good} == {name: ([], "") for name in good}
    assert [name for name in MISTAKES if not typed[name] and not schema[name]] == []
