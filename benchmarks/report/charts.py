"""The drawings of the page: bars with their spread, how a figure lies to its target, curves over a growing amount.

What stands in a row of a table is drawn in percent of its cell, and fits any width without a script.
"""

from __future__ import annotations

from math import floor, log10
from typing import TYPE_CHECKING

from benchmarks.report.text import figure, scaled, span
from stress.report import markup
from stress.report.charts import cut
from stress.report.markup import Scale, escaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.measure import Row
    from benchmarks.report.ranking import Contest, Growth, Line, Standing

_HEIGHT, _MIDDLE, _THICK = 20, 10, 9
_CAP = 3.5
_BEYOND = 10.0
"""How many times beyond or short of its target a figure is drawn at the edge."""
_WIDE_FROM = 600
_LETTER_PX, _LINE_PX = 6.6, 15
_MAX_LETTERS = 56


def scale_of(contest: Contest) -> tuple[Scale, list[float]]:
    """Return the scale that all bars of a race share, in percent, and where it is marked."""
    ends = [end for one in contest.standings for end in (one.median, *one.spread)]
    if contest.is_log:
        ticks = markup.decades(min(end for end in ends if end > 0), max(ends))
        return Scale(least=ticks[0], most=ticks[-1], start=1, stop=98, log=True), ticks
    ticks = markup.round_steps(max(ends), 4)
    return Scale(least=0, most=ticks[-1], start=0, stop=98), ticks


def bar(one: Standing, scale: Scale, ticks: Sequence[float]) -> str:
    """Draw a contender's median and, as a whisker, its spread. A dot on a logarithmic scale: no length counts there."""
    kind = "ours" if one.is_ours else "other"
    middle = scale(one.median)
    parts = [_line(scale(tick), 0, scale(tick), _HEIGHT, "grid") for tick in ticks]
    if scale.log:
        parts.append(_line(scale.start, _MIDDLE, middle, _MIDDLE, f"stem {kind}"))
        parts.append(_whisker(one.spread, scale) if len(one.figures) > 1 else "")
        parts.append(f'<circle cx="{middle:.2f}%" cy="{_MIDDLE}" r="4" class="{kind}"/>')
    else:
        top = _MIDDLE - _THICK / 2
        parts.append(f'<rect x="0" y="{top:g}" width="{middle:.2f}%" height="{_THICK}" class="{kind}"/>')
        parts.append(_whisker(one.spread, scale) if len(one.figures) > 1 else "")
    said = f"{one.contender}: {figure(one.median, one.unit)}, {span(one.spread, one.unit, one.median)}"
    return _cell(said, *parts)


def axis(scale: Scale, ticks: Sequence[float], unit: str) -> str:
    """Draw what the marks of a scale stand for."""
    parts = []
    for n, tick in enumerate(ticks):
        size, name = scaled(unit, tick if scale.log else ticks[-1])
        is_last = n == len(ticks) - 1
        said = f"{tick / size:,g}" + (f" {name}" if name and (scale.log or is_last) else "")
        place = "end" if is_last else "middle inner" if n else ""
        # The two ends always have room; of decades that stand close only every other one is told.
        if not scale.log or n in (0, len(ticks) - 1) or len(ticks) <= 4 or (n % 2 == 0 and n < len(ticks) - 2):
            at = 100 if is_last else scale(tick) if n else 0
            parts.append(f'<text x="{at:.2f}%" y="12" class="small {place}">{escaped(said)}</text>')
    return f'<svg class="cell" height="16" aria-hidden="true">{"".join(parts)}</svg>'


def beside_target(row: Row) -> str:
    """Draw how a figure lies to its target, the rule in the middle: beyond it to the right, short of it to the left."""
    target = row.target
    if target is None or target.limit <= 0:
        return ""

    def place(value: float) -> float:
        times = value / target.limit if target.relation == ">=" else target.limit / max(value, 1e-9)
        # The edges are what the head of the column says.
        return 50 + 48 * log10(min(max(times, 1 / _BEYOND), _BEYOND)) / log10(_BEYOND)

    low, high = sorted(map(place, row.spread))
    middle, kind = place(row.reached), row.verdict.replace(" ", "-")
    parts = [
        _line(50, 0, 50, _HEIGHT, "axis"),
        _line(low, _MIDDLE, high, _MIDDLE, f"range {kind}") if high > low else "",
        f'<circle cx="{middle:.2f}%" cy="{_MIDDLE}" r="4" class="{kind}"/>',
    ]
    return _cell(f"{figure(row.reached, row.unit)}, {row.verdict}", *parts)


def _whisker(spread: tuple[float, float], scale: Scale) -> str:
    low, high = map(scale, spread)
    caps = (_line(x, _MIDDLE - _CAP, x, _MIDDLE + _CAP, "whisker") for x in (low, high))
    return _line(low, _MIDDLE, high, _MIDDLE, "whisker") + "".join(caps)


def _cell(said: str, *parts: str) -> str:
    label = escaped(said)
    return f'<svg class="cell" height="{_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.2f}%" y1="{y1:g}" x2="{x2:.2f}%" y2="{y2:g}" class="{kind}"/>'


def kind_of(number: int) -> str:
    """Return how the line of a number is drawn; kinds come again, numbers do not."""
    return f"s{(number - 1) % markup.SERIES + 1}"


def curves(growth: Growth, lines: Sequence[Line], width: int) -> str:
    """Draw a class over the amount, both scales logarithmic; lines end with a number and, where it is wide, a name."""
    is_wide = width >= _WIDE_FROM
    everyone = [one for _, others in growth.classes for line in others for one in line]
    names = [cut(line[0].contender, _MAX_LETTERS) for line in lines]
    left, top = 64, 10
    right = max(map(len, names)) * _LETTER_PX + 44 if is_wide else 28
    plot = max(260 if is_wide else 240, len(lines) * _LINE_PX)
    amounts = sorted({one.at for one in everyone})
    ends = [end for one in everyone for end in (one.median, *one.spread) if end > 0]
    ticks = log_ticks(min(ends), max(ends))
    # All classes of a family share both scales: their panels can be laid beside each other.
    x = Scale(least=amounts[0], most=amounts[-1], start=left + 8, stop=width - right - 8, log=True)
    y = Scale(least=ticks[0], most=ticks[-1], start=top + plot, stop=top, log=True)
    parts = []
    for tick in ticks:
        size, unit = scaled(growth.unit, tick)
        parts.append(markup.line(left, y(tick), width - right, y(tick), "grid"))
        parts.append(markup.text_at(left - 8, y(tick) + 4, f"{tick / size:,g} {unit}".strip(), "end"))
    for amount in amounts:
        parts.append(markup.line(x(amount), top + plot, x(amount), top + plot + 5, "axis"))
    parts += [markup.text_at(at, top + plot + 19, said, "middle") for at, said in _amounts_text(amounts, x)]
    parts.append(markup.text_at(width - right, top + plot + 35, growth.axis, "end"))
    for number, line in enumerate(lines, 1):
        parts += _curve(number, line, x, y)
    labels = _apart([y(line[-1].median) for line in lines], top, top + plot)
    for number, (line, at) in enumerate(zip(lines, labels, strict=True), 1):
        said = f"{number} {names[number - 1]}" if is_wide else str(number)
        strong = "strong" if line[0].is_ours else ""
        parts.append(markup.text_at(x(line[-1].at) + 12, at + 4, said, strong))
    said = f"{growth.family} over {growth.axis}: {', '.join(names)}"
    return markup.svg(width, top + plot + 42, said, *parts)


def _amounts_text(amounts: Sequence[float], x: Scale) -> Iterable[tuple[float, str]]:
    """Yield where to write which amount: those that would touch the one before are left out."""
    free_from = 0.0
    for amount in amounts:
        said = f"{amount:,g}"
        half = len(said) * _LETTER_PX / 2
        if x(amount) - half >= free_from:
            yield x(amount), said
            free_from = x(amount) + half + _LETTER_PX


def _curve(number: int, line: Line, x: Scale, y: Scale) -> list[str]:
    kind = kind_of(number)
    parts = [markup.path(((x(one.at), y(one.median)) for one in line), f"series {kind}{' ours' * line[0].is_ours}")]
    for one in line:
        low, high = map(y, one.spread)
        parts.append(markup.line(x(one.at), low, x(one.at), high, f"series solid {kind}"))
        tip = markup.title(f"{one.contender}, {one.at:,g} {one.axis}: {figure(one.median, one.unit)}")
        place = f'cx="{x(one.at):.1f}" cy="{y(one.median):.1f}"'
        parts.append(f'<g class="dot {kind}"><circle {place} r="9" class="halo">{tip}</circle>')
        parts.append(f'<circle {place} r="2.8"/></g>')
    return parts


def _apart(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Return places as near to the wanted ones as they can be without touching each other, in the order given."""
    order = sorted(range(len(wanted)), key=lambda n: wanted[n])
    places, free_from = list(wanted), top
    for n in order:
        places[n] = max(wanted[n], free_from)
        free_from = places[n] + _LINE_PX
    free_to = bottom
    for n in reversed(order):
        places[n] = min(places[n], free_to)
        free_to = places[n] - _LINE_PX
    return places


def log_ticks(least: float, most: float) -> list[float]:
    """Return 1, 2, 5, 10, ... from below the least to above the most; powers of ten alone when they are many."""
    powers = range(floor(log10(least)), floor(log10(most)) + 2)
    fine = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    first = max(n for n, tick in enumerate(fine) if tick <= least * (1 + 1e-9))
    last = min((n for n, tick in enumerate(fine) if tick >= most * (1 - 1e-9)), default=len(fine) - 1)
    chosen = fine[first : max(last, first + 1) + 1]
    return chosen if len(chosen) <= 8 else markup.decades(least, most)


def swatch(number: int, *, is_ours: bool) -> str:
    """Draw a short piece of a line, for a legend."""
    piece = markup.line(0, 5, 28, 5, f"series {kind_of(number)}{' ours' * is_ours}")
    return f'<svg class="swatch" viewBox="0 0 28 10" aria-hidden="true">{piece}</svg>'
