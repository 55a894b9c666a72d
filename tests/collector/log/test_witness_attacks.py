"""Attacks on a running collector with a real witness: played whole, by processes or threads on loopback.

reference/attestation.md 5: rollback, split view, and what neither shows without a witness.
"""

import json
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from builders import Chain
from processes import COMMAND, wait_for
from receivers import raw_server
from serving import settings_for
from wire_client import WireClient
from witness_rig import keys

from flopmeter.collector.running import RunningCollector, run_collector
from flopmeter.evidence.note import parse_checkpoint, parse_key, parse_policy, signers

ORIGIN = "lab.example/log"


@contextmanager
def collector(folder: Path, **more: object) -> Iterator[RunningCollector]:
    with run_collector(settings_for(folder, log_origin=ORIGIN, checkpoint_s=60, **more)) as found:
        yield found


def ship(served: RunningCollector, chain: Chain, records: int = 1) -> None:
    """Until acknowledged, and then a head over it."""
    with WireClient(served.address, chain) as client:
        client.hello()
        for _ in range(records):
            client.records(chain.next())
        client.ack(chain.seq)
    assert served.seal() is not None


def query(folder: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "b.db")) as db:
        return db.execute(sql).fetchall()


def forks(folder: Path) -> list[str]:
    """What the collector's operator is told."""
    return [
        json.loads(str(d))["message"]
        for (d,) in query(folder, "SELECT data FROM events WHERE type = 'evidence.fork'")
    ]


def sound(folder: Path) -> bool:
    """What fsck says: the books are whole, also of a store that was set back."""
    done = subprocess.run(
        [COMMAND, "collector", "fsck", "--store", folder / "b.db"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return True


def witnessed(folder: Path) -> dict[int, int]:
    """Cosignatures by size of the head."""
    return dict(
        query(
            folder,
            "SELECT size, count(*) FROM checkpoints JOIN cosignatures USING (checkpoint_no) GROUP BY size",
        )
    )  # type: ignore[arg-type]


class Lab:
    """A folder for a collector, and witnesses as processes."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.home, self._folder, self._stack = folder / "lab", folder, stack
        self.home.mkdir()
        self.chain = Chain("n1")
        with collector(self.home) as served:  # a log has its key from its first head on
            ship(served, self.chain)
        ((self.vkey,),) = query(self.home, "SELECT vkey FROM log_identity")
        self.urls: dict[str, str] = {}
        self.vkeys: dict[str, str] = {}

    def witness(self, name: str) -> subprocess.Popen[str]:
        """Start it, or start it again."""
        state, key = self._folder / f"{name}.db", self._folder / f"{name}.key"
        if not key.exists():
            made = self.run("key", "new", str(key), "--name", f"{name}.example")
            self.vkeys[name] = made.strip()
        listen = self.urls.get(name, "http://127.0.0.1:0").removeprefix("http://")
        process = subprocess.Popen(
            [COMMAND, "witness", "serve", "--key", key, "--state", state, "--log", str(self.vkey), "--listen", listen],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._stack.callback(process.stderr.close)
        self._stack.callback(process.wait, 60)
        self._stack.callback(process.kill)
        assert process.stderr is not None
        line = next(line for line in process.stderr if "listening on" in line)
        self.urls[name] = line.split("listening on ")[1].strip()
        return process

    @staticmethod
    def run(*words: str) -> str:
        done = subprocess.run(
            [COMMAND, "witness", *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode in (0, 1), done.stderr
        return done.stdout

    def remembered(self, name: str) -> dict[str, list[dict[str, object]]]:
        """What the witness itself says that it has seen."""
        return json.loads(self.run("show", "--state", str(self._folder / f"{name}.db"), "--json"))

    def policy(self, quorum: str = "all", **others: str) -> Path:
        """`others`: URLs of what stands in the place of witnesses."""
        lines = [f"log {self.vkey}"]
        vkeys = self.vkeys | {
            n: keys(f"{n}.example", seed=n.encode().ljust(32, b"?"))[0].vkey for n in others
        }
        for name, url in (self.urls | others).items():
            lines.append(f"witness {name} {vkeys[name]} {url}")
        lines += [f"group those {quorum} {' '.join(self.urls | others)}", "quorum those"]
        path = self._folder / "policy"
        path.write_text("\n".join(lines) + "\n")
        return path

    def copy(self, name: str) -> Path:
        """Of the whole folder, as a backup or a fork: store and keys."""
        to = self._folder / name
        to.mkdir()
        with (
            closing(sqlite3.connect(self.home / "b.db")) as db,
            closing(sqlite3.connect(to / "b.db")) as other,
        ):
            db.backup(other)
        (to / "keys").mkdir(mode=0o700)
        for part in (self.home / "keys").iterdir():
            (to / "keys" / part.name).write_bytes(part.read_bytes())
            (to / "keys" / part.name).chmod(0o600)
        return to


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(tmp_path, stack)


def test_each_head_of_a_running_collector_is_cosigned_and_the_last_one_at_its_stop(lab: Lab) -> None:
    lab.witness("a")
    with collector(lab.home, witness_policy=lab.policy()) as served:
        ship(served, lab.chain, 2)
        wait_for("the first head is cosigned", lambda: witnessed(lab.home))
    note = query(
        lab.home,
        "SELECT note, line, size FROM checkpoints JOIN cosignatures USING (checkpoint_no) ORDER BY size DESC LIMIT 1",
    )
    text, line, size = note[0]
    found = parse_checkpoint(f"{text}{line}\n".encode())
    assert signers(found, [parse_key(lab.vkeys["a"])])
    assert size == query(lab.home, "SELECT max(size) FROM checkpoints")[0][0]
    assert parse_policy(lab.policy().read_bytes()).check(found)
    assert lab.remembered("a")["heads"][0]["size"] == str(size)


def test_a_collector_restored_from_an_older_copy_is_found_out(lab: Lab) -> None:
    lab.witness("a")
    policy = lab.policy()
    old = lab.copy("backup")
    with collector(lab.home, witness_policy=policy) as served:
        ship(served, lab.chain, 5)
        wait_for("cosigned", lambda: witnessed(lab.home))
    seen = max(witnessed(lab.home))
    with collector(old, witness_policy=policy) as served:  # it serves on: other agents' records come
        ship(served, Chain("n2"))
        wait_for("said to the operator", lambda: forks(old))
        for _ in range(4):
            ship(served, Chain("n3"), 5)
    assert query(old, "SELECT max(size) FROM checkpoints")[0][0] > seen
    assert witnessed(old) == {}
    (message,) = forks(old)
    assert "a.example refused our head" in message
    assert "restored copy" in message
    with collector(old, witness_policy=policy) as served:  # and after a start it is still one event
        served.seal()
    assert len(forks(old)) == 1
    assert sound(old)
    assert max(int(h["size"]) for h in lab.remembered("a")["heads"]) == seen


def test_a_split_view_is_witnessed_on_one_side_only(lab: Lab) -> None:
    lab.witness("a")
    policy, other = lab.policy(), lab.copy("other")
    with collector(lab.home, witness_policy=policy) as one, collector(other, witness_policy=policy) as two:
        sides = [(one, Chain("n2")), (two, Chain("n3"))]
        for turn in range(4):
            for served, chain in sides[:: 1 if turn % 2 else -1]:
                ship(served, chain, 1 + turn)
        wait_for("one of them is found out", lambda: forks(lab.home) or forks(other))
        wait_for("and one is cosigned", lambda: witnessed(lab.home) or witnessed(other))
    sizes = witnessed(lab.home), witnessed(other)
    for size in set(sizes[0]) & set(sizes[1]):  # before they parted
        roots = {query(f, f"SELECT root FROM checkpoints WHERE size = {size}")[0] for f in (lab.home, other)}
        assert len(roots) == 1
    assert sorted(map(bool, (forks(lab.home), forks(other)))) == [False, True]


def test_without_a_witness_the_same_is_undetected_and_the_program_claims_nothing(lab: Lab) -> None:
    old = lab.copy("backup")
    with collector(lab.home) as served:
        ship(served, lab.chain, 5)
    with collector(old) as served:
        ship(served, Chain("n2"), 9)
    assert forks(old) == []
    shown = subprocess.run(
        [COMMAND, "collector", "log", "show", "--store", old / "b.db"], capture_output=True, text=True
    )
    assert "cosigned by   nobody" in shown.stdout


def test_witnesses_that_are_dead_deaf_or_flooding_delay_nothing(lab: Lab) -> None:
    lab.witness("a")

    def deaf(connection: object, over: threading.Event) -> None:
        over.wait(60)

    def flood(connection: object, over: threading.Event) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while not over.is_set():
            connection.sendall(b"x" * 65_536)

    with raw_server(deaf) as one, raw_server(flood) as two:
        policy = lab.policy(
            "any", deaf=f"http://127.0.0.1:{one}", flood=f"http://127.0.0.1:{two}", dead="http://127.0.0.1:9"
        )
        with collector(lab.home, witness_policy=policy) as served:
            ship(served, lab.chain, 3)
            wait_for("the good one's is there", lambda: witnessed(lab.home))
            size = query(lab.home, "SELECT max(size) FROM checkpoints")[0][0]
            ship(served, lab.chain, 3)  # acknowledged and signed while they are waited for
            assert query(lab.home, "SELECT max(size) FROM checkpoints")[0][0] > size
            errors = lambda: dict(query(lab.home, "SELECT key_name, error FROM witnesses"))  # noqa: E731
            wait_for(
                "what each did is said", lambda: "dead.example" in errors() and "flood.example" in errors()
            )
            assert "more" in str(errors()["flood.example"])
            assert errors()["dead.example"]


def test_a_witness_killed_between_its_disk_and_its_answer(lab: Lab) -> None:
    """It has cosigned, and the collector does not hear of it: the next time it is proven from there."""
    process = lab.witness("a")
    real, kill = int(lab.urls["a"].rpartition(":")[2]), threading.Event()

    def between(connection: socket.socket, over: threading.Event) -> None:
        """Hands the request on; told to, it waits for the answer, kills the witness, and passes nothing on."""
        with socket.create_connection(("127.0.0.1", real), timeout=20) as witness:
            connection.settimeout(20)
            request = b""
            while b"\r\n\r\n" not in request or len(request.partition(b"\r\n\r\n")[2]) < length_of(request):
                request += connection.recv(65_536)
            witness.sendall(request)
            answer = witness.recv(65_536)  # it is on the witness's disk by now
            if kill.is_set():
                process.kill()
                process.wait(60)
                kill.clear()
                return
            while answer:
                connection.sendall(answer)
                answer = witness.recv(65_536)

    with raw_server(between) as port:
        policy = lab.policy()
        policy.write_text(policy.read_text().replace(lab.urls["a"], f"http://127.0.0.1:{port}"))
        with collector(lab.home, witness_policy=policy) as served:
            ship(served, lab.chain)
            wait_for("cosigned", lambda: witnessed(lab.home))
            kill.set()
            ship(served, lab.chain, 2)
            wait_for("killed", lambda: process.poll() is not None)
            unheard = int(str(lab.remembered("a")["heads"][0]["size"]))
            assert unheard == query(lab.home, "SELECT max(size) FROM checkpoints")[0][0]
            assert unheard not in witnessed(lab.home)
            lab.witness("a")
            ship(served, lab.chain, 2)
            wait_for("cosigned again", lambda: max(witnessed(lab.home)) > unheard)
    assert forks(lab.home) == []


def length_of(request: bytes) -> int:
    return int(request.lower().partition(b"content-length:")[2].split(b"\r\n")[0])


def test_metrics_and_what_people_see(lab: Lab) -> None:
    import urllib.request

    lab.witness("a")
    policy = lab.policy("all", dead="http://127.0.0.1:9")
    with collector(lab.home, witness_policy=policy) as served:
        ship(served, lab.chain)

        def scraped() -> str:
            with urllib.request.urlopen(f"http://{served.http_address}/metrics", timeout=60) as answer:
                return answer.read().decode()

        wait_for(
            "scraped",
            lambda: 'witness_failing{witness="dead"} 1.0' in scraped() and "witness_quorum 0.0" in scraped(),
        )
        text = scraped()
    assert 'flopmeter_collector_witness_refusing{witness="a"} 0.0' in text
    assert 'flopmeter_collector_witness_failing{witness="a"} 0.0' in text
    size = query(lab.home, "SELECT cosigned_size FROM witnesses WHERE key_name = 'a.example'")[0][0]
    assert isinstance(size, int)
    assert f'flopmeter_collector_witness_cosigned_size{{witness="a"}} {float(size)}' in text or size > 0
