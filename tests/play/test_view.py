"""The terminal view as a pure function: widths held, colour only when asked, nothing hidden."""

import re
from dataclasses import replace

import pytest

from flopmeter.cli.cells import columns, fit
from flopmeter.play.paint import rate_text, sparkline
from flopmeter.play.view import EventLine, NodeCell, Picture, RunLine, Severity, Tick, draw

E23, E25, E26 = 10**23, 10**25, 10**26


def run(name: str = "atlas-70b", point: int = 225 * 10**21, answer: str = "crossed") -> RunLine:
    ticks = (
        Tick(E23, "10^23 EU", answer),
        Tick(E25, "10^25 EU", "below"),
        Tick(E26, "10^26 US KR", "below"),
    )
    return RunLine(
        name=name,
        lower=point * 48 // 100,
        point=point,
        upper=point * 2,
        rate_flop_per_s=86 * 10**15,
        spark=tuple(range(30)),
        energy_joules=26 * 10**10,
        device_hours=80_000,
        gap_ppm=18_000,
        ticks=ticks,
        active=True,
    )


def picture() -> Picture:
    at = 1_795_315_465 * 10**9
    return Picture(
        unix_ns=at,
        mode="live",
        live=True,
        progress_ppm=1_000_000,
        nodes_live=15,
        nodes_silent=1,
        gpus=128,
        models=("NVIDIA H100 80GB HBM3",),
        classes=(("A1", 982_000), ("gap", 18_000)),
        runs=(
            run(),
            run("atlas-70b-chat", 21 * 10**20, "below"),
            run("slurm:demo/88121", 10**18, "undetermined"),
        ),
        events=(
            EventLine(
                at, Severity.CRITICAL, "threshold.crossed", "Run atlas-70b executed above 10^23 FLOP. " * 4
            ),
            EventLine(at, Severity.WARNING, "agent.silent", "node-14 since 11-16"),
        ),
        nodes=tuple(
            NodeCell(f"node-{i:02}", i == 14, (0,) * 8 if i < 15 else (-1,) * 4 + (-2,) * 4)
            for i in range(1, 17)
        ),
        spark_label="30 DAYS",
        hints=("try next", "flopmeter runs show atlas-70b --store /var/tmp/flopmeter-demo-x"),
    )


def plain(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


@pytest.mark.parametrize("width", [30, 60, 79, 80, 100, 120, 140, 250])
@pytest.mark.parametrize("colour", [False, True])
def test_no_line_is_wider_than_the_screen(width: int, colour: bool) -> None:
    lines = draw(picture(), width, colour=colour)
    assert max(columns(plain(line)) for line in lines) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_wide_characters_and_controls_in_names_keep_the_width(width: int) -> None:
    odd = replace(
        picture(),
        runs=(run("模型预训练" * 12), run("tab\tand\x1b[31mescape")),
        nodes=(NodeCell("節点" * 9, False, (0,) * 8),) * 5,
    )
    lines = draw(odd, width, colour=False)
    assert max(columns(line) for line in lines) <= width
    assert not any("\x1b" in line or "\t" in line for line in lines)


def test_no_colour_means_no_codes() -> None:
    assert not any("\x1b" in line for line in draw(picture(), 100, colour=False))
    coloured = draw(picture(), 100, colour=True)
    assert any("\x1b" in line for line in coloured)
    assert [plain(line).rstrip() for line in coloured] == draw(picture(), 100, colour=False)


@pytest.mark.parametrize("width", [80, 120])
def test_everything_that_matters_is_on_it(width: int) -> None:
    text = "\n".join(draw(picture(), width, colour=False))
    for word in ("16 nodes", "15 live", "1 silent", "128 GPUs", "A1 98.2 %", "gap 1.8 %", "atlas-70b-chat"):
        assert word in text
    for word in ("2.25e23", "86.0 PFLOP/s", "72.2 MWh", "threshold.crossed", "10^23 EU crossed", "live"):
        assert word in text
    assert text.count("×") == 8 + 1  # the silent node and the key
    assert "2026-11-22 02:44:25" in text


def test_bar_holds_lower_point_and_upper_against_the_ticks() -> None:
    rows = draw(picture(), 120, colour=False)
    bar = rows[next(i for i, row in enumerate(rows) if "▸ atlas-70b " in row) + 1]
    # Lower is past 10^23: the first tick lies on the solid part; 10^25 and 10^26 lie beyond the upper bound.
    assert bar.index("╋") < bar.index("▒") < bar.index("┃") < bar.index("░") < bar.index("┼")
    assert bar.count("┼") == 2


def test_low_screens_lose_hints_and_map_before_runs_and_events() -> None:
    full = draw(picture(), 100, colour=False)
    cut = draw(picture(), 100, colour=False, height=len(full) - 1)
    assert len(cut) < len(full)
    assert "try next" not in "\n".join(cut)
    tiny = draw(picture(), 100, colour=False, height=12)
    assert len(tiny) <= 12
    assert "atlas-70b" in "\n".join(tiny)


def test_nothing_yet() -> None:
    empty = replace(picture(), runs=(), events=(), nodes=(), classes=(), progress_ppm=0, live=False)
    text = "\n".join(draw(empty, 80, colour=False))
    assert "no run yet" in text
    assert "none" in text


def test_a_run_without_figures_draws_an_empty_bar() -> None:
    nothing = replace(run(), lower=0, point=0, upper=0, spark=(), rate_flop_per_s=0)
    text = "\n".join(draw(replace(picture(), runs=(nothing,)), 80, colour=False))
    assert "┃" not in text
    assert "idle" in text


def test_sparkline() -> None:
    assert sparkline((0, 1, 4, 8), 8) == " ▂▅█"
    assert sparkline((1,) * 30, 10) == "█" * 10
    assert sparkline((0, 0), 8) == "  "
    assert sparkline((), 8) == ""
    assert len(sparkline((1,) * 31, 10)) <= 10


def test_fit() -> None:
    assert fit("abcdef", 4) == "abc…"
    assert fit("abc", 3) == "abc"
    assert fit("模型模型", 5) == "模型…"
    assert fit("a\nb", 5) == "a?b"


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0, "idle"), (12, "12 FLOP/s"), (10**12, "1.0 TFLOP/s"), (123_456 * 10**12, "123.4 PFLOP/s")],
)
def test_rate_text(rate: int, text: str) -> None:
    assert rate_text(rate) == text


LINK = "http://127.0.0.1:9841/#token=FMA1.0123456789ab." + "c0ffee00" * 8


@pytest.mark.parametrize("width", [30, 60, 80, 120, 200])
@pytest.mark.parametrize("height", [0, 12, 24, 40])
def test_the_link_is_whole_below_the_picture_however_small_the_screen(width: int, height: int) -> None:
    linked = replace(picture(), link=LINK)
    lines = draw(linked, width, colour=False, height=height)
    assert max(columns(line) for line in lines) <= width
    assert "".join(lines).endswith(" PAGE" + LINK)
    if height:
        assert len(lines) <= max(height, 3 + 1 + -(-len(LINK) // width) + 1)
        assert "flopmeter an odometer"[:width] in lines[0]
