"""migrate on the command line: the report on stdout, the talk on stderr, and what exit code says what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prontodb.cli import migrating
from tests.old_sources import rust, shared
from tests.unit.cli.harness import Cli, one_line

ROWS = [
    ("alice.work.ns.a", "1"),
    ("alice.work.ns.a", "2"),
    ("bob.home.app.x.y", "3"),
    ("bad", "secret"),
    ("b d.c.d.e", "5"),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return shared(tmp_path / "old.db", ROWS)


def get(cli: Cli, address: str, key: str) -> str:
    user, _, cursor = address.partition("/")
    return cli.ok("--user", user, "--cursor", cursor, "get", key).text.rstrip("\n")


def test_a_dry_run_says_what_would_be_done_and_does_nothing(cli: Cli, source: Path) -> None:
    outcome = cli("migrate", str(source), "--dry-run")
    assert outcome.code == 1, "two rows need somebody's word"
    assert outcome.lines[:4] == [
        "alice.work\talice/work\t2\t1\t0\t1\t0",
        "bob.home\tbob/home\t1\t1\t0\t0\t0",
        "b d.c\t-\t1\t0\t0\t0\t1",
        "total\t\t5\t2\t0\t1\t2",
    ]
    assert "reported, 1 row: the address has fewer than four parts; are they separated otherwise? see --delimiter" in (
        outcome.lines
    )
    assert "  old.db kvstore row 4: bad" in outcome.lines
    assert any("more than four parts" in line for line in outcome.lines)
    assert "  ns.a of alice.work: row 1 (written 2023-11-14T22:13:20Z) was shown, row 2 is the last one, written " in (
        outcome.text
    )
    assert "would be done: read 5 = migrated 2 + expired 0 + superseded 1 + reported 2" in outcome.err
    assert "keep the source" in outcome.err
    assert "secret" not in outcome.text + outcome.err
    assert not (cli.root / "addresses").exists()


def test_migrating_brings_over_what_can_and_tells_the_rest(cli: Cli, source: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    outcome = cli("migrate", str(source), "--report", str(report))
    assert outcome.code == 1
    assert (get(cli, "alice/work", "ns.a"), get(cli, "bob/home", "app.x.y")) == ("2", "3")
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert [line["row"] for line in lines if line["kind"] == "reported"] == [5, 4] or [4, 5]
    assert "2 addresses written" in outcome.err
    outcome = cli("migrate", str(source), "--map", "b d.c=bd/c", "--json", "--quiet")
    (fields,) = outcome.json
    assert (fields["read"], fields["migrated"], fields["there"], fields["reported"]) == (5, 3, 2, 1)
    assert fields["written"] == ["bd/c"]
    assert fields["complete"] is False
    assert outcome.err == f"prontodb: not everything came over: keep the source '{source}'\n"


def test_a_complete_migration_is_exit_0(cli: Cli, tmp_path: Path) -> None:
    source = rust(tmp_path / "main" / "pronto.main.prdb", [("default", "ns", "k", "v")], [("p", "c", 1, 60)])
    outcome = cli.ok("migrate", str(source))
    assert "1 default lifetime" in outcome.err
    assert cli.ok("get", "ns.k").text == "v"
    again = cli.ok("migrate", str(source))
    assert "(1 were there already)" in again.err
    assert "0 addresses written" in again.err


def test_a_plan_is_saved_and_applied(cli: Cli, source: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    cli("migrate", str(source), "--dry-run", "--save-plan", str(plan), "--map", "b d.c=bd/c", "--quiet")
    assert cli("migrate", "--plan", str(plan), "--quiet").code == 1
    assert get(cli, "bd/c", "d.e") == "5"
    outcome = cli("migrate", "--plan", str(plan), "--map", "x=a/b")
    assert outcome.code == 1
    assert "the plan says it" in one_line(outcome.err)
    source.write_bytes(source.read_bytes() + bytes(4096))
    assert cli("migrate", "--plan", str(plan)).code == 1


def test_skip_and_map_may_stand_several_times(cli: Cli, source: Path, tmp_path: Path) -> None:
    for name in ("one.db", "two.db"):
        (tmp_path / name).write_bytes(b"")
    outcome = cli("migrate", str(tmp_path), "--root", str(tmp_path.parent / "r"), "--skip", "one.db", "--skip=two.db",
                  "--map", "b d.c=bd/c", "--map", "alice.work=a=b/c")  # fmt: skip
    assert "address 'c'" not in outcome.err
    assert outcome.code == 1
    outcome = cli("migrate", str(tmp_path), "--root", str(tmp_path.parent / "r"), "--skip", "one.db", "--skip=two.db",
                  "--map", "b d.c=bd/c", "--map", "alice.work=al/w", "--quiet")  # fmt: skip
    assert "al/w" in outcome.text
    assert "bd/c" in outcome.text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ((), "needs SOURCE"),
        (("/nowhere",), "there is no"),
        (("SOURCE", "--map", "nothing"), "OLD=USER/CURSOR"),
        (("SOURCE", "--map", "=a/b"), "OLD=USER/CURSOR"),
        (("SOURCE", "--map", "x=../b"), "not a name"),
        (("SOURCE", "--map", "x=a/b", "--map", "x=c/d"), "twice"),
        (("SOURCE", "--map", "nobody.here=a/b"), "does not hold"),
        (("SOURCE", "--on-conflict", "perhaps"), "'keep', 'replace' or 'fail'"),
        (("SOURCE", "--delimiter", ""), "1 to 8 printable"),
        (("SOURCE", "--report", "/nowhere/at/all"), "cannot be written"),
        (("SOURCE", "--scratch", "/nowhere"), "is no folder"),
        (("SOURCE", "--plan", "/nowhere"), "cannot"),
        (("SOURCE", "--skip", "x"), "does not hold"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_done(cli: Cli, source: Path, line: tuple[str, ...], words: str) -> None:
    outcome = cli("migrate", *(str(source) if word == "SOURCE" else word for word in line))
    assert (outcome.code, outcome.text) == (1, "")
    assert words in one_line(outcome.err)
    assert not (cli.root / "addresses").exists()


def test_a_report_file_in_the_source_is_refused_before_anything_is_read(cli: Cli, tmp_path: Path) -> None:
    old = tmp_path / "old"
    rust(old / "main" / "pronto.main.prdb", [("p", "n", "k", "v")])
    outcome = cli("migrate", str(old), "--report", str(old / "report"))
    assert "must stay as it is" in one_line(outcome.err)
    assert not (old / "report").exists()


@pytest.mark.parametrize("option", ["--report", "--save-plan"])
def test_only_a_file_is_ever_replaced_by_a_report(cli: Cli, source: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "folder").mkdir()
    for name in ("link", "folder"):
        outcome = cli("migrate", str(source), option, str(tmp_path / name))
        assert "will not be replaced" in one_line(outcome.err)
    assert not (tmp_path / "target").exists()
    assert not (cli.root / "addresses").exists()
    (tmp_path / "file").write_text("older")
    cli("migrate", str(source), option, str(tmp_path / "file"))
    assert "older" not in (tmp_path / "file").read_text()


def test_names_that_could_steer_a_terminal_are_escaped(cli: Cli, tmp_path: Path) -> None:
    source = shared(tmp_path / "old.db", [("al\x1b[2Jice.w.n.k", "v"), ("a\nb", "v"), ("x.y.z.\x9b1m", "v")])
    outcome = cli("migrate", str(source))
    for text in (outcome.text, outcome.err):
        assert not {"\x1b", "\x9b"} & set(text)
    assert r"a\nb" in outcome.text


def test_the_help_tells_it_all(cli: Cli) -> None:
    text = cli.ok("help", "migrate").text
    for option in migrating.SYNTAX["migrate"].options:
        assert option in text
    assert "migrate" in cli.ok("help").text
