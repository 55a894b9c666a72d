"""The HTTP edge by itself: what each path answers, and that a stuck loop is seen."""

import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from flopmeter.collector.http import HttpServer
from flopmeter.collector.ingest.decide import PushbackReason, RefusalCode
from flopmeter.collector.ingest.writer import Committed
from flopmeter.collector.metrics import COMMIT_BUCKETS, Counters
from flopmeter.collector.metrics_page import CollectorMetrics


@contextmanager
def http(counters=None, *, alive=True, ready=True):
    metrics = CollectorMetrics(counters or Counters(), lambda: 3, lambda: ready)
    server = HttpServer("127.0.0.1", 0, metrics=metrics, alive=lambda: alive, ready=lambda: ready)
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.stop()


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as r:
            return r.status, r.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()


@pytest.mark.parametrize(
    ("path", "state", "status", "body"),
    [
        ("/healthz", {}, 200, "ok\n"),
        ("/healthz", {"alive": False}, 503, "the event loop or the writer is stuck\n"),
        ("/healthz", {"ready": False}, 200, "ok\n"),
        ("/readyz", {}, 200, "ok\n"),
        ("/readyz", {"ready": False}, 503, "records are not being committed\n"),
        ("/readyz?verbose", {}, 200, "ok\n"),
        ("/", {}, 404, "expected /healthz, /readyz or /metrics\n"),
    ],
)
def test_answers(path, state, status, body):
    with http(**state) as url:
        assert get(url + path) == (status, body)


def test_other_methods_are_refused():
    with http() as url:
        request = urllib.request.Request(url + "/healthz", method="POST", data=b"")
        with pytest.raises(urllib.error.HTTPError) as e:
            urllib.request.urlopen(request, timeout=10)
        e.value.close()
        assert e.value.code == 501


def test_metrics_are_what_was_counted():
    counters = Counters()
    counters.committed(Committed(100, (), 0.004))
    counters.committed(Committed(50, (), 99.0))
    counters.refused(RefusalCode.BAD_SIGNATURE)
    counters.pushed_back(PushbackReason.OUT_OF_SEQUENCE)
    with http(counters) as url:
        status, text = get(url + "/metrics")
    assert status == 200
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines["flopmeter_collector_records_total"] == "150.0"
    assert lines['flopmeter_collector_refusals_total{code="bad-signature"}'] == "1.0"
    assert lines['flopmeter_collector_pushbacks_total{reason="out-of-sequence"}'] == "1.0"
    assert lines['flopmeter_collector_commit_seconds_bucket{le="0.0025"}'] == "0.0"
    assert lines['flopmeter_collector_commit_seconds_bucket{le="0.005"}'] == "1.0"
    assert lines[f'flopmeter_collector_commit_seconds_bucket{{le="{COMMIT_BUCKETS[-1]}"}}'] == "1.0"
    assert lines['flopmeter_collector_commit_seconds_bucket{le="+Inf"}'] == "2.0"
    assert lines["flopmeter_collector_commit_seconds_count"] == "2.0"
    assert float(lines["flopmeter_collector_commit_seconds_sum"]) == pytest.approx(99.004)
    assert lines["flopmeter_collector_streams"] == "3.0"
    assert lines["process_open_fds"]
