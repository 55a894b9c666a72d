"""What is refused before anything is read: unknown paths, methods, parameters, and absurd values of known ones."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.collector.api.asking import wish_of
from flopmeter.collector.api.problems import Problem
from flopmeter.collector.api.question import Question
from flopmeter.collector.api.routes import ROUTES


def refused(*segments, method="GET", role="admin", tenant="", body=b"", **parameters):
    with pytest.raises(Problem) as e:
        wish_of(Question(method, segments, parameters, body, "ada", role, tenant))
    answer = e.value.answer()
    assert json.loads(answer.body)["status"] == answer.status
    return answer


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "-1"),
        ("limit", "1e2"),
        ("limit", "٣"),
        ("limit", "9" * 400),
        ("limit", ""),
        ("status", "RUNNING"),
        ("status", ""),
        ("sort", "flop; DROP TABLE runs"),
        ("q", "x" * 1_025),
        ("Q", "x"),
        ("q ", "x"),
        ("offset", "1"),
        ("__proto__", "1"),
    ],
)
def test_parameters_that_cannot_be_meant(name, value):
    assert refused("runs", **{name: value}).status == 400


@pytest.mark.parametrize(
    ("name", "value"),
    [("from", "yesterday"), ("to", "2026-13-01"), ("from", "99999-01-01"), ("points", "1"), ("points", "601"), ("unit", "x")],
)  # fmt: skip
def test_a_curves_too(name, value):
    assert refused("runs", "r", "curve", **{name: value}).status == 400


@pytest.mark.parametrize("value", ["yes", "1", "TRUE", ""])
def test_a_flag_is_true_or_false(value):
    assert refused("deadlines", overdue=value).status == 400


@pytest.mark.parametrize(
    "segments",
    [(), ("",), ("runs", ""), ("runs", "", "curve"), ("Runs",), ("runs", "r", "curve", "x"), ("..", "runs")],
)
def test_paths_that_are_not_there(segments):
    assert refused(*segments).status == 404


def test_a_name_longer_than_any_is_not_there():
    assert refused("runs", "x" * 1_025).status == 404
    assert wish_of(Question("GET", ("runs", "\u202ex/../<script>"), role="viewer")).names["run"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST", "get", "OPTIONS", ""])
def test_other_methods_are_told_what_there_is(method):
    found = refused("runs", method=method)
    assert (found.status, found.headers["Allow"]) == (405, "GET")
    assert refused("events", "0" * 32, "answers").headers["Allow"] == "POST"


def test_a_body_where_none_is_taken():
    assert refused("runs", body=b"{}").status == 400


def test_roles_by_the_table():
    for r in ROUTES:
        path = [p.replace("{", "").replace("}", "") for p in r.parts]
        for role in ("viewer", "auditor", "operator", "admin", "nobody", ""):
            may = r.public or role in {
                "viewer": {"viewer", "auditor", "operator", "admin"},
                "auditor": {"auditor", "operator", "admin"},
                "operator": {"operator", "admin"},
            }.get(r.role, set())
            if may:
                assert wish_of(Question(r.method, tuple(path), role=role)).route is r
            else:
                assert refused(*path, method=r.method, role=role).status == 403


@settings(max_examples=200)
@given(
    st.sampled_from(["GET", "POST", "HEAD"]) | st.text(max_size=5),
    st.lists(
        st.sampled_from(["runs", "events", "curve", "fleet", "nodes", ""]) | st.text(max_size=8), max_size=4
    ),
    st.dictionaries(
        st.sampled_from(["limit", "after", "q", "from"]) | st.text(max_size=5),
        st.text(max_size=12),
        max_size=3,
    ),
    st.binary(max_size=4),
)
def test_whatever_is_asked_is_a_wish_or_a_problem(method, segments, parameters, body):
    try:
        wish = wish_of(Question(method, tuple(segments), parameters, body, "ada", "admin"))
    except Problem as e:
        assert e.answer().status in (400, 403, 404, 405)
    else:
        assert wish.route in ROUTES
