"""Server-sent events: who listens is told that something changed, of what they may see, and not after their token's end."""

import asyncio
import http.client
import json

import pytest
from edge_rig import edge
from processes import wait_for

from flopmeter.collector.api.question import Answer
from flopmeter.collector.web import stream as streams
from flopmeter.collector.web.says import Refused
from flopmeter.collector.web.stream import Stream


class Listening:
    """A client that reads line by line."""

    def __init__(self, rig, **headers):
        self.connection = http.client.HTTPConnection("127.0.0.1", rig.server.port, timeout=60)
        self.connection.request(
            "GET", "/api/v1/stream", headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        self.answer = self.connection.getresponse()

    def next(self, wanted=b"data: "):
        while True:
            line = self.answer.readline()
            assert line, "it ended"
            if line.startswith(wanted):
                return line[len(wanted) :].strip()

    def close(self):
        self.answer.close()
        self.connection.close()


@pytest.fixture
def rig(tmp_path):
    with edge(tmp_path) as rig:
        yield rig


def test_a_page_is_told_of_each_change(rig):
    listening = Listening(rig, Cookie=rig.login("viewer"))
    try:
        assert listening.answer.status == 200
        assert listening.answer.headers["Content-Type"] == "text/event-stream"
        assert listening.answer.headers["Cache-Control"] == "no-store"
        assert listening.next(b"retry: ") == b"3000"
        assert listening.next(b"event: ") == b"changed"
        assert json.loads(listening.next()) == {"position": "0"}
        (rig.folder / "state").write_text('{\n"position": "7"}')
        assert json.loads(listening.next()) == {"position": "7"}
        late = Listening(rig, Authorization=f"Bearer {rig.token('viewer')}")
        try:
            assert json.loads(late.next()) == {"position": "7"}
        finally:
            late.close()
    finally:
        listening.close()
    assert len(rig.starts()) == 1


def test_a_tenant_is_told_of_its_own_state(rig):
    (rig.folder / "stateowner-lab").write_text('{"mark": "theirs"}')
    listening = Listening(rig, Authorization=f"Bearer {rig.token('viewer', 'owner:lab')}")
    try:
        assert json.loads(listening.next()) == {"mark": "theirs"}
    finally:
        listening.close()


def test_nobody_listens_without_a_token_or_from_another_site(rig):
    assert rig.get("/api/v1/stream").status == 401
    assert rig.get("/api/v1/stream", Cookie=rig.login(), Sec_Fetch_Site="cross-site").status == 403
    assert rig.get("/api/v1/stream?x=1", role="viewer").status == 400


def test_many_of_one_token_are_told_so_and_places_are_given_back(rig, monkeypatch):
    monkeypatch.setattr(streams, "MAX_OF_TOKEN", 2)
    listening = [Listening(rig, Authorization=f"Bearer {rig.token()}") for _ in range(2)]
    try:
        for one in listening:
            one.next()
        assert rig.get("/api/v1/stream", role="auditor").status == 429
        listening.pop().close()

        def place():
            one = Listening(rig, Authorization=f"Bearer {rig.token()}")
            status = one.answer.status
            one.close()
            return status == 200

        wait_for("the place is free again", place)
    finally:
        for one in listening:
            one.close()


def run(asked, main, **more):
    async def ask(question):
        asked.append(question.tenant)
        return Answer(200, "application/json", b"{}")

    async def whole():
        stream = Stream(ask, **{"look_s": 0.01, "beat_s": 0.02, **more})
        try:
            return await main(stream)
        finally:
            await stream.stop()

    return asyncio.run(whole())


def test_one_look_for_all_who_listen_and_none_when_nobody_does():
    asked = []

    async def still():
        return True

    async def main(stream):
        clients = [stream.events("t", "", still) for _ in range(20)]
        for client in clients:
            assert (await anext(client)).startswith(b"retry: ")
            assert (await anext(client)).startswith(b"event: changed")
            assert await anext(client) == b": here\n\n"
        looks = len(asked)
        assert stream.clients == 20
        for client in clients:
            await client.aclose()
        assert stream.clients == 0
        await asyncio.wait_for(stream._looking, 60)  # it ends by itself
        assert len(asked) <= looks + 20

    run(asked, main)
    assert set(asked) == {""}


def test_who_comes_with_many_others_at_once_is_counted_like_them():
    async def still():
        return True

    async def main(stream):
        clients = [
            stream.events("t", "", still) for _ in range(streams.MAX_OF_TOKEN)
        ]  # nobody is sent anything yet
        with pytest.raises(Refused):
            stream.events("t", "", still)
        for client in clients[:5]:
            await client.aclose()  # nothing of it was read, as with HEAD
        for client in [stream.events("t", "", still) for _ in range(5)]:
            assert (await anext(client)).startswith(b"retry: ")

    run([], main)


def test_a_change_of_one_tenants_is_no_others():
    states = {"owner:a": b"1", "owner:b": b"1"}

    async def ask(question):
        return Answer(200, "application/json", states[question.tenant])

    async def still():
        return True

    async def main():
        stream = Stream(ask, look_s=0.01, beat_s=0.02)
        one, other = (stream.events("t", tenant, still) for tenant in states)
        for client in (one, other):
            assert (await anext(client)).startswith(b"retry: ")
            assert await anext(client) == b"event: changed\ndata: 1\n\n"
        heard = []
        for number in range(5):
            states["owner:b"] = b"%d" % (number + 2)
            while (said := await anext(other)) == b": here\n\n":
                pass
            assert said == b"event: changed\ndata: %d\n\n" % (number + 2)
            heard.append(await anext(one))
        for client in (one, other):
            await client.aclose()
        await stream.stop()
        return heard

    assert asyncio.run(main()) == [b": here\n\n"] * 5


def test_it_ends_when_the_token_is_revoked_and_after_its_time():
    good = [True]

    async def still():
        return good[0]

    async def revoked(stream):
        parts = []
        async for part in stream.events("t", "", still):
            parts.append(part)
            if part == b": here\n\n":
                good[0] = False
        return parts

    assert run([], revoked)[-1] == b": here\n\n"
    good[0] = True

    async def busy(stream):
        said, end = 0, asyncio.get_running_loop().time() + 10
        good[0] = False
        async for _ in stream.events("t", "", still):  # something changes all the time: it is never silent
            stream._last[""] = b"%d" % (said := said + 1)
            for changed in stream._clients:
                changed.set()
            await asyncio.sleep(0.001)
            assert asyncio.get_running_loop().time() < end, "it goes on"
        return said

    assert run([], busy)
    good[0] = True

    async def over(stream):
        return [part async for part in stream.events("t", "", still)]

    assert run([], over, life_s=0.05)  # it ends by itself


def test_silence_while_nobody_answers():
    async def ask(question):
        raise Refused(503, "not now")

    async def still():
        return True

    async def main():
        stream = Stream(ask, look_s=0.01, beat_s=0.02)
        client = stream.events("t", "", still)
        parts = [await anext(client) for _ in range(3)]
        await client.aclose()
        await stream.stop()
        return parts

    assert asyncio.run(main())[1:] == [b": here\n\n"] * 2
