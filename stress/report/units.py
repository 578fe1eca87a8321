"""How figures and foreign text are written: few digits, sensible units, nothing that a screen would obey."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_DURATIONS = ((1e-6, "µs"), (1e-3, "ms"), (1.0, "s"))
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")
NONE = "–"  # noqa: RUF001 - the dash that stands for no figure
_MANY_S = 100


def digits(value: float) -> str:
    """Return a figure with three digits that mean something, more only before the point: 0.52, 8.14, 1,234."""
    for limit, decimals in ((0.9995, 3), (9.995, 2), (99.95, 1)):
        if abs(value) < limit:
            text = f"{value:.{decimals}f}"
            return text.rstrip("0").rstrip(".") if value == int(value) else text
    return f"{value:,.0f}"


def duration(us: float | None) -> str:
    """Return a duration given in microseconds: 85 µs, 1.24 ms, 3.2 s."""
    if us is None:
        return NONE
    seconds = us / 1e6
    # What would be shown as 1,000 is one of the next unit.
    size, unit = next((pair for pair in _DURATIONS if seconds < pair[0] * 999.5), _DURATIONS[-1])
    value = seconds / size
    return f"{value:.0f} µs" if unit == "µs" else f"{digits(value)} {unit}"


def seconds(value: float | None) -> str:
    """Return a duration given in seconds."""
    if value is None:
        return NONE
    return f"{value:,.0f} s" if value >= _MANY_S or not value else duration(value * 1e6)


def moment(value: float) -> str:
    """Return an instant of the run: seconds since its begin, to the tenth."""
    return f"{value:.1f} s"


def count(value: float | None) -> str:
    """Return a whole number with its thousands apart."""
    return NONE if value is None else f"{value:,.0f}"


def some(number: int, one: str, many: str = "") -> str:
    """Return a number of things: 1 fault, 2 faults."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def percent(share: float) -> str:
    """Return a share in percent; little is not nothing."""
    if 0 < share < 0.0001:
        return "< 0.01 %"
    return f"{digits(share * 100)} %" if share < 0.9995 or share == 1 else "> 99.9 %"


def index(value: float) -> str:
    """Return a figure between 0 and 1, cut and not rounded: only 1 is 1."""
    return f"{int(value * 1_000 + 1e-6) / 1_000:.3f}"


def size(size_bytes: float | None) -> str:
    """Return a number of bytes in the largest binary unit that fits."""
    if size_bytes is None:
        return NONE
    power = 0
    while size_bytes >= 1_023.5 and power < len(_SIZES) - 1:
        size_bytes, power = size_bytes / 1_024, power + 1
    return f"{digits(size_bytes)} {_SIZES[power]}"


def clean(text: object) -> str:
    """Return any text so that it can only be read: what is not to be seen stands there as its escape.

    Control characters, those that turn the direction of writing, and halves of surrogate pairs.
    """
    said = str(text)
    if said.isprintable():
        return said
    return "".join(
        _escape(letter) if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") else letter for letter in said
    )


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def figure(value: float | None, unit: str) -> str:
    """Return a figure in the form that its unit asks for."""
    if value is None:
        return NONE
    forms: dict[str, Callable[[float], str]] = {
        "us": duration,
        "s": seconds,
        "ops/s": lambda rate: f"{digits(rate)}/s",
        "%": lambda hundredths: percent(hundredths / 100),
        "operations": count,
        "index": index,
    }
    return forms.get(unit, "{:.2f}".format)(value)
