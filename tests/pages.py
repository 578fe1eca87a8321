"""A report's page as its reader has it: its elements and text, and how it lies in a real browser."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
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


def in_browser(folder: Path, pages: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return by `name-width` how each page lies: the window's width and its own, what sticks out, what it fetched."""
    assert CHROMIUM is not None
    frames = ""
    for name, page in pages.items():
        # The copy that is measured may run a script: ours.
        text = page.replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';", 1)
        (folder / f"{name}.html").write_text(text.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
        for width in WIDTHS:
            frames += f'<iframe name="{name}-{width}" src="{name}.html" width="{width}" height="900" frameborder="0">'
            frames += "</iframe>"
    place = folder / "frames.html"
    place.write_text(FRAMES % frames, encoding="utf-8")
    command = (CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", place.as_uri())
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = re.search(r'<pre id="answers">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    answers = {answer.pop("name"): answer for answer in json.loads(html.unescape(found[1]))}
    assert answers.keys() == {f"{name}-{width}" for name in pages for width in WIDTHS}
    assert all(answer["inner"] == int(name.rpartition("-")[2]) for name, answer in answers.items())
    return answers


VOID = {"meta", "br", "input", "img", "link", "hr", "col"}


class Reader(HTMLParser):
    """Reads a page: its elements, attributes and text; complains of elements that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.names: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())
