"""The process that answers: started when it is needed, asked in turn, replaced when it hangs or dies; and nothing waits for it."""

import asyncio
import contextlib
import http.client
import os
import sys
import threading
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from edge_rig import WORKER, edge
from processes import wait_for

from flopmeter.collector.api.question import Question
from flopmeter.collector.web import office as offices
from flopmeter.collector.web.office import Office
from flopmeter.collector.web.says import Refused


@pytest.fixture
def rig(tmp_path):
    with edge(tmp_path) as rig:
        yield rig


def test_it_is_started_when_something_is_asked_and_then_stays(rig):
    assert rig.get("/healthz").status == 200
    assert rig.get("/").status == 200
    assert rig.starts() == []
    said = [rig.get("/api/v1/runs/a%2Fb/curve?points=3", role="viewer").json for _ in range(3)]
    assert len(rig.starts()) == 1
    assert said[0] == {
        "method": "GET",
        "segments": ["runs", "a/b", "curve"],
        "parameters": {"points": "3"},
        "body": 0,
        "who": "ann-viewer",
        "role": "viewer",
        "tenant": "",
        "pid": rig.starts()[0],
    }
    assert said[0] == said[1] == said[2]


def test_etags_are_answered_with_304(rig):
    first = rig.get("/api/v1/runs", role="viewer")
    assert (first.status, first.headers["etag"], first.headers["cache-control"]) == (200, '"e1"', "no-store")
    for asked in ('"e1"', '"x", "e1"', 'W/"e1"', "*"):
        again = rig.get("/api/v1/runs", role="viewer", If_None_Match=asked)
        assert (again.status, again.body) == (304, b""), asked
    assert rig.get("/api/v1/runs", role="viewer", If_None_Match='"e2"').status == 200
    assert rig.get("/api/v1/runs", If_None_Match='"e1"').status == 401


def test_a_large_answer_comes_whole(rig):
    assert len(rig.get("/api/v1/runs/large", role="viewer").json) == 2_000_001


@pytest.mark.parametrize("how", ["die", "garbage"])
def test_one_that_dies_or_talks_nonsense_is_replaced(rig, how):
    assert rig.get("/api/v1/overview", role="viewer").status == 200
    said = rig.get(f"/api/v1/runs/{how}", role="viewer")
    assert (said.status, said.headers["content-type"]) == (503, "application/problem+json")
    assert said.headers["retry-after"] == "1"
    assert rig.get("/healthz").status == 200
    assert rig.get("/api/v1/overview", role="viewer").status == 200
    first, second = rig.starts()
    assert first != second
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_one_that_was_killed_from_outside_is_replaced(rig):
    pid = rig.get("/api/v1/overview", role="viewer").json["pid"]
    os.kill(pid, 9)
    wait_for("another answers", lambda: rig.get("/api/v1/overview", role="viewer").status == 200)
    assert len(rig.starts()) == 2


def test_a_hanging_one_is_killed_in_its_time_and_another_answers(tmp_path):
    with edge(tmp_path, ask_s=0.3) as rig:
        pid = rig.get("/api/v1/overview", role="viewer").json["pid"]  # a first answer is given more time
        assert rig.get("/api/v1/runs/hang", role="viewer").status == 503
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        wait_for("another answers", lambda: rig.get("/api/v1/overview", role="viewer").status == 200)
        assert rig.starts()[0] == pid
        assert len(rig.starts()) == 2


@contextlib.contextmanager
def hanging(rig, ask):
    """While a request hangs, whatever the machine's load: it ends with the port."""

    def until_the_end():
        with contextlib.suppress(OSError, http.client.HTTPException):  # the port ends before it
            ask()

    asking = threading.Thread(target=until_the_end)
    asking.start()
    try:
        wait_for("it hangs", (rig.folder / "hangs").exists)
        yield
        assert asking.is_alive()
    finally:
        rig.server.stop()
        asking.join()


def test_health_never_waits_for_a_hanging_one(rig):
    rig.token("viewer")
    with hanging(rig, lambda: rig.get("/api/v1/runs/hang", role="viewer")):
        for path in ("/healthz", "/readyz", "/metrics") * 3:
            assert rig.get(path).status == 200


def test_a_file_that_takes_long_to_verify_holds_up_nobody_who_asks_of_the_books(rig):
    def verify():
        rig.post("/api/v1/verify", b"hang", role="auditor", Content_Type="application/octet-stream")

    rig.token("viewer")
    with hanging(rig, verify):
        assert rig.get("/api/v1/overview", role="viewer").status == 200


def test_one_that_does_not_start_is_not_started_at_each_request(tmp_path):
    with edge(
        tmp_path, worker=(sys.executable, "-c", f"open({str(tmp_path / 'starts')!r}, 'a').write('1\\n')")
    ) as rig:
        assert [rig.get("/api/v1/overview", role="viewer").status for _ in range(20)] == [503] * 20
        assert rig.get("/healthz").status == 200
        assert len(rig.starts()) < 5
    with edge(tmp_path, worker=(str(tmp_path / "nothing"),)) as rig:
        assert rig.get("/api/v1/overview", role="viewer").status == 503


def test_a_child_is_buried_once(monkeypatch):
    """By who watches for it: where another had looked first, the log would speak of a stranger's process."""

    async def main():
        code = "import sys; sys.stdout.write('x' * 1_000_000); sys.stdin.read()"  # its pipe is full, and nobody reads
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=PIPE, stdout=PIPE)
        looked = []
        monkeypatch.setattr(child._transport._proc, "poll", lambda: looked.append(child.returncode))
        await offices.ended(child)
        return child.returncode, looked

    assert asyncio.run(main()) == (-9, [None])  # once, before it is killed: kill() does that itself


def test_it_ends_with_the_port(tmp_path):
    with edge(tmp_path) as rig:
        pid = rig.get("/api/v1/overview", role="viewer").json["pid"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_it_says_in_headers_cannot_make_more_of_them(rig):
    said = rig.get("/api/v1/runs/header", role="viewer")
    assert said.headers["x-good"] == "yes"
    assert "x-bad" not in said.headers
    assert "set-cookie" not in said.headers


def test_it_inherits_no_word_of_systemd(rig, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "@nobody")
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    pid = rig.get("/api/v1/overview", role="viewer").json["pid"]
    environ = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"NOTIFY_SOCKET" not in environ
    assert b"WATCHDOG" not in environ


def test_so_many_wait_and_whoever_comes_beyond_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(offices, "MAX_WAITING", 2)

    async def main():
        office = Office((sys.executable, str(WORKER), str(tmp_path)), ask_s=0.3, first_s=0.3, wait_s=0.1)
        asked = [
            asyncio.create_task(office.ask(Question("GET", ("runs", name))))
            for name in ("hang", "next", "beyond")
        ]
        found = await asyncio.gather(*asked, return_exceptions=True)
        await office.stop()
        with pytest.raises(Refused):
            await office.ask(Question("GET", ("runs",)))
        return [(e.status, e.detail) for e in found]

    hanging, waiting, beyond = asyncio.run(main())
    assert hanging == (503, "the answer took more than 0 s")
    assert waiting[1].startswith("the books are being read")
    assert beyond[1].startswith("many are waiting")


def test_a_question_that_fits_no_frame_is_the_askers_fault(tmp_path):
    async def main():
        office = Office((sys.executable, str(WORKER), str(tmp_path)))
        with pytest.raises(Refused) as e:
            await office.ask(Question("GET", ("x" * 200_000,)))
        assert office.starts == 0
        return e.value.status

    assert asyncio.run(main()) == 400
