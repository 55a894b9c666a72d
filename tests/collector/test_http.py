"""Health and metrics by themselves: what each path answers, and that a stuck loop is seen whatever else hangs."""

import threading

import pytest
from edge_rig import edge

from flopmeter.collector.ingest.decide import PushbackReason, RefusalCode
from flopmeter.collector.ingest.writer import Committed
from flopmeter.collector.metrics import COMMIT_BUCKETS, Counters


@pytest.mark.parametrize(
    ("path", "state", "status", "body"),
    [
        ("/healthz", {}, 200, "ok\n"),
        ("/healthz", {"alive": False}, 503, "the event loop or the writer is stuck\n"),
        ("/healthz", {"ready": False}, 200, "ok\n"),
        ("/readyz", {}, 200, "ok\n"),
        ("/readyz", {"ready": False}, 503, "records are not being committed\n"),
        ("/readyz?verbose", {}, 200, "ok\n"),
    ],
)
def test_answers(tmp_path, path, state, status, body):
    with edge(tmp_path, **{name: lambda good=good: good for name, good in state.items()}) as rig:
        said = rig.get(path)
    assert (said.status, said.body.decode()) == (status, body)


def test_a_scrape_that_hangs_holds_up_no_probe(tmp_path):
    free = threading.Event()

    def ready():  # asked by /metrics and by /readyz
        return free.wait(20)

    said = []
    with edge(tmp_path, ready=ready) as rig:
        hanging = [
            threading.Thread(target=lambda path=path: said.append(rig.get(path).status))
            for path in ("/metrics", "/readyz", "/metrics", "/metrics")
        ]
        for thread in hanging:
            thread.start()
        assert [rig.get("/healthz").status for _ in range(3)] == [200] * 3
        assert said == []
        free.set()
        for thread in hanging:
            thread.join()
    assert said == [200] * 4


def test_other_paths_and_methods_are_refused(tmp_path):
    with edge(tmp_path) as rig:
        assert rig.get("/nothing").status == 404
        assert rig.get("/healthz/").status == 404
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
            assert rig.ask(method, "/healthz").status == 405
        head = rig.ask("HEAD", "/healthz")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "3")


def test_metrics_are_what_was_counted(tmp_path):
    counters = Counters()
    counters.committed(Committed(100, (), 0.004))
    counters.committed(Committed(50, (), 99.0))
    counters.refused(RefusalCode.BAD_SIGNATURE)
    counters.pushed_back(PushbackReason.OUT_OF_SEQUENCE)
    with edge(tmp_path, counters=counters) as rig:
        said = rig.get("/metrics")
    assert said.status == 200
    lines = dict(line.rsplit(" ", 1) for line in said.body.decode().splitlines() if not line.startswith("#"))
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
