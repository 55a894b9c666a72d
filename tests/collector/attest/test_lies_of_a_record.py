"""A record with one field that the rest of the file contradicts: nobody who checks an auditor's file takes it for true."""

import shutil

import pytest
from attest_books import BELOW, CROSSED, attest, full_store

from flopmeter.collector.attest import fields as fields_module
from flopmeter.collector.attest import issuing, recording
from flopmeter.collector.attest.errors import AttestRefused
from flopmeter.collector.attest.profiles import Form, Redaction, View


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("lies") / "books.sqlite"
    full_store(path)
    return path


@pytest.fixture
def path(made, tmp_path):
    shutil.copytree(made.parent, tmp_path / "store")
    return tmp_path / "store" / made.name


def threshold(values, **changed):
    values[f"/thresholds/{CROSSED.id}"].update(changed)


def nothing_counted(values):
    values[f"/totals/countable/{CROSSED.id}"].update(
        flop=dict.fromkeys(("lower", "point", "upper"), "0"), excluded=[]
    )
    threshold(values, status="below", eventLogIndex=None, firstCrossedAt=None)


LIES = {
    "energy that the groups do not add up to": (
        "sum tree",
        lambda v: v["/totals/energyJoules"].update(value="1"),
    ),
    "no energy where groups have some": ("sum tree", lambda v: v["/totals/energyJoules"].update(value=None)),
    "no gap where groups are gaps": (
        "sum tree",
        lambda v: (
            v["/coverage/gaps"].update(seconds="0", longestSeconds="0"),
            v.update({"/coverage/observedDeviceSeconds": v["/coverage/expectedDeviceSeconds"]}),
        ),
    ),
    "all of it observed, and gaps": (
        "arithmetic",
        lambda v: v.update({"/coverage/observedDeviceSeconds": v["/coverage/expectedDeviceSeconds"]}),
    ),
    "more device time expected than in the total": (
        "arithmetic",
        lambda v: v.update(
            {"/coverage/expectedDeviceSeconds": "1060", "/coverage/observedDeviceSeconds": "1000"}
        ),
    ),
    "a wall time that is not the period's": ("arithmetic", lambda v: v.update({"/totals/wallSeconds": "1"})),
    "a period that ends before it begins": (
        "arithmetic",
        lambda v: v.update({"/period/end": "2020-01-01T00:00:00Z"}),
    ),
    "a period that is not the batches'": (
        "pack",
        lambda v: v.update(
            {
                "/period/start": "2026-09-20T14:23:20Z",
                "/period/end": "2026-09-20T14:29:20Z",
                "/totals/wallSeconds": "360",
            }
        ),
    ),
    "less agents than the batches are of": (
        "pack",
        lambda v: v["/coverage/agents"].update(expected="1", reporting="1"),
    ),
    "another share of the best class": (
        "pack",
        lambda v: v.update({"/method/evidenceClasses": [{"class": "A1", "flopShare": "1"}]}),
    ),
    "gaps that add nothing": ("pack", lambda v: v["/coverage/gaps"].update(flopUpperAdded="0")),
    "devices of another model": (
        "sum tree",
        lambda v: v["/inventory/devices"][0].update(model="another"),
    ),
    "nothing counted, nothing excluded": ("arithmetic", nothing_counted),
    "a total that is nowhere": (
        "arithmetic",
        lambda v: threshold(
            v, total="countable:nobody", status="below", eventLogIndex=None, firstCrossedAt=None
        ),
    ),
    "crossed at no time": ("arithmetic", lambda v: threshold(v, firstCrossedAt=None)),
    "below since a time": (
        "arithmetic",
        lambda v: v[f"/thresholds/{BELOW.id}"].update(firstCrossedAt="2026-09-21T14:23:20Z"),
    ),
    "an event of another line": ("inclusion", lambda v: threshold(v, limit="99999999999999")),
    "an event of another comparison": ("inclusion", lambda v: threshold(v, comparison=">=")),
    "an event of another rule": (
        "inclusion",
        lambda v: v[f"/thresholds/{BELOW.id}"].update(
            eventLogIndex=v[f"/thresholds/{CROSSED.id}"]["eventLogIndex"]
        ),
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_field_that_the_rest_contradicts_is_not_handed_out(path, tmp_path, monkeypatch, name):
    step, change = LIES[name]
    real = fields_module.fields

    def fields(*args, **given):
        record = real(*args, **given)
        change(record.values)
        return record

    monkeypatch.setattr(recording, "fields", fields)
    with pytest.raises(AttestRefused, match=f"fails at {step}"):
        attest(path, "auditor", tmp_path / "x.zip")


@pytest.mark.parametrize("profile", ["aiOffice", "nationalAuthority", "downstream"])
def test_a_batch_that_is_called_an_event_is_refused_though_its_row_is_not_shown(
    path, tmp_path, monkeypatch, profile
):
    real = fields_module.fields

    def fields(*args, **given):
        record = real(*args, **given)
        threshold(record.values, eventLogIndex="6")  # the run's first batch
        return record

    monkeypatch.setattr(recording, "fields", fields)
    with pytest.raises(AttestRefused, match="entry 6 is not of kind event"):
        attest(path, profile, tmp_path / "x.zip")


@pytest.mark.parametrize("more", [(-1, 0), (0, 1)])
def test_a_leaf_range_that_is_not_the_batches_is_refused(path, tmp_path, monkeypatch, more):
    real = issuing._anchored

    def anchored(*given):
        found = real(*given)
        start, end = found.leaf_range
        object.__setattr__(found, "leaf_range", (start + more[0], end + more[1]))
        return found

    monkeypatch.setattr(issuing, "_anchored", anchored)
    with pytest.raises(AttestRefused, match="leafRange"):
        attest(path, "auditor", tmp_path / "x.zip")


@pytest.mark.parametrize(
    "changed",
    [
        ("aiOffice", "/thresholds/eu-near", "rounded"),
        ("aiOffice", "/period/start", "rounded"),
        ("aiOffice", "/coverage/sequenceBreaks", "aggregated"),
        ("aiOffice", "/method/tables", "rounded"),
        ("nationalAuthority", "/run/kind", "pseudonymised"),
        ("nationalAuthority", "/totals/executedFlop", "pseudonymised"),
        ("downstream", "/run/kind", "rounded"),
    ],
)
def test_what_is_no_quantity_is_not_rounded(path, tmp_path, monkeypatch, changed):
    """Else a recipient is shown anything, under the digest of a record that says something else."""
    profile, where, form = changed
    real = issuing.view

    def view(values, name):
        found = real(values, name)
        redactions = [r for r in found.redactions if r.path != where]
        redactions.append(Redaction(where, Form(form), "to please"))
        return View(found.shown, tuple(sorted(redactions)))

    monkeypatch.setattr(issuing, "view", view)
    with pytest.raises(AttestRefused, match="fails at disclosures: changed, and no quantity"):
        attest(path, profile, tmp_path / "x.zip")


def test_a_gpu_that_is_counted_twice_is_refused(path, tmp_path, monkeypatch):
    """Two rows of one device: the count is right, and one of them is nobody's."""
    real = fields_module.fields

    def fields(g, *args, **given):
        uuids = sorted(g.seen.devices)
        monkeypatch.setattr(fields_module, "sorted", lambda items: _twice(items, uuids), raising=False)
        return real(g, *args, **given)

    monkeypatch.setattr(recording, "fields", fields)
    with pytest.raises(AttestRefused, match="there twice"):
        attest(path, "auditor", tmp_path / "x.zip")


def _twice(items, uuids):
    found = sorted(items)
    rows = [row for row in found if isinstance(row, tuple) and row[0] in uuids]
    return [rows[0], *rows[:-1]] if rows else found


def test_a_start_that_was_declared_afterwards_is_no_start(path, tmp_path, monkeypatch):
    """An entry that is in the log and stands behind the run's first batch: the tag of one of its jobs."""
    monkeypatch.setattr(recording, "_declared", lambda *_: 22)
    with pytest.raises(AttestRefused, match="not before the run's first batch"):
        attest(path, "aiOffice", tmp_path / "x.zip")
