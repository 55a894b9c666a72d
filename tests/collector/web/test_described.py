"""The OpenAPI document of the whole port, held to what it answers: each path stands in it, and nothing else does."""

import json

import pytest

from flopmeter.collector.api import openapi
from flopmeter.collector.api.question import Answer
from flopmeter.collector.web.described import described
from flopmeter.collector.web.may import TABLE


@pytest.fixture(scope="module")
def document():
    return json.loads(described(Answer(200, "application/json", openapi.document_bytes())).body)


def test_every_path_that_is_answered_is_described_and_no_other(document):
    said = {
        (method.upper(), tuple("*" if part.startswith("{") else part for part in path[1:].split("/")))
        for path, methods in document["paths"].items()
        for method in methods
    }
    own = {("POST", ("session",)), ("DELETE", ("session",)), ("GET", ("openapi.json",))}
    assert said == {(row.method, row.pattern) for row in TABLE} | own


def test_operations_have_names_of_their_own_and_say_what_they_answer(document):
    operations = [o for methods in document["paths"].values() for o in methods.values()]
    names = [o["operationId"] for o in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
        assert {"400", "429", "503"} <= set(operation["responses"]), operation["operationId"]
        for requirement in operation.get("security", []):
            assert set(requirement) <= set(document["components"]["securitySchemes"])


def test_whoami_is_as_described(document, tmp_path):
    from edge_rig import edge

    schema = document["paths"]["/whoami"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    with edge(tmp_path) as rig:
        said = rig.get("/api/v1/whoami", role="viewer").json
    assert set(said) == set(schema["required"]) == set(schema["properties"])
