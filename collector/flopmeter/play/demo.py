"""`flopmeter demo`: play the script's history through the real path, show it, then go on live."""

import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from flopmeter.collector.report.queries import document

from . import page, scenario, snapshot, story
from .cluster import Cluster
from .place import Place, place
from .progress import Progress
from .scenario import Scenario
from .screen import Screen, final
from .view import Picture

#: Beside the books.
LOG = "demo.log"
_REDRAW_S = 0.7
_TICK_S = 1.0
_PLAIN_LINE_S = 30.0
_SECOND_NS = 1_000_000_000


def run(
    script: Scenario, *, once: bool, directory: Path | None, quiet: bool, shown: bool = False
) -> dict[str, Any]:
    """The demo; returns the document of its books at the end. `quiet`: nothing but that is wanted.

    One that goes on is `shown` in a browser too, where there is one.
    """
    with place(directory, keep=not quiet) as where, _logged(where.path / LOG):
        http = "" if once else page.address()
        with Cluster(script, where.path, present(time.time_ns()), http) as cluster:
            link = "" if once else page.link(cluster.http_address, cluster.store, lambda: cluster.now_unix_ns)
            if link:
                _say([f"the page: {link}", ""])
                if shown:
                    page.show(link)
            _history(cluster, link, quiet=quiet)
            if not once:
                _live(cluster, where, link)
            result = document(cluster.store, cluster.now_unix_ns)
            picture = None if quiet else _picture(cluster, "as of the end of the demo", live=not once)
        if picture is not None:
            _say(_leaving(picture, where, link))
        return result


def present(unix_ns: int) -> int:
    """When the history ends: at a whole second, as exact as its end is told with --json, and within an hour of UTC,
    because the last readings are those of an hour that has begun.
    """
    second = unix_ns // _SECOND_NS
    return (second - (second % 3_600 == 0)) * _SECOND_NS


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """What the collector has to say goes there: on the screen it would stand in the middle of the picture."""
    handler = logging.FileHandler(path, delay=True, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _history(cluster: Cluster, link: str, *, quiet: bool) -> None:
    days = cluster.scenario.hours // scenario.DAY_HOURS
    screen = Screen(wanted=not quiet)
    plain = quiet or screen.on
    with screen, Progress("playing the history", cluster.scenario.readings, quiet=plain) as progress:
        drawn_at = 0.0

        def after_chunk(readings: int) -> None:
            nonlocal drawn_at
            progress.update(readings)
            if screen.on and time.monotonic() >= drawn_at + _REDRAW_S:
                drawn_at = time.monotonic()
                hours = (cluster.now_unix_ns - cluster.start_unix_ns) // scenario.HOUR_NS
                mode = f"history, day {min(days, hours // scenario.DAY_HOURS + 1)} of {days}"
                done = readings * 1_000_000 // cluster.scenario.readings
                screen.show(
                    lambda: snapshot.with_hints(
                        _picture(cluster, mode, live=False, progress_ppm=done), (), link
                    )
                )

        cluster.history(after_chunk)


def _live(cluster: Cluster, where: Place, link: str) -> None:
    """A reading of every GPU each second until Ctrl-C."""
    cluster.go_live()
    hints = tuple(_commands(where))
    try:
        with Screen() as screen:
            if not screen.on:
                _say(["live: a reading a second; Ctrl-C ends it", *hints])
            said_at = due = time.monotonic()
            while True:
                cluster.live(time.time_ns())
                screen.show(
                    lambda: snapshot.with_hints(
                        _picture(cluster, "live, a reading a second", live=True), hints, link
                    )
                )
                if not screen.on and time.monotonic() >= said_at + _PLAIN_LINE_S:
                    said_at = time.monotonic()
                    _say([_plain_line(_picture(cluster, "live", live=True))])
                due = max(due + _TICK_S, time.monotonic())
                time.sleep(max(0.0, due - time.monotonic()))
    except KeyboardInterrupt:
        return


def _picture(cluster: Cluster, mode: str, *, live: bool, progress_ppm: int = 1_000_000) -> Picture:
    return snapshot.take(cluster.store, cluster.now_unix_ns, mode=mode, live=live, progress_ppm=progress_ppm)


def _plain_line(picture: Picture) -> str:
    from flopmeter.cli.output import flop_text

    from .paint import clock_text, rate_text

    runs = "  ".join(
        f"{r.name} {flop_text(r.point)} FLOP ({rate_text(r.rate_flop_per_s)})" for r in picture.runs
    )
    return f"{clock_text(picture.unix_ns)}  {picture.nodes_live} live, {picture.nodes_silent} silent  {runs}"


def _leaving(picture: Picture, where: Place, link: str) -> Sequence[str]:
    """The last picture, and what can be done with what is left."""
    # Commands are printed whole, however narrow the screen: they are there to be pasted.
    title, *commands = _commands(where)
    kept = "is yours" if where.named else "stays until the next demo"
    return [
        *final(picture, sys.stdout),
        f" {title}",
        *(f"   {command}" for command in commands),
        "",
        *_page_again(where, link),
        "",
        f" The books are in {where.path}, which {kept}.",
        " Its nodes are silent from now on: nobody meters them any more.",
    ]


def _page_again(where: Place, link: str) -> Sequence[str]:
    """How to see the page, now that the demo has ended, and how to let somebody else see it."""
    name, store = _invoked(), f"--store {where.path}"
    http = link.removeprefix("http://").partition("/")[0]
    at = f" --http {http}" if link and http != f"{page.HOST}:{page.PORT}" else ""
    opened = [f"   {link}"] if link else [f"   http://{page.HOST}:{page.PORT}/"]
    return [
        " The web page of these books, for as long as this serves it:",
        f"   {name} collector serve {store}{at}",
        *opened,
        " A token for a colleague to open it with" + (":" if link else ", or for you:"),
        f"   {name} collector token create --role viewer --name colleague {store}",
    ]


def _commands(where: Place) -> Sequence[str]:
    name = _invoked()
    store = f"--store {where.path}"
    return (
        "What to try next:",
        f"{name} runs show {story.PRETRAIN} {store}",
        f"{name} runs list {store}",
        f"{name} events list {store}",
        f"{name} fleet list {store}",
        f"{name} collector fsck {store}",
    )


def _invoked() -> str:
    """How this command was called, so that what is printed can be pasted."""
    called = Path(sys.argv[0])
    found = shutil.which("flopmeter")
    if called.name != "flopmeter" or (found and Path(found).samefile(called)):
        return "flopmeter"
    with_slash = os.path.relpath(called)
    return with_slash if len(with_slash) < len(str(called)) else str(called)


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(line)
