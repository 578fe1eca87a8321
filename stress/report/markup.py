"""Pieces of HTML and SVG: escaped text, tables in boxes of their own, and the frame that charts are drawn in."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from importlib import resources
from math import ceil, floor, log10
from typing import TYPE_CHECKING

from .units import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

WIDE, NARROW = 1_040, 358
"""Widths that a chart is drawn in: on a desk, on a telephone. Each is shown at about its own size, so that its text is
as large as that around it; the style sheet says which."""
_UNIT = re.compile(r"(\d) (µs|ms|s|%|[KMGT]iB)\b")
SERIES = 6
"""Kinds of line that can be told apart, by colour and by dashes."""
_CARE = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""A browser that obeys it runs and fetches nothing, even if some text were to get out of its place."""


def document(title: str, *parts: str, style: str = "") -> str:
    """Return a whole page: a title (text), what stands in it (markup), and style rules besides those of all reports."""
    rules = resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8") + style
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_CARE}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta name="color-scheme" content="light dark"><title>{escaped(title)}</title>',
            f"<style>{rules}</style></head><body>",
            *(part for part in parts if part),
            "</body></html>\n",
        ]
    )


def command(text: str) -> str:
    """Return a command whose lines end between its words only."""
    words = " ".join(f"<span>{literal(word)}</span>" for word in str(text).split(" "))
    return f'<code class="command">{words}</code>'


def fact_list(facts: Iterable[tuple[str, str]]) -> str:
    """Return figures (markup) with their names, as a row."""
    items = "".join(f"<div><dt>{name}</dt><dd>{said}</dd></div>" for name, said in facts)
    return f'<dl class="facts">{items}</dl>'


def literal(text: object) -> str:
    """Return any text so that a page shows it letter by letter, and never obeys it."""
    return html.escape(clean(text))


def escaped(text: object) -> str:
    """Return any text so that a page shows it, and no line ends between a figure and its unit."""
    return _UNIT.sub("\\1&nbsp;\\2", literal(text))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, label: str, texts: Sequence[int] = (0,)) -> str:
    """Return a table that scrolls in its own box. Cells are markup; the columns of `texts` are text, others figures."""
    kinds = ["text" if n in texts else "figure" for n in range(len(heads))]
    head = "".join(f'<th scope="col" class="{kind}">{name}</th>' for name, kind in zip(heads, kinds, strict=True))
    body = "".join(_table_row(row, kinds) for row in rows)
    inner = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return scroll_box(inner, label)


def _table_row(cells: Sequence[str], kinds: Sequence[str]) -> str:
    first, *others = zip(cells, kinds, strict=True)
    row = f'<th scope="row" class="{first[1]}">{first[0]}</th>'
    row += "".join(f'<td class="{kind}">{cell}</td>' for cell, kind in others)
    return f"<tr>{row}</tr>"


def scroll_box(inner: str, label: str) -> str:
    """Return markup in a box that scrolls sideways by itself, with the keyboard too."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escaped(label)}">{inner}</div>'


def figure(draw: Callable[[int], str], caption: str, legend: str = "") -> str:
    """Return a chart, drawn in both widths, with its caption (markup) above and its legend below."""
    wide, narrow = draw(WIDE), draw(NARROW)
    return (
        f'<figure><figcaption>{caption}</figcaption><div class="wide">{wide}</div>'
        f'<div class="narrow">{narrow}</div>{legend}</figure>'
    )


def svg(width: float, height: float, label: str, *parts: str, fixed: bool = False) -> str:
    """Return a drawing; `fixed`: it keeps its size, and its box scrolls."""
    size = f' width="{width:g}" height="{height:g}"' if fixed else ""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}"{size} role="img" aria-label="{escaped(label)}">{"".join(parts)}</svg>'
    )


def title(text: object) -> str:
    """Return what is shown while the pointer rests on something."""
    return f"<title>{escaped(text)}</title>"


def text_at(x: float, y: float, text: object, kind: str = "") -> str:
    """Return text in a drawing; `kind`: end, middle, strong, ..., as the style sheet knows them."""
    return f'<text x="{x:.1f}" y="{y:.1f}"{_class(kind)}>{escaped(text)}</text>'


def rect(x: float, y: float, width: float, height: float, kind: str, tip: object = "") -> str:
    """Return a rectangle."""
    inner = title(tip) if tip else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"{_class(kind)}>{inner}</rect>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Return a line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"{_class(kind)}/>'


def path(points: Iterable[tuple[float, float]], kind: str) -> str:
    """Return a line through points."""
    return f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"{_class(kind)}/>'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Values on one side, places in the drawing on the other; logarithmic when `log`."""

    least: float
    most: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.least, self.most, min(max(value, self.least), self.most)
        if self.log:
            low, high, at = log10(low), log10(high), log10(at)
        return self.start + (self.stop - self.start) * ((at - low) / (high - low) if high > low else 0)


def round_steps(most: float, wanted: int) -> list[float]:
    """Return about so many round values from 0 on, the last at or above `most`: 0, 20, 40, 60."""
    if most <= 0:
        return [0.0, 1.0]
    rough = most / wanted
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    return [n * step for n in range(ceil(most / step - 1e-9) + 1)]


def decades(least: float, most: float) -> list[float]:
    """Return the powers of ten from below `least` to above `most`, at least two."""
    low = floor(log10(max(least, 1e-9)))
    high = max(ceil(log10(max(most, 1e-9))), low + 1)
    return [10.0**power for power in range(low, high + 1)]
