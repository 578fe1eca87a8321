"""session list, show, end; who is at an address: for people in columns, for programs as tabs and JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from prontodb.cli.sessions import lasted
from prontodb.cli.tables import NARROWEST, columns
from prontodb.direct import lifecycle
from prontodb.model.address import Address
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from prontodb.registry.sessions import SessionRegistry
from prontodb.session.door import Door, Stay
from prontodb.session.hold import Holding
from tests.unit.cli.harness import Cli

HERE = Address("agent1", "prod")


def holding(root: Path) -> Holding:
    layout, clock, limits = Layout(str(root)), Clock(), Limits(wait_s=0)
    door = Door(lifecycle(layout, limits, clock), clock)
    return Holding(layout, door, SessionRegistry(layout, wait_s=1, one_shot=True), clock, Limits())


@pytest.fixture
def stay(cli: Cli) -> Iterator[Stay]:
    with holding(cli.root).session(HERE, wait_s=0, program="agent.py") as held:
        yield held


def test_the_list_is_data_for_programs_and_nobody_is_a_note(cli: Cli, stay: Stay) -> None:
    (line,) = cli.ok("session", "list").lines
    session, address, mode, pid, age, program, host = line.split("\t")
    assert (session, address, mode) == (stay.session, "agent1/prod", "exclusive")
    assert (int(pid), program, host) == (stay.holder.process.pid, "agent.py", stay.holder.process.host)
    assert age.endswith("s")
    (fields,) = cli.ok("session", "list", "--json").json
    assert (fields["id"], fields["epoch"], fields["address"]) == (stay.session, stay.holder.epoch, "agent1/prod")
    stay.end()
    outcome = cli.ok("session", "list")
    assert (outcome.out, outcome.err) == (b"", "prontodb: no sessions\n")
    assert cli.ok("session", "list", "-q").err == ""


def test_an_empty_root_has_no_sessions_and_is_not_made(cli: Cli) -> None:
    assert cli.ok("session", "list").out == b""
    assert not cli.root.exists() or not list(cli.root.iterdir())


def test_one_session_is_described(cli: Cli, stay: Stay) -> None:
    lines = cli.ok("session", "show", stay.session).lines
    assert f"id: {stay.session}" in lines
    assert "address: agent1/prod" in lines
    (fields,) = cli.ok("session", "show", stay.session, "--json").json
    assert fields["mode"] == "exclusive"


def test_an_address_shows_who_is_there(cli: Cli, stay: Stay) -> None:
    lines = cli.ok("address", "show", "agent1/prod").lines
    assert "sessions: 1" in lines
    assert any(line.startswith(f"session: exclusive session {stay.session} of pid ") for line in lines)
    (fields,) = cli.ok("address", "show", "agent1/prod", "--json").json
    assert [session["id"] for session in fields["sessions"]] == [stay.session]
    stay.end()
    assert "sessions: 0" in cli.ok("address", "show", "agent1/prod").lines


def test_a_dead_session_is_cleared_away_by_whoever_looks(cli: Cli, stay: Stay) -> None:
    for look in (("session", "list"), ("address", "show", "agent1/prod")):
        stay.lock.abandon()
        cli.ok(*look)
    assert SessionRegistry(Layout(str(cli.root)), wait_s=1, one_shot=True).rows() == []
    (fields,) = cli.ok("address", "show", "agent1/prod", "--json").json
    assert stay.holder.epoch is not None
    assert fields["epoch"] == stay.holder.epoch + 1, "what it started can write no more"


def test_who_is_put_out_by_force_is_named(cli: Cli, stay: Stay) -> None:
    outcome = cli.ok("session", "end", stay.session, "--force")
    assert outcome.out == b""
    assert outcome.err.startswith(f"prontodb: put out: exclusive session {stay.session} at agent1/prod, pid ")
    assert cli.ok("session", "list").out == b""
    cli.ok("--user", "agent1", "--cursor", "prod", "set", "k", "v")


def test_who_does_not_heed_is_an_error_with_the_way_out(cli: Cli, stay: Stay) -> None:
    outcome = cli("session", "end", stay.session, "--wait", "0")
    assert outcome.code == 1
    assert f"prontodb session end {stay.session} --force" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "s-00112233445566778899"), "has ended or never was"),
        (("end", "s-00112233445566778899"), "has ended or never was"),
        (("show", "../x"), "is no session's id"),
        (("end", "s-1"), "is no session's id"),
        (("end", "s-00112233445566778899", "--kill"), "--kill goes with --force"),
        (("end", "s-00112233445566778899", "--wait", "x"), "--wait is a number of seconds"),
    ],
)
def test_what_cannot_be_is_one_line(cli: Cli, words: tuple[str, ...], said: str) -> None:
    outcome = cli("session", *words)
    assert outcome.code == 1
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_holder_that_is_busy_is_named_to_a_one_shot_write(cli: Cli, stay: Stay) -> None:
    config = cli.root / "registry" / "global_config.json"
    config.write_text('{"format": 1, "settings": {"wait_s": 0}}')
    config.chmod(0o600)
    outcome = cli("--user", "agent1", "--cursor", "prod", "set", "k", "v")
    assert outcome.code == 1
    for part in ("agent1/prod", stay.session, "agent.py", f"pid {stay.holder.process.pid}", "session end"):
        assert part in outcome.err
    for words in (("address", "delete", "agent1/prod", "--yes"), ("address", "rename", "agent1/prod", "agent1/x")):
        outcome = cli(*words)
        assert outcome.code == 1
        assert stay.session in outcome.err
    assert cli("--user", "agent1", "--cursor", "prod", "get", "k").code == 2


def test_a_table_fits_the_terminal_and_never_cuts_an_id() -> None:
    rows = [("session", "address", "program"), ("s-00112233445566778899", "a" * 60 + "/" + "b" * 60, "x" * 50)]
    for width in (200, 100, 80, 60):
        lines = columns(rows, width)
        assert all(len(line) <= width for line in lines)
        assert lines[1].startswith("s-00112233445566778899  ")
    narrow = columns(rows, 10)
    assert len(narrow[1]) == 22 + 2 + NARROWEST + 2 + NARROWEST


def test_lengths_of_time_have_one_unit() -> None:
    assert [lasted(s) for s in (-5, 0, 59.9, 60, 3_599, 3_600, 86_399, 86_400, 10**7)] == [
        "0s", "0s", "59s", "1m", "59m", "1h", "23h", "1d", "115d",
    ]  # fmt: skip
