"""The page in a real browser: never wider than the window, at two widths; and colours that can be read."""

import html
import json
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from stress.report.page import page
from tests.unit.stress.report_runs import bad_run, empty_run, good_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGES = {"good": good_run, "bad": bad_run, "empty": empty_run}
WIDTHS = (1_280, 390)

MEASURE = """<script>addEventListener("load", () => {
  for (const one of document.querySelectorAll("details")) one.open = true;
  const root = document.documentElement;
  const seen = [...document.querySelectorAll("svg text")].filter(one => one.getClientRects().length);
  const cut = seen.filter(one => !one.closest(".scroll")).filter(one => {
    const box = one.getBoundingClientRect();
    return box.left < 0 || box.right > innerWidth;
  });
  const small = seen.filter(one => one.getBoundingClientRect().height < 10);
  parent.postMessage({name: window.name, inner: innerWidth, scroll: root.scrollWidth, texts: seen.length,
    cut: cut.map(one => one.textContent), small: small.map(one => one.textContent),
    fetched: performance.getEntriesByType("resource").map(one => one.name)}, "*");
});</script>"""
FRAMES = """<!doctype html><body><pre id="answers"></pre><script>
const answers = [];
addEventListener("message", message => {
  answers.push(message.data);
  document.getElementById("answers").textContent = JSON.stringify(answers);
});</script>%s</body>"""
# Nothing of the browser's own may go out either.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=4000",
)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_never_scrolls_sideways_and_fetches_nothing(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    frames = ""
    for name, made in PAGES.items():
        # The copy that is measured may run a script: ours.
        text = page(made()).replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';", 1)
        (tmp_path / f"{name}.html").write_text(text.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
        for width in WIDTHS:
            frames += f'<iframe name="{name}-{width}" src="{name}.html" width="{width}" height="900" frameborder="0">'
            frames += "</iframe>"
    place = tmp_path / "frames.html"
    place.write_text(FRAMES % frames, encoding="utf-8")
    command = (CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", place.as_uri())
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = re.search(r'<pre id="answers">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    answers = {answer.pop("name"): answer for answer in json.loads(html.unescape(found[1]))}
    assert answers.keys() == {f"{name}-{width}" for name in PAGES for width in WIDTHS}
    for name, answer in answers.items():
        assert answer["inner"] == int(name.partition("-")[2])
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
