"""A lab without sockets: a store with its log, witnesses in this process, and a client that asks them."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from collector_log import LoggedStore
from witness_rig import Clock, Log, a_witness, keys

from flopmeter.collector.log.call import Reply
from flopmeter.collector.log.witnesses import Standing, Witnesses, read_policy
from flopmeter.witness.keys import Key as WitnessKey
from flopmeter.witness.request import parse
from flopmeter.witness.witness import Witness


class Lab:
    """A store, witnesses in this process, and a client that asks them without sockets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = LoggedStore(folder / "lab", folder / "keys").grow(3)
        self.store.seal()
        self.witnesses: dict[str, Witness] = {}
        self.asked: list[tuple[str, int]] = []  # host, old size
        self.instead: dict[str, Callable[[bytes], Reply]] = {}
        self.now_s = 0.0
        self._stack = ExitStack()

    def witness(self, name: str, **more: bool) -> list[WitnessKey]:
        ours = keys(f"{name}.example", seed=name.encode().ljust(32, b"!"), **more)
        logs = Log("lab.example/log", self.store.signer.private.private_bytes_raw())
        self.witnesses[name], heads = a_witness(self.folder / f"{name}.db", logs, ours=ours, clock=Clock())
        self._stack.enter_context(closing(heads))
        return ours

    def policy(self, quorum: str = "all", *more: str) -> Path:
        lines = [f"log {self.store.vkey}"]
        for name in self.witnesses:
            for i, key in enumerate(keys(f"{name}.example", seed=name.encode().ljust(32, b"!"))):
                lines.append(f"witness {name}{i or ''} {key.vkey} https://{name}.example/w")
        lines += [*more, f"group those {quorum} {' '.join(self.witnesses)}", "quorum those"]
        path = self.folder / "policy"
        path.write_text("\n".join(lines) + "\n")
        return path

    def call(self, to: object, body: bytes) -> Reply:
        name = to.host.removesuffix(".example")
        self.asked.append((name, parse(body).old_size))
        if name in self.instead:
            return self.instead[name](body)
        answer = self.witnesses[name].add_checkpoint(body)
        return Reply(answer.status, answer.content_type.split(";")[0], answer.body)

    def client(self, policy: Path | None = None) -> Witnesses:
        return Witnesses(
            read_policy(policy or self.policy()),
            self.store.vkey,
            call=self.call,
            monotonic_s=lambda: self.now_s,
            unix_ns=lambda: 1_790_000_000_000_000_000 + int(self.now_s * 1e9),
            timeout_s=5.0,
        )

    def ask(self, client: Witnesses, store: LoggedStore | None = None) -> Standing:
        self.now_s += 1
        with closing((store or self.store).open()) as db:
            return client.ask(db)

    def close(self) -> None:
        self._stack.close()
