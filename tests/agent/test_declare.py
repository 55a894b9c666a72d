"""The helper for training code: it says what it is given, and whatever happens training goes on."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.agent import declare as module
from flopmeter.agent.declare import NEWS_PERIOD_S, PERIOD_S, SOCKET_VARIABLE, declare
from flopmeter.agent.workloads.claims import parse_claim
from flopmeter.agent.workloads.declare_socket import DeclareSocket


class Counting:
    """Stands in for `socket.socket`: counts what would be system calls."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.fails: type[Exception] | None = None

    def sendto(self, datagram: bytes, path: str) -> None:
        self.sent.append(datagram)
        if self.fails:
            raise self.fails


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    fake = Counting()
    said = module._Said()
    said._socket = fake  # type: ignore[assignment]
    monkeypatch.setattr(module, "_said", said)
    return fake


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [1_000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    yield now
    monkeypatch.undo()


@pytest.fixture
def listening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeclareSocket]:
    path = tmp_path / "s"
    monkeypatch.setenv(SOCKET_VARIABLE, str(path))
    monkeypatch.setattr(module, "_said", module._Said())
    there = DeclareSocket(path)
    yield there
    there.close()
    if module._said._socket is not None:
        module._said._socket.close()


def test_what_it_says_is_what_the_agent_takes(listening: DeclareSocket) -> None:
    assert declare(run="llama-70b", dtype="bf16", purpose="pretraining", parameters=70_000_000_000)
    assert declare(tokens=5_000_000, at_once=True)
    (pid, first), (_, second) = listening.take(9)
    assert pid == os.getpid()
    assert parse_claim(first) == {
        "run": "llama-70b", "dtype": "bf16", "purpose": "pretraining", "parameters": 70_000_000_000,
    }  # fmt: skip
    assert parse_claim(second) == parse_claim(first) | {"tokens": 5_000_000}  # an agent may have begun since


def test_a_fork_speaks_for_itself(listening: DeclareSocket) -> None:
    declare(run="a")
    child = os.fork()
    if not child:
        os._exit(0 if declare(run="b") or declare(tokens=1, at_once=True) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert [pid for pid, _ in listening.take(9)] == [os.getpid(), child]


def test_one_datagram_in_ten_seconds_however_often_it_is_called(
    counting: Counting, clock: list[float]
) -> None:
    for step in range(10_000):
        declare(tokens=step)
        clock[0] += 0.01  # 100 steps a second
    assert 100 / PERIOD_S <= len(counting.sent) <= 100 / PERIOD_S + 1
    assert json.loads(counting.sent[-1])["tokens"] >= 9_000 - 1


def test_news_goes_out_at_once_but_for_one_a_second(counting: Counting, clock: list[float]) -> None:
    assert declare(run="a", tokens=1)
    assert not declare(run="b")
    clock[0] += NEWS_PERIOD_S
    assert declare(tokens=2)
    assert json.loads(counting.sent[-1]) == {"v": 1, "run": "b", "tokens": 2}
    for step in range(1_000):
        declare(run=f"r{step}")
        clock[0] += 0.01
    assert len(counting.sent) <= 2 + 10


@pytest.mark.parametrize(
    "error", [FileNotFoundError, ConnectionRefusedError, BlockingIOError, OSError, ValueError]
)
def test_where_nobody_takes_it_nothing_is_raised_and_it_is_not_tried_more_often(
    counting: Counting, clock: list[float], error: type[Exception]
) -> None:
    counting.fails = error
    declare(run="a")
    del counting.sent[:]
    clock[0] += NEWS_PERIOD_S
    for step in range(10_000):
        assert declare(tokens=step) is False
        clock[0] += 0.001
    assert len(counting.sent) <= 10 / NEWS_PERIOD_S + 1
    counting.fails = None
    clock[0] += PERIOD_S
    assert declare(tokens=9) is True  # an agent that came later hears all of it
    assert json.loads(counting.sent[-1]) == {"v": 1, "run": "a", "tokens": 9}


class Tensor:
    """As a count that lies on a GPU: to look into it waits for the GPU."""

    def __index__(self) -> int:
        raise AssertionError("looked into")

    __int__ = __float__ = __bool__ = __index__

    def __eq__(self, other: object) -> bool:
        raise AssertionError("looked into")

    __hash__ = None  # type: ignore[assignment]


def test_a_tensor_is_not_looked_into(counting: Counting, clock: list[float]) -> None:
    assert declare(tokens=Tensor(), run=Tensor(), parameters=7e9) is True  # type: ignore[arg-type]
    assert json.loads(counting.sent[-1]) == {"v": 1, "parameters": 7_000_000_000}


anything = st.none() | st.text() | st.integers() | st.floats() | st.binary() | st.lists(st.integers())


@given(run=anything, tokens=anything, ranks=anything)
def test_nothing_that_is_given_makes_it_raise(run: object, tokens: object, ranks: object) -> None:
    before, module._said = module._said, module._Said()
    module._said._socket = Counting()  # type: ignore[assignment]
    try:
        declare(run=run, tokens=tokens, ranks=ranks, at_once=True)  # type: ignore[arg-type]
    finally:
        module._said = before


def test_a_socket_that_is_full_or_is_none_does_not_make_it_wait(tmp_path: Path) -> None:
    """In a process of its own, with a deadline: were it to wait, it would for ever."""
    full = tmp_path / "full"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nobody_reads:
        nobody_reads.bind(str(full))
        code = (
            "import os\n"
            "from flopmeter.agent.declare import declare\n"
            "def many(path):\n"
            "    os.environ['FLOPMETER_DECLARE_SOCKET'] = path\n"
            "    return sum(declare(run='r', tokens=n, at_once=True) for n in range(5_000))\n"
            f"print(many({str(full)!r}), many('/nowhere'), many({str(tmp_path)!r}), many('x' * 300))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
        )
    taken, *none = map(int, done.stdout.split())
    assert 0 < taken < 5_000
    assert none == [0, 0, 0]


def test_it_needs_nothing_but_the_standard_library() -> None:
    code = (
        "import sys\nfrom flopmeter.agent.declare import declare\n"
        "own = {m.partition('.')[0] for m in sys.modules} - sys.stdlib_module_names - {'__main__'}\n"
        "print(sorted(m for m in sys.modules if m.startswith('flopmeter')), sorted(own & {'click', 'google', 'grpc',"
        " 'pynvml', 'nacl', 'psutil'}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split("] [") == ["['flopmeter', 'flopmeter.agent', 'flopmeter.agent.declare'", "]\n"]
