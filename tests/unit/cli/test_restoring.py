"""restore and its undo: asks before it replaces, tests before it touches, and brings back what it replaced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from prontodb.model.address import Address
from prontodb.session.door import Stay
from tests.unit.cli.harness import Cli, Pipe, one_line, tree
from tests.unit.cli.test_backups import config, made, path_of, put
from tests.unit.cli.test_sessions import holding

HOME = ("--user", "ann", "--cursor", "home")


def get(cli: Cli, address: str, key: str = "k") -> str | None:
    user, _, cursor = address.partition("/")
    outcome = cli("--user", user, "--cursor", cursor, "get", key)
    return outcome.text.rstrip("\n") if outcome.code == 0 else None


@pytest.fixture
def saved(cli: Cli) -> str:
    """A backup of three addresses at v; since then all of them hold w, and there is one more."""
    for address in ("ann/home", "ann/work", "bob/home"):
        put(cli, address)
    found = made(cli)
    for address in ("ann/home", "ann/work", "bob/home", "new/one"):
        put(cli, address, "w")
    return found


def values(cli: Cli) -> list[str | None]:
    return [get(cli, address) for address in ("ann/home", "ann/work", "bob/home", "new/one")]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody sits there who can be asked."""
    monkeypatch.setattr(Pipe, "isatty", lambda _: True, raising=False)


def test_the_newest_backup_comes_back_whole_and_what_it_does_not_hold_stays(cli: Cli, saved: str) -> None:
    outcome = cli.ok("restore", "--yes")
    assert sorted(outcome.lines) == ["ann/home", "ann/work", "bob/home"]
    assert f"restored 3 addresses from {saved}" in one_line(outcome.err)
    assert values(cli) == ["v", "v", "v", "w"]
    assert cli.ok("doctor", "--deep").code == 0


def test_user_and_cursor_narrow_it_and_the_environment_does_not(cli: Cli, saved: str) -> None:
    assert cli.ok("restore", "-y", "-q", *HOME).lines == ["ann/home"]
    assert values(cli) == ["v", "w", "w", "w"]
    assert sorted(cli.ok("restore", saved, "-y", "-q", "--user", "ann").lines) == ["ann/home", "ann/work"]
    narrowed = Cli(cli.root, {"PRONTODB_USER": "bob", "PRONTODB_CURSOR": "home"})
    (fields,) = narrowed.ok("restore", "-y", "-q", "--json").json
    assert [one["target"] for one in fields["restored"]] == ["ann/home", "ann/work", "bob/home"]
    assert (fields["backup"], fields["failed"]) == (saved, [])
    assert all(one["kept"] and one["entries"] == 1 for one in fields["restored"])


def test_off_a_terminal_it_needs_to_be_told_and_touches_nothing(cli: Cli, saved: str) -> None:
    before = tree(cli.root / "addresses")
    outcome = cli("restore", saved, "--user", "ann", stdin=b"y\n")
    assert (outcome.code, outcome.out) == (1, b"")
    assert "add --yes to replace ann/home, ann/work" in one_line(outcome.err)
    cli.ok("restore", "-y", *HOME)
    outcome = cli("restore", "--undo", *HOME, stdin=b"y\n")
    assert (outcome.code, outcome.out) == (1, b"")
    assert "--yes" in one_line(outcome.err)
    assert values(cli) == ["v", "w", "w", "w"]
    assert before.keys() <= tree(cli.root / "addresses").keys()


@pytest.mark.plain("to delete an encrypted address is to make its backups unreadable")
def test_what_is_not_there_is_restored_unasked(cli: Cli, saved: str) -> None:
    cli.ok("address", "delete", "bob/home", "--yes")
    assert cli.ok("restore", saved, "--user", "bob").lines == ["bob/home"]
    assert get(cli, "bob/home") == "v"
    assert "nothing of user bob can be undone" in cli.fails("restore", "--undo", "--user", "bob", "--yes")


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("answer", "agreed"),
    [(b"y\n", True), (b"YES\n", True), (b"n\n", False), (b"\n", False), (b"", False), (b"yo\n", False)],
)
def test_on_a_terminal_it_asks_and_takes_only_yes_for_yes(answer: bytes, agreed: bool, cli: Cli, saved: str) -> None:
    outcome = cli("restore", saved, *HOME, stdin=answer)
    assert outcome.code == (0 if agreed else 1)
    assert "replace ann/home with their state in" in outcome.err
    assert get(cli, "ann/home") == ("v" if agreed else "w")


def test_an_undo_brings_back_what_was_replaced_and_a_redo_what_was_restored(cli: Cli, saved: str) -> None:
    cli.ok("restore", "-y", "-q")
    put(cli, "ann/home", "x")
    outcome = cli.ok("restore", "--undo", "--yes", *HOME)
    assert outcome.lines == ["ann/home"]
    assert "--redo takes it back, --undo again goes one restore further back" in one_line(outcome.err)
    assert values(cli) == ["w", "v", "v", "w"]
    assert cli.ok("restore", "--redo", "-y", "-q", *HOME).err == ""
    assert values(cli) == ["x", "v", "v", "w"]
    (undone,) = cli.ok("restore", "--undo", "-y", "--json", *HOME).json
    assert undone == {"undone": ["ann/home"]}
    assert values(cli) == ["w", "v", "v", "w"]
    assert sorted(cli.ok("restore", "--undo", "-y").lines) == ["ann/work", "bob/home"], "what is not undone yet"
    assert values(cli) == ["w", "w", "w", "w"]
    assert "nothing of the last restore" in cli.fails("restore", "--undo", "--yes")
    assert saved in cli.ok("backup", "list").text


def test_beside_it_under_another_name_and_into_another_root(cli: Cli, saved: str, tmp_path: Path) -> None:
    assert cli.ok("restore", saved, *HOME, "--as", "ann/look").lines == ["ann/look"]
    assert (get(cli, "ann/look"), get(cli, "ann/home")) == ("v", "w")
    into = tmp_path / "new"
    assert len(cli.ok("restore", "--into", str(into)).lines) == 3
    assert values(Cli(into)) == ["v", "v", "v", None]
    assert values(cli) == ["w", "w", "w", "w"]
    assert "is replaced" not in cli.ok("restore", "--into", str(into), "--yes").err


@pytest.mark.plain("of encrypted addresses it takes their key records, too")
def test_a_root_comes_back_from_nothing_but_its_backups(cli: Cli, saved: str, tmp_path: Path) -> None:
    place = tmp_path / "disk"
    made(cli, "--output", str(place))
    another = Cli(tmp_path / "another")
    assert len(another.ok("restore", str(place)).lines) == 4
    assert values(another) == ["w", "w", "w", "w"]
    assert saved not in another.ok("backup", "list").text


def test_a_moment_takes_the_newest_backup_up_to_then(cli: Cli, saved: str) -> None:
    (fields,) = cli.ok("backup", "list", "--json").json
    made(cli)
    (chosen,) = cli.ok("restore", "-y", "-q", "--json", "--at", "2999-01-01T00:00:00Z").json
    assert chosen["backup"] != saved
    assert "from 2001" in cli.fails("restore", "-y", "--at", "2001-01-01T00:00:00Z")
    assert fields["id"] == saved


@pytest.fixture
def stay(cli: Cli, saved: str) -> Iterator[Stay]:
    assert saved
    with holding(cli.root).session(Address("ann", "home"), wait_s=0, program="agent.py") as held:
        yield held


def test_while_a_session_is_there_nothing_is_restored_anywhere_and_it_is_named(cli: Cli, stay: Stay) -> None:
    config(cli, settings={"wait_s": 0})
    for words in (("restore", "--yes"), ("restore", "--yes", *HOME)):
        outcome = cli(*words)
        assert (outcome.code, outcome.out) == (1, b"")
        assert stay.session in one_line(outcome.err)
    assert values(cli) == ["w", "w", "w", "w"], "not one of the others, too"
    stay.end()
    cli.ok("restore", "--yes")


def test_an_undo_of_many_names_the_one_in_use_and_undoes_the_others(cli: Cli, saved: str) -> None:
    cli.ok("restore", saved, "--yes")
    config(cli, settings={"wait_s": 0})
    with holding(cli.root).session(Address("ann", "home"), wait_s=0, program="agent.py") as held:
        outcome = cli("restore", "--undo", "--yes")
    assert outcome.code == 1
    assert sorted(outcome.lines) == ["ann/work", "bob/home"]
    assert held.session in outcome.err


def test_a_damaged_backup_is_refused_before_anything_is_touched(cli: Cli, saved: str) -> None:
    path = path_of(cli, saved) / "bob@home.db"
    data = bytearray(path.read_bytes())
    data[4_100] ^= 1
    path.write_bytes(data)
    said = cli.fails("restore", saved, "--yes")
    assert "is damaged" in said
    assert "bob@home.db" in said
    assert values(cli) == ["w", "w", "w", "w"]
    cli.ok("restore", saved, "--yes", "--user", "ann")
    assert values(cli) == ["v", "v", "w", "w"], "what is whole can be had"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cursor", "home"), "--cursor goes with --user"),
        (("nothing",), "nothing"),
        (("--user", "zoe"), "zoe"),
        (("--at", "yesterday"), "yesterday"),
        (("--at", "2026-13-45"), "2026-13-45"),
        (("--as", "x/y"), "3 addresses cannot become one"),
        (("--as", "no address", "--user", "ann", "--cursor", "home"), "no address"),
        (("--into", "relative"), "--into"),
        (("--into", ""), "--into"),
        (("--undo", "--at", "2026-01-01"), "--at does not go with --undo"),
        (("--undo", "--as", "a/b"), "--as does not go with --undo"),
        (("--undo", "--into", "/x"), "--into does not go with --undo"),
        (("--undo", "20261121"), "--undo takes no backup"),
        (("--undo", "--cursor", "home"), "--cursor goes with --user"),
        (("--undo",), "nothing of the last restore can be undone"),
        (("--redo",), "nothing of the last restore can be redone"),
        (("--redo", *HOME), "nothing at ann/home can be redone: no undo"),
        (("--undo", "--redo"), "--undo and --redo do not go together"),
        (("a", "b"), "one word too many"),
        (("--full",), "no option of restore"),
    ],
)
def test_what_cannot_be_restored_is_one_line_and_touches_nothing(
    words: tuple[str, ...], said: str, cli: Cli, saved: str
) -> None:
    assert said in cli.fails("restore", "--yes", *words)
    assert values(cli) == ["w", "w", "w", "w"]
    assert saved in cli.ok("backup", "list").text


def test_a_backup_and_a_moment_together_are_refused(cli: Cli, saved: str) -> None:
    assert "name a backup, or a moment" in cli.fails("restore", saved, "--at", "2999-01-01T00:00:00Z", "--yes")


def test_without_backups_there_is_nothing_to_restore(cli: Cli) -> None:
    assert "there is no backup" in cli.fails("restore", "--yes")
    assert "nothing of the last restore can be undone" in cli.fails("restore", "--undo", "--yes")
