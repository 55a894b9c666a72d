"""The evidence log by itself: its rows without holes, the tree over their leaves, the stored tiles, every signed head."""

from collections.abc import Callable
from typing import Any, NamedTuple

from flopmeter.collector.log.entry import BATCH, KINDS

from .log_heads import Said, check_heads
from .log_tree import TILE_HEIGHT, Growing
from .rederive import Difference, compare

HASH_BYTES = 32


class Range(NamedTuple):
    """A row of the log: leaves of one kind, with consecutive numbers and indexes."""

    first_number: int
    leaves: int
    first_index: int


class LogTree:
    """What `walk` has found good so far, also where it ends with a Difference."""

    def __init__(self, rows: Callable[..., Any]) -> None:
        """`rows` runs a statement: sqlite3's execute, or a reader's."""
        self._rows = rows
        self.leaves = 0
        self.heads = 0
        #: Leaves under the newest head that the log's key signed.
        self.covered = 0
        #: Of every kind but batch, in the order of their numbers.
        self.ranges: dict[str, list[Range]] = {k.name: [] for k in KINDS if k.name != BATCH}
        self.said = Said()

    def walk(self) -> None:
        """Rows without holes, and the tree over them: at each head's size its root is the head's. Raises Difference."""
        tree = Growing()
        heads = check_heads(self._rows, self.said)
        head = next(heads, None)
        numbers = dict.fromkeys((k.name for k in KINDS), 1)
        for index, kind, number, count, hashes in self._rows(
            "SELECT first_index, kind, first_number, count, hashes FROM log ORDER BY first_index"
        ):
            key = f"first_index {index}"
            if kind not in numbers:
                raise Difference("log", key, "kind", f"one of {', '.join(numbers)}", kind)
            compare(
                "log",
                key,
                [
                    ("first_index", tree.size, index),
                    ("first_number", numbers[kind], number),
                    ("hashes, their bytes", HASH_BYTES * count, len(hashes)),
                ],
            )
            numbers[kind] += count
            if kind != BATCH:
                self.ranges[kind].append(Range(number, count, index))
            for at in range(0, len(hashes), HASH_BYTES):
                tree.add(hashes[at : at + HASH_BYTES])
                while head is not None and head.size == tree.size:
                    compare("checkpoints", head.name, [("root", tree.root, head.root)])
                    self.covered, self.heads = head.size, self.heads + 1
                    head = next(heads, None)
        self.leaves = tree.size
        if head is not None:
            raise Difference(
                "checkpoints", head.name, "size", f"at most {tree.size}, the leaves there are", head.size
            )
        self._tiles(tree)

    def _tiles(self, tree: Growing) -> None:
        """Stored subtrees are the tree's, and reach as far as the newest head."""
        stored: dict[int, bytes] = {}
        for level, number, hashes in self._rows(
            "SELECT level, number, hashes FROM tiles ORDER BY level, number"
        ):
            before, name = stored.get(level, b""), f"level {level}, number {number}"
            derived = bytes(tree.levels.get(level, b""))[len(before) : len(before) + len(hashes)]
            places = (number, 0), divmod(len(before), HASH_BYTES << TILE_HEIGHT)
            compare(
                "tiles",
                name,
                [("number, behind a full one", *reversed(places)), ("hashes", derived, bytes(hashes))],
            )
            stored[level] = before + hashes
        level = 1
        while owed := self.covered >> TILE_HEIGHT * level:
            got = len(stored.get(level, b"")) // HASH_BYTES
            if got < owed:
                raise Difference("tiles", f"level {level}", "hashes", f"{owed}, up to the newest head", got)
            level += 1


def walk_log(rows: Callable[..., Any]) -> LogTree:
    """The whole log, if it is good. Raises Difference."""
    tree = LogTree(rows)
    tree.walk()
    return tree
