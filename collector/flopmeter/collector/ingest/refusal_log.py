"""Who was refused and why, for the operator's log: each agent and reason now and then, and never a flood."""

import logging

log = logging.getLogger(__name__)

#: One agent refused for one reason is named once in this time; agents come again every minute or so.
REPEAT_S = 600.0
#: At most so many lines a minute, whoever comes: anybody can make keys.
LINES_A_MINUTE = 20
_MINUTE_S = 60.0
#: Agents and reasons remembered; past this all are forgotten, and the lines a minute still hold.
MAX_REMEMBERED = 10_000


class RefusalLog:
    """Call `say` for every refusal; it decides what is worth a line. One thread only."""

    def __init__(self) -> None:
        self._said: dict[tuple[bytes, str], float] = {}
        self._minute_s = -_MINUTE_S
        self._lines = 0
        self._held_back = 0

    def say(self, key: bytes, who: str, code: str, message: str, now_s: float, *, address: str = "") -> None:
        """`key` is the agent's public key, as it says; `now_s` a clock that only goes forward.

        Who has no key yet is told apart by `address`.
        """
        named = key or address.encode()
        if now_s - self._said.get((named, code), -REPEAT_S) < REPEAT_S:
            return
        if now_s - self._minute_s >= _MINUTE_S:
            if self._held_back:
                log.warning("%d more refusals of other agents were not named", self._held_back)
            self._minute_s, self._lines, self._held_back = now_s, 0, 0
        if self._lines >= LINES_A_MINUTE:
            self._held_back += 1
            return
        self._lines += 1
        if len(self._said) >= MAX_REMEMBERED:
            self._said.clear()
        self._said[named, code] = now_s
        # What strangers send is quoted: no line of theirs may look like one of ours.
        log.warning("refused %r, public key %s: %s: %.600r", who, key.hex() or "none", code, message)
