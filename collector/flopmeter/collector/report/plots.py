"""Static plots as SVG, for a page that is printed or sent: no script, nothing loaded. Pure: numbers in, text out.

Places on the paper are rounded and for the eye only; exact figures stand in the tables beside a plot. Colours are the
page's (CSS variables), so that a plot is light, dark or black on paper as the page is.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from flopmeter.cli.output import flop_text, lower_text, upper_text
from flopmeter.collector.paper.html import shown

#: Points of a curve that are drawn; more would not be seen on paper, and make the file large.
MAX_POINTS = 400
WIDTH, HEIGHT = 760, 300
_LEFT, _RIGHT, _TOP, _PLOT = 58, 12, 14, 222  # margins, and the height of the plot itself
_STRIP = 12  # height of a row under the plot
_DECADES = 6  # at most so many below the total are drawn: what came before is a thin line at the edge
_STEPS_S = (3600, 7200, 21_600, 43_200, 86_400, 172_800, 432_000, 864_000, 2_592_000, 7_776_000, 31_536_000)
_TICKS = 7

STYLE = """
.plot { display: block; width: 100%; height: auto; font: 11px system-ui, sans-serif; }
.plot text { fill: var(--dim); } .plot .value { fill: var(--ink); font-weight: 600; }
.plot .rule { stroke: var(--rule); stroke-width: 1; } .plot .frame { stroke: var(--dim); stroke-width: 1; }
.plot .band { fill: var(--accent); fill-opacity: .22; } .plot .point { fill: none; stroke: var(--accent); stroke-width: 2; }
.plot .cone { fill: var(--accent); fill-opacity: .1; stroke: var(--accent); stroke-opacity: .5; stroke-dasharray: 2 3; }
.plot .ahead { fill: none; stroke: var(--accent); stroke-width: 1.5; stroke-dasharray: 5 4; }
.plot .line { stroke: var(--bad); stroke-width: 1.25; } .plot .off { stroke: var(--dim); stroke-dasharray: 6 4; }
.plot .now { stroke: var(--dim); stroke-dasharray: 1 3; } .plot .hatch { stroke: var(--dim); stroke-width: 1.2; }
.plot .dot { fill: var(--accent); stroke: var(--bg); stroke-width: 1; }
.plot .part { stroke: var(--bg); stroke-width: 1; } .plot .label { fill: var(--bg); font-weight: 600; }
.p0 { fill: #0b66c2; } .p1 { fill: #1a7f37; } .p2 { fill: #8a5a00; } .p3 { fill: #7d3fb8; } .p4 { fill: #c1222f; }
.p5 { fill: #57606a; }
"""
PARTS = 6  # colours of purposes; the letter in a span tells them apart, too


@dataclass(frozen=True, slots=True)
class Point:
    """A total by the end of an hour, in FLOP."""

    unix_s: int
    lower: int
    point: int
    upper: int


@dataclass(frozen=True, slots=True)
class Line:
    """A threshold in FLOP, with the regimes that draw it there."""

    flop: int
    label: str
    in_force: bool


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, [begin, end); `part` is which purpose (its place among them)."""

    begin_s: int
    end_s: int
    label: str
    part: int = 0


@dataclass(frozen=True, slots=True)
class Course:
    """All that a curve shows."""

    run: str
    points: tuple[Point, ...]  # cumulative, oldest first, at least one
    ahead: Point | None = None  # where a forecast ends
    confidence_percent: int = 0
    lines: tuple[Line, ...] = ()
    purposes: tuple[Span, ...] = ()
    gaps: tuple[Span, ...] = ()  # some of the device time was not read
    blanks: tuple[Span, ...] = ()  # nothing was recorded


def thinned(points: Sequence[Point], most: int = MAX_POINTS) -> tuple[Point, ...]:
    """At most `most` of them, the first and the last always: totals only grow, so that none is far from a kept one."""
    if len(points) <= most:
        return tuple(points)
    return tuple(points[i * (len(points) - 1) // (most - 1)] for i in range(most))


def curve_svg(course: Course, *, log: bool, ident: str) -> str:
    """The cumulative curve with its band, lines, forecast, purposes and gaps. `ident` is unique on the page."""
    scale = _Scale.of(course, log=log)
    kind = "logarithmic" if log else "linear"
    title = f"FLOP of run {course.run} over time, {kind} scale"
    rows = [(name, spans) for name, spans in (("for", course.purposes), ("gaps", course.gaps)) if spans]
    height = _TOP + _PLOT + 6 + _STRIP * len(rows) + 20
    out = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{ident}-t {ident}-d">',
        f'<title id="{ident}-t">{shown(title)}</title><desc id="{ident}-d">{shown(described(course))}</desc>',
        (
            f'<defs><pattern id="{ident}-h" width="5" height="5" patternUnits="userSpaceOnUse" '
            'patternTransform="rotate(45)"><path class="hatch" d="M0 0V5"/></pattern></defs>'
        ),
        *_grid(scale),
        *(_box(scale, s, _TOP, _PLOT, f'fill="url(#{ident}-h)" opacity=".45"') for s in course.blanks),
        *_curve(course, scale),
        *_lines(course, scale),
        *_now(course, scale),
    ]
    top = _TOP + _PLOT + 6
    for name, spans in rows:
        out.append(f'<text x="{_LEFT - 6}" y="{top + 9}" text-anchor="end">{name}</text>')
        out += _purposes(scale, spans, top) if name == "for" else _gaps(scale, spans, top, ident)
        top += _STRIP
    out += _times(scale, top)
    return "\n".join([*out, "</svg>"])


def described(course: Course) -> str:
    """The plot in words, for somebody who does not see it."""
    last = course.points[-1]
    said = (
        f"From {_day(course.points[0].unix_s)} to {_day(last.unix_s)} UTC the total grew to {flop_text(last.point)} "
        f"FLOP, between {lower_text(last.lower)} and {upper_text(last.upper)}."
    )
    for line in course.lines:
        where = (
            "below" if last.upper < line.flop else "above" if last.lower > line.flop else "within the band of"
        )
        side = {
            "below": "The band is below",
            "above": "The band is above",
            "within the band of": "The band holds",
        }[where]
        said += f" {side} the line of {line.label}, {flop_text(line.flop)} FLOP."
    if course.ahead is not None:
        a = course.ahead
        said += (
            f" If it goes on so it comes to {flop_text(a.point)} by {_day(a.unix_s)}, between {lower_text(a.lower)} and "
            f"{upper_text(a.upper)} ({course.confidence_percent} % interval)."
        )
    return said


# ---- scales --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scale:
    begin_s: int
    end_s: int
    low: int  # FLOP at the foot
    top: int
    log: bool

    @classmethod
    def of(cls, course: Course, *, log: bool) -> "_Scale":
        last = course.ahead or course.points[-1]
        top = max(1, last.upper, course.points[-1].upper)
        if log:
            above = [line.flop for line in course.lines]
            top = max([top, *above]) * 2
            first = next((p.lower or p.point or p.upper for p in course.points if p.upper), 1)
            low = max(first, course.points[-1].point // 10**_DECADES, 1)
            low = 10 ** (len(str(low)) - 1)
        else:
            near = [line.flop for line in course.lines if top < line.flop <= top * 5 // 4]
            top, low = max([top, *near]) * 26 // 25, 0
        return cls(course.points[0].unix_s, max(last.unix_s, course.points[0].unix_s + 1), low, top, log)

    def x(self, unix_s: int) -> float:
        at = min(max(unix_s, self.begin_s), self.end_s) - self.begin_s
        return round(_LEFT + at * (WIDTH - _LEFT - _RIGHT) / (self.end_s - self.begin_s), 1)

    def y(self, flop: int) -> float:
        if not self.log:
            part = flop * 10**6 // self.top / 10**6  # an integer first: FLOP may be past what a float holds
        elif flop <= self.low:
            part = 0.0
        else:
            low = math.log10(self.low)
            part = (math.log10(flop) - low) / (math.log10(self.top) - low)
        return round(_TOP + _PLOT * (1 - min(1.0, max(0.0, part))), 1)

    def ticks(self) -> Iterator[int]:
        if self.log:
            exponents = range(len(str(self.low)) - 1, len(str(self.top)))
            step = max(1, -(-len(exponents) // _TICKS))
            yield from (10**e for e in exponents[::step])
            return
        step = 10 ** (len(str(self.top)) - 1)
        while self.top // step < 4:
            step = step // 2 if str(step)[0] in "12" and step % 2 == 0 else step * 2 // 5
            if step <= 1:
                step = 1
                break
        yield from range(0, self.top + 1, max(1, step))


def _grid(scale: _Scale) -> Iterator[str]:
    right = WIDTH - _RIGHT
    for flop in scale.ticks():
        y = scale.y(flop)
        yield f'<path class="rule" d="M{_LEFT} {y}H{right}"/>'
        text = _power(flop) if scale.log else flop_text(flop) if flop else "0"
        yield f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{text}</text>'
    yield f'<path class="frame" d="M{_LEFT} {_TOP + _PLOT}H{right}"/>'


def _power(flop: int) -> str:
    text = str(flop)
    return f"10^{len(text) - 1}" if text.strip("0") == "1" else flop_text(flop)


# ---- marks ---------------------------------------------------------------------------------------


def _curve(course: Course, scale: _Scale) -> Iterator[str]:
    points = thinned(course.points)
    upper = [(scale.x(p.unix_s), scale.y(p.upper)) for p in points]
    lower = [(scale.x(p.unix_s), scale.y(p.lower)) for p in points]
    middle = [(scale.x(p.unix_s), scale.y(p.point)) for p in points]
    yield f'<path class="band" d="M{_path(upper)}L{_path(reversed(lower))}Z"/>'
    last, ahead = points[-1], course.ahead
    if ahead is not None:
        # A straight line of FLOP is a bent one on a logarithmic scale: drawn in steps.
        steps = [_between(last, ahead, i, 24) for i in range(25)]
        cone = [(scale.x(p.unix_s), scale.y(p.upper)) for p in steps]
        cone += [(scale.x(p.unix_s), scale.y(p.lower)) for p in reversed(steps)]
        yield f'<path class="cone" d="M{_path(cone)}Z"/>'
        yield f'<path class="ahead" d="M{_path((scale.x(p.unix_s), scale.y(p.point)) for p in steps)}"/>'
    yield f'<path class="point" d="M{_path(middle)}"/>'
    x, y = middle[-1]
    yield f'<circle class="dot" cx="{x}" cy="{y}" r="4"/>'
    yield f'<text class="value" x="{x - 6}" y="{max(_TOP + 8, y - 8)}" text-anchor="end">{flop_text(last.point)}</text>'


def _between(last: Point, ahead: Point, i: int, n: int) -> Point:
    return Point(*(a + (b - a) * i // n for a, b in zip(_numbers(last), _numbers(ahead), strict=True)))


def _numbers(p: Point) -> tuple[int, int, int, int]:
    return p.unix_s, p.lower, p.point, p.upper


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "L".join(f"{x:g} {y:g}" for x, y in points)


def _lines(course: Course, scale: _Scale) -> Iterator[str]:
    labels: list[tuple[float, float]] = []  # where each ends
    for line in course.lines:
        if line.flop > scale.top or line.flop < scale.low:
            continue
        y = scale.y(line.flop)
        kind = "line" if line.in_force else "line off"
        yield f'<path class="{kind}" d="M{_LEFT} {y}H{WIDTH - _RIGHT}"/>'
        at = y - 4 if y > _TOP + 12 else y + 12
        # A label that would lie on another one stands behind it.
        beside = [used for used in labels if abs(used[1] - at) < 12]
        x = max([_LEFT + 6, *(used[0] for used in beside)])
        labels.append((x + 6.2 * len(line.label) + 14, at))
        yield f'<text x="{x:g}" y="{at}">{shown(line.label)}</text>'


def _now(course: Course, scale: _Scale) -> Iterator[str]:
    if course.ahead is not None:
        x = scale.x(course.points[-1].unix_s)
        yield f'<path class="now" d="M{x} {_TOP}V{_TOP + _PLOT}"/>'


def _box(scale: _Scale, span: Span, top: float, height: float, style: str) -> str:
    left, right = scale.x(span.begin_s), scale.x(span.end_s)
    return (
        f'<rect x="{left}" y="{top}" width="{max(1.0, right - left):.1f}" height="{height}" {style}>'
        f"<title>{shown(span.label)}, {_hour(span.begin_s)} to {_hour(span.end_s)} UTC</title></rect>"
    )


def _purposes(scale: _Scale, spans: Sequence[Span], top: float) -> Iterator[str]:
    for span in spans:
        yield _box(scale, span, top, _STRIP - 1, f'class="part p{span.part % PARTS}"')
        left, right = scale.x(span.begin_s), scale.x(span.end_s)
        text = span.label if right - left > 7 * len(span.label) + 6 else span.label[:1]
        if right - left >= 12:
            yield f'<text class="label" x="{left + 3:.1f}" y="{top + 9}">{shown(text)}</text>'


def _gaps(scale: _Scale, spans: Sequence[Span], top: float, ident: str) -> Iterator[str]:
    for span in spans:
        yield _box(scale, span, top, _STRIP - 2, f'fill="url(#{ident}-h)"')


def _times(scale: _Scale, top: float) -> Iterator[str]:
    whole = scale.end_s - scale.begin_s
    step = next(
        (s for s in _STEPS_S if whole // s < _TICKS), _STEPS_S[-1] * max(1, whole // _STEPS_S[-1] // _TICKS)
    )
    for at in range(-(-scale.begin_s // step) * step, scale.end_s + 1, step):
        x = scale.x(at)
        anchor = "end" if x > WIDTH - 50 else "start" if x < _LEFT + 25 else "middle"
        text = _hour(at)[5:] if step < 86_400 else _day(at)[:10] if step >= 7_776_000 else _day(at)[5:10]
        yield f'<path class="rule" d="M{x} {_TOP + _PLOT}v5"/>'
        yield f'<text x="{x}" y="{top + 13}" text-anchor="{anchor}">{text}</text>'


def _day(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, tz=UTC).strftime("%Y-%m-%d")


def _hour(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, tz=UTC).strftime("%Y-%m-%d %H:%M")


# ---- bands against lines -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stand:
    """What one regime counts of a run, against its line; in the regime's operations."""

    label: str
    lower: int
    point: int
    upper: int
    line: int
    verdict: str
    in_force: bool


def stands_svg(stands: Sequence[Stand], *, ident: str) -> str:
    """A band per regime on one logarithmic axis, each with its line."""
    wide = min(190, 16 + max(len(s.label) for s in stands) * 7)
    right = WIDTH - 110
    least = min((s.lower or s.point or s.upper for s in stands if s.upper), default=10**20)
    low = math.log10(10 ** (len(str(least)) - 1)) - 0.2
    high = max(math.log10(max(1, s.line, s.upper)) for s in stands) + 0.3
    high = max(high, low + 2)

    def x(flop: int) -> float:
        part = (math.log10(flop) - low) / (high - low) if flop > 0 else 0.0
        return round(wide + (right - wide) * min(1.0, max(0.0, part)), 1)

    height, row = 22 + 22 * len(stands), 22
    said = "; ".join(
        f"{s.label}: {flop_text(s.point)}, between {lower_text(s.lower)} and {upper_text(s.upper)}, line {_power(s.line)}, {s.verdict}"
        for s in stands
    )
    out = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{ident}-t {ident}-d">',
        f'<title id="{ident}-t">What each regime counts, against its line, logarithmic scale</title>',
        f'<desc id="{ident}-d">{shown(said)}</desc>',
    ]
    exponents = range(math.ceil(low), math.floor(high) + 1)
    for e in exponents[:: max(1, -(-len(exponents) // 8))]:
        out.append(f'<path class="rule" d="M{x(10**e)} 16V{height}"/>')
        out.append(f'<text x="{x(10**e)}" y="11" text-anchor="middle">10^{e}</text>')
    for i, s in enumerate(stands):
        y = 18 + row * i
        left, end = x(s.lower), x(s.upper)
        out.append(f'<text class="value" x="0" y="{y + 14}">{shown(_short(s.label))}</text>')
        out.append(
            f'<rect class="band" x="{left}" y="{y + 5}" width="{max(1.0, end - left):.1f}" height="10"/>'
        )
        if s.point:
            at = x(s.point)
            out.append(f'<path class="dot" d="M{at} {y + 4}l6 6l-6 6l-6-6Z"/>')
        out.append(f'<path class="{"line" if s.in_force else "line off"}" d="M{x(s.line)} {y + 1}v18"/>')
        note = s.verdict if s.in_force else f"{s.verdict}*"
        out.append(f'<text x="{right + 8}" y="{y + 14}">{shown(note)}</text>')
    return "\n".join([*out, "</svg>"])


def _short(label: str) -> str:
    return label if len(label) <= 26 else label[:25] + "…"
