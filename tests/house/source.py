"""Our own source as the house rules see it: parsed files, and questions that several rules ask."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("prontodb", "stress", "benchmarks", "ops", "tests")


@dataclass(frozen=True, slots=True)
class Source:
    """One Python file; `name` is its path from the checkout's root, with forward slashes."""

    name: str
    text: str
    tree: ast.Module

    def at(self, node: ast.expr | ast.stmt) -> str:
        """Where a node stands, in the form that editors and terminals make clickable."""
        return f"{self.name}:{node.lineno}"


@cache
def _all_sources() -> tuple[Source, ...]:
    paths = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    texts = [(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]
    return tuple(Source(name, text, ast.parse(text, name)) for name, text in texts)


def sources(*under: str, but: tuple[str, ...] = ()) -> list[Source]:
    """The files below any of `under` (all of ours when none is named), leaving out those below `but`."""
    return [
        source
        for source in _all_sources()
        if source.name.startswith(under or FOLDERS) and not source.name.startswith(but)
    ]


def imported_modules(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    """Each imported module with its statement; `from a import b` counts as `a`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node, node.module


def texts(tree: ast.Module) -> Iterator[tuple[ast.expr, str]]:
    """Each string but the docstrings; an f-string is one text with `{}` for its holes."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):  # parents come before their children
        if node in skipped:
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(node.value)
        elif isinstance(node, ast.JoinedStr):
            skipped.update(node.values)
            yield node, "".join(_part(part) for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node, node.value


def _part(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else "{}"
