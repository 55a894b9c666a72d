"""The process that answers: `python -m flopmeter.collector.api.worker --store FILE`. Frames in, frames out, in turn.

It only reads the store, but for what people answer to events and deadlines, and ends when its parent closes the pipe.
"""

import gc
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from .answering import answer
from .books import Books
from .question import FrameError, answer_bytes, question_of, read_frame

log = logging.getLogger(__name__)
#: Between two looks whether the books moved.
LOOK_S = 1.0
#: Making a view again takes at most one part in so many of this process's time: while somebody asks, and while nobody does.
ASKED_PART, IDLE_PART = 5.0, 40.0
#: After how long nobody asks.
IDLE_AFTER_S = 60.0
#: How old lines get while nobody asks, at least.
IDLE_S = 20.0
#: A watcher, and a scrape every 15 s for ever, are nobody who looks at lines.
_NOBODY = (("state",), ("metrics-of-runs",))


class PlayedClock:
    """This machine's, less what the last question said that the books' is behind it (a history that is played)."""

    def __init__(self) -> None:
        self.behind_ns = 0

    def __call__(self) -> int:
        return time.time_ns() - self.behind_ns


class Pace:
    """When the view is made again next. Times are of one monotonic clock, in seconds. Pure."""

    def __init__(self) -> None:
        self._asked_s = 0.0
        self._made_s, self._cost_s = -1e9, 0.0

    def asked(self, at_s: float) -> None:
        self._asked_s = at_s

    def made(self, at_s: float, cost_s: float) -> None:
        self._made_s, self._cost_s = at_s, cost_s

    def due(self, at_s: float) -> bool:
        """Whether it may be made again."""
        idle = at_s - self._asked_s > IDLE_AFTER_S
        pause = max(IDLE_S, IDLE_PART * self._cost_s) if idle else max(LOOK_S, ASKED_PART * self._cost_s)
        return at_s - self._made_s >= pause


def keep_fresh(
    books: Books,
    pace: Pace,
    stop: threading.Event,
    monotonic: Callable[[], float] = time.monotonic,
    made: Callable[[], object] | None = None,
) -> None:
    """Make the view again whenever it is due, and read long curves ahead between, until `stop`. A store that cannot be read
    is asked again. `made` is called behind each view.
    """
    failed = False
    while not stop.wait(LOOK_S):
        due, begun = pace.due(monotonic()), monotonic()
        try:
            if due:
                if books.refresh() and made is not None:
                    made()
                failed = False
            else:
                books.read_ahead()
        except Exception as e:  # noqa: BLE001 - the pages stay, and the next look may come to more
            if not failed:
                log.warning("the pages stay as they are: %s: %s", type(e).__name__, e)
            failed = True
        if due:
            pace.made(monotonic(), monotonic() - begun)


def tidy() -> None:
    """Look for cycles that nobody needs in all that is kept, and then leave it alone: in a process of 12,500 nodes that takes
    a tenth of a second, which would else come within somebody's answer.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def serve(books: Books, pace: Pace, clock: PlayedClock, take: BinaryIO, give: BinaryIO) -> None:
    """Answer frame after frame, until the pipe ends. Raises FrameError for what is none."""
    while (frame := read_frame(take)) is not None:
        question = question_of(*frame)
        clock.behind_ns = question.behind_ns
        if question.segments not in _NOBODY:
            pace.asked(time.monotonic())
        give.write(answer_bytes(answer(question, books)))
        give.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    import argparse

    parser = argparse.ArgumentParser(prog="flopmeter.collector.api.worker", allow_abbrev=False)
    for name, required in (
        ("--store", True),
        ("--regimes", False),
        ("--regime-key", False),
        ("--expect", False),
        ("--sites", False),
        ("--keys", False),
    ):
        parser.add_argument(name, type=Path, required=required)
    parser.add_argument("--apart", action="store_true", help="for what needs no books: none are kept ready")
    flags = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    take, give = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # a print of anybody's must not stand between two frames
    clock = PlayedClock()
    books = Books(
        flags.store,
        regimes=flags.regimes,
        regime_key=flags.regime_key,
        expect=flags.expect,
        sites=flags.sites,
        keys=flags.keys,
        fresh=False,
        clock=clock,
    )
    pace, stop = Pace(), threading.Event()
    if not flags.apart:
        threading.Thread(
            target=keep_fresh, args=(books, pace, stop, time.monotonic, tidy), daemon=True
        ).start()
    try:
        serve(books, pace, clock, take, give)
    except (FrameError, BrokenPipeError) as e:
        log.warning("%s", e)
        sys.exit(1)
    finally:
        stop.set()


if __name__ == "__main__":
    main()
