"""The project's papers agree with each other."""

import re
import tomllib

from tests.house.source import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
DECISIONS = sorted(path.name for path in (ROOT / "ops" / "decisions").iterdir())
PIN = re.compile(r"[\w.-]+==[\w.!+]+")


def package(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found, requirement
    return found[0]


def test_every_decision_has_a_numbered_name() -> None:
    assert [name for name in DECISIONS if not re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name)] == []


def test_decisions_are_numbered_without_gaps_or_twins() -> None:
    assert [int(name[:4]) for name in DECISIONS] == list(range(1, len(DECISIONS) + 1))


def test_every_dependency_has_its_reason_and_its_bound_on_paper() -> None:
    reasons = (ROOT / "ops" / "decisions" / "0001-dependencies.md").read_text(encoding="utf-8")
    rows = [f"| {(name := package(text))} `{text.removeprefix(name)}` |" for text in PROJECT["dependencies"]]
    assert [row for row in rows if row not in reasons] == []


def test_everything_we_install_is_pinned() -> None:
    lines = (ROOT / "ops" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not PIN.fullmatch(line)] == []

    groups = PYPROJECT["dependency-groups"]
    wanted = {package(text) for text in PROJECT["dependencies"] + groups["test"] + groups["lint"] + groups["bench"]}
    assert wanted - {package(line) for line in pins} == set()


def test_every_test_and_file_that_a_document_names_exists() -> None:
    documents = [ROOT / "README.md", *sorted((ROOT / "ops").rglob("*.md"))]
    named = {
        (document.relative_to(ROOT).as_posix(), found)
        for document in documents
        for found in re.findall(r"`((?:tests|ops|prontodb|benchmarks)/[\w./-]+)`", document.read_text(encoding="utf-8"))
    }
    assert len(named) > 20
    assert sorted((document, path) for document, path in named if not (ROOT / path).exists()) == []


def test_the_oldest_python_is_the_same_everywhere() -> None:
    oldest = PROJECT["requires-python"].removeprefix(">=")
    classified = [
        found[1]
        for line in PROJECT["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: (\d+\.\d+)", line))
    ]
    assert classified[0] == oldest
    assert PYPROJECT["tool"]["mypy"]["python_version"] == oldest
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")


def test_the_changelog_has_a_place_for_what_comes_next() -> None:
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_figure_of_the_readme_stands_in_the_printed_tables() -> None:
    rows = re.compile(r"\| .*? \|.*?\| [\d.,]+.*? \|.*\|")
    shown = rows.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(shown) > 10
    printed = (ROOT / "ops" / "figures.md").read_text(encoding="utf-8").splitlines()
    assert [row for row in shown if row not in printed] == []
