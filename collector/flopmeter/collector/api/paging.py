"""Pages of lists, by cursors that stay good while the books grow. Pure.

A cursor of runs names an order of names that was made once, and how far into it the page came: whatever grows or
shrinks meanwhile, nothing comes twice and nothing is left out. Other lists are only ever appended to, so that a number is
enough.
"""

import base64
import binascii
import json
from collections import OrderedDict
from collections.abc import Sequence
from secrets import token_hex
from typing import Any

from .problems import bad

_HINT = "take `next` of the answer before as it is, or leave `after` out to begin anew"


def cursor(value: Any) -> str:
    """As clients are given it; they need not know what is in it."""
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")


def read_cursor(text: str) -> Any:
    """Raises Problem for what is none."""
    try:
        return json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError) as e:
        raise bad("after: expected the `next` of an answer, got another text", _HINT) from e


def number_of(text: str) -> int:
    """The number in a cursor that holds nothing else."""
    value = read_cursor(text)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise bad("after: expected the `next` of an answer to this list, got another's", _HINT)
    return value


class Orders:
    """Orders of names that somebody is paging through; the one asked longest ago is given up first."""

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._kept: OrderedDict[str, tuple[str, Sequence[str]]] = OrderedDict()
        self._mine = token_hex(4)  # another process counts from one too
        self._made = 0

    def keep(self, whose: str, names: Sequence[str]) -> str:
        """Its key, the same for the same order. `whose`: what was asked, and by which tenant; the key is good for that alone."""
        for key, kept in self._kept.items():
            if kept == (whose, names):
                self._kept.move_to_end(key)
                return key
        self._made += 1
        key = f"{self._mine}-{self._made}"
        self._kept[key] = whose, names
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return key

    def find(self, whose: str, text: str) -> tuple[str, Sequence[str], int]:
        """(key, order, how far). Raises Problem where it is not kept any more, or was made for another question."""
        value = read_cursor(text)
        if (
            not isinstance(value, list)
            or len(value) != 2
            or not isinstance(value[0], str)
            or type(value[1]) is not int
            or value[1] < 0
        ):
            raise bad("after: expected the `next` of an answer to this list, got another's", _HINT)
        kept = self._kept.get(value[0])
        if kept is None or kept[0] != whose:
            raise bad("after: expected the `next` of an answer to the same question, not long ago", _HINT)
        self._kept.move_to_end(value[0])
        return value[0], kept[1], value[1]
