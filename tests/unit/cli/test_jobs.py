"""jobs list, once, pause, resume, history: what runs when, by hand or not at all."""

from __future__ import annotations

import json

import pytest

from prontodb.jobs.plan import JOBS
from tests.unit.cli.harness import Cli, one_line
from tests.unit.cli.test_backups import config, made, path_of, put


def test_the_list_has_every_job_and_an_empty_root_is_not_made(cli: Cli) -> None:
    outcome = cli.ok("jobs", "list")
    rows = [line.split("\t") for line in outcome.lines]
    assert [row[0] for row in rows] == list(JOBS)
    assert rows[0][1] == "every 1 m"
    assert {tuple(row[3:]) for row in rows} == {("-", "-", "-")}
    assert one_line(outcome.err) == "nobody runs them now; 'prontodb jobs run' does"
    assert list(cli.root.iterdir()) == []
    fields = cli.ok("jobs", "list", "--json", "-q").json
    assert [row["name"] for row in fields] == list(JOBS)
    assert all(row["enabled"] and not row["paused"] and row["last"] is None for row in fields)


@pytest.mark.parametrize("name", JOBS)
def test_each_job_runs_by_hand_and_is_recorded(name: str, cli: Cli) -> None:
    put(cli, "ann/home")
    outcome = cli.ok("jobs", "once", name, "-q")
    assert outcome.err == ""
    assert all(": " in line for line in outcome.lines)
    (fields,) = cli.ok("jobs", "once", name, "--json", "-q").json
    assert (fields["job"], fields["outcome"], fields["error"]) == (name, "done", None)
    rows = [line.split("\t") for line in cli.ok("jobs", "history").lines]
    assert [row[1:3] for row in rows] == [[name, "done"]] * 2
    (row,) = [line.split("\t") for line in cli.ok("jobs", "list").lines if line.startswith(f"{name}\t")]
    assert row[4] == "done"


def test_a_sweep_tells_what_it_did(cli: Cli) -> None:
    cli.ok("set", "k", "v", "--ttl", "1h")
    assert "entries: 0" in cli.ok("jobs", "once", "sweep").lines
    cli.ok("jobs", "once", "sweep", "--trust-clock")
    assert "--trust-clock goes with the sweep" in cli.fails("jobs", "once", "reap", "--trust-clock")


def test_a_job_with_a_reason_not_to_run_is_skipped_and_no_error(cli: Cli) -> None:
    outcome = cli.ok("jobs", "once", "backup-full")
    assert outcome.out == b""
    assert one_line(outcome.err) == "backup-full was skipped: there is no address yet"
    (fields,) = cli.ok("jobs", "once", "backup-full", "--json", "-q").json
    assert (fields["outcome"], fields["error"]) == ("skipped", "there is no address yet")


def test_a_job_that_fails_is_exit_1_with_its_reason_and_stands_in_the_history(cli: Cli) -> None:
    put(cli, "ann/home")
    found = made(cli)
    (path_of(cli, found) / "ann@home.db").write_bytes(b"garbage")
    said = cli.fails("jobs", "once", "verify")
    assert said.startswith(f"job verify failed: backup {found} is damaged")
    assert "backup create --full" in said
    (row,) = [line.split("\t") for line in cli.ok("jobs", "history", "verify").lines]
    assert (row[2], row[5]) == ("failed", "1")
    assert found in row[6]
    cli.fails("jobs", "once", "verify")
    assert cli.ok("jobs", "history", "verify").lines[0].split("\t")[5] == "2"


def test_one_job_or_all_are_paused_and_resumed(cli: Cli) -> None:
    assert "paused: sweep" in one_line(cli.ok("jobs", "pause", "sweep").err)
    assert paused(cli) == ["sweep"]
    cli.ok("jobs", "pause", "-q")
    assert paused(cli) == list(JOBS)
    assert "all jobs are paused still" in cli.ok("jobs", "resume", "sweep").err
    assert "resumed: all jobs" in one_line(cli.ok("jobs", "resume").err)
    assert paused(cli) == []
    assert cli.ok("jobs", "pause", "prune", "-q").err == ""
    assert cli.ok("jobs", "once", "prune").lines, "by hand it runs, paused or not"


def paused(cli: Cli) -> list[str]:
    lines = [line.split("\t") for line in cli.ok("jobs", "list").lines]
    assert [line[0] for line in lines if line[2] == "paused"] == [
        row["name"] for row in cli.ok("jobs", "list", "--json").json if row["paused"]
    ]
    return [line[0] for line in lines if line[2] == "paused"]


def test_the_history_is_newest_first_and_as_long_as_asked(cli: Cli) -> None:
    assert one_line(cli.ok("jobs", "history").err) == "no job has run yet"
    for name in ("reap", "sweep", "reap"):
        cli.ok("jobs", "once", name)
    assert [line.split("\t")[1] for line in cli.ok("jobs", "history").lines] == ["reap", "sweep", "reap"]
    assert [line.split("\t")[1] for line in cli.ok("jobs", "history", "--limit", "2").lines] == ["reap", "sweep"]
    runs = cli.ok("jobs", "history", "reap", "--json").json
    assert [(run["job"], run["outcome"], run["attempt"], run["report"]) for run in runs] == [
        ("reap", "done", 1, {"sessions": []})
    ] * 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("once", "swep"), "does not exist; there are: sweep"),
        (("once", ""), "does not exist"),
        (("once",), "jobs once needs NAME"),
        (("once", "sweep", "reap"), "one word too many"),
        (("pause", "all"), "does not exist"),
        (("resume", "*"), "does not exist"),
        (("history", "nothing"), "does not exist"),
        (("history", "--limit", "0"), "--limit is a whole number above 0"),
        (("history", "--limit", "x"), "--limit is a whole number above 0"),
        (("history", "--limit", "99999999999999"), "--limit is a whole number above 0"),
        (("list", "x"), "one word too many"),
        (("run", "x"), "one word too many"),
        (("halt",), "is no action of jobs"),
        ((), "jobs needs one of"),
    ],
)
def test_what_cannot_be_is_one_line(words: tuple[str, ...], said: str, cli: Cli) -> None:
    assert said in cli.fails("jobs", *words)


def test_a_wrong_schedule_is_one_line_with_the_field(cli: Cli) -> None:
    put(cli, "ann/home")
    config(cli, jobs={"sweep": {"every": "x"}})
    for words in (("list",), ("once", "reap"), ("run",)):
        assert "jobs.sweep.every is 'x'" in cli.fails("jobs", *words), words
    cli.ok("jobs", "history")
    config(cli, jobs={"swep": {}})
    assert "did you mean sweep" in cli.ok("jobs", "list").err


def test_a_schedule_of_the_settings_file_is_shown(cli: Cli) -> None:
    put(cli, "ann/home")
    config(cli, jobs={"backup-full": {"cron": "0 2 * * *", "zone": "Europe/Berlin"}, "verify": {"enabled": False}})
    rows = {line.split("\t")[0]: line.split("\t") for line in cli.ok("jobs", "list").lines}
    assert rows["backup-full"][1] == "cron '0 2 * * *' (Europe/Berlin)"
    assert rows["verify"][2] == "off"


def test_a_job_that_is_switched_off_runs_by_hand(cli: Cli) -> None:
    put(cli, "ann/home")
    config(cli, jobs={"verify": {"enabled": False}})
    cli.ok("jobs", "once", "verify")


def test_an_index_that_is_garbage_is_one_line_and_healed_by_what_writes(cli: Cli) -> None:
    put(cli, "ann/home")
    (cli.root / "registry/jobs.db").write_bytes(b"garbage" * 1_000)
    (cli.root / "registry/jobs.db").chmod(0o600)
    assert "jobs.db" in cli.fails("jobs", "list")
    cli.ok("backup", "-q")
    cli.ok("jobs", "once", "sweep", "-q")
    cli.ok("jobs", "list")
    assert json.dumps(cli.ok("jobs", "history", "--json").json)
