"""The page in a real browser: never wider than the window, at two widths; and colours that can be read."""

import re
from importlib import resources
from pathlib import Path

import pytest

from stress.report.page import page
from tests.pages import CHROMIUM, in_browser
from tests.unit.stress.report_runs import bad_run, empty_run, good_run

PAGES = {"good": good_run, "bad": bad_run, "empty": empty_run}


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_never_scrolls_sideways_and_fetches_nothing(tmp_path: Path) -> None:
    answers = in_browser(tmp_path, {name: page(made()) for name, made in PAGES.items()})
    for name, answer in answers.items():
        assert answer["scroll"] <= answer["inner"], name
        assert (answer["fetched"], answer["cut"], answer["small"]) == ([], [], []), name
        assert (answer["texts"] > 50) == (not name.startswith("empty"))


def colours(scheme: str) -> dict[str, str]:
    """The style sheet's colours by name, of the light or the dark scheme."""
    style = resources.files("stress.report").joinpath("style.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\n *\}", style, re.DOTALL)
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light if scheme == "light" else dark))


def contrast(one: str, other: str) -> float:
    """Contrast as WCAG 2 counts it: 1 (none) to 21."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out_in_both_schemes(scheme: str) -> None:
    found = colours(scheme)
    texts = [("ink", on) for on in ("paper", "card", "faint", "bad-paper")]
    texts += [("muted", on) for on in ("paper", "card", "faint", "bad-paper")]
    texts += [(name, f"{name}-paper") for name in ("good", "bad", "warn")]
    texts += [(name, "paper") for name in ("good", "bad", "warn")] + [("paper", "bad")]
    faint = [(one, on, round(contrast(found[one], found[on]), 2)) for one, on in texts]
    assert [pair for pair in faint if pair[2] < 4.5] == []
    drawn = [(name, "paper") for name in ("ok", "failed", "fault", "slow", *(f"s{n}" for n in range(1, 7)))]
    faint = [(one, on, round(contrast(found[one], found[on]), 2)) for one, on in drawn]
    assert [pair for pair in faint if pair[2] < 3] == []
