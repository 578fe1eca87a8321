"""Encrypted addresses at the command line: made, sealed anew, their records listed, kept safe and taken back."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from tests.sealed import key_file
from tests.unit.cli.harness import Cli, environment, one_line, spawn

pytestmark = pytest.mark.plain("these encrypt by themselves what they mean to")

AT = ("--user", "agent1", "--cursor", "vault")
VAULT = "agent1/vault"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return key_file(tmp_path)


@pytest.fixture
def cli(root: Path, key: Path) -> Cli:
    """Commands that have a key, at a root with one encrypted entry."""
    found = with_key(root, key)
    found.ok("address", "create", VAULT, "--encrypt")
    found.ok(*AT, "set", "app.x", "1")
    return found


def with_key(root: Path, key: Path | str) -> Cli:
    return Cli(root, {"PRONTODB_KEY_FILE": str(key)})


def value(cli: Cli) -> str:
    return cli.ok(*AT, "get", "app.x").text


def test_a_key_is_made_closed_to_others_and_never_over_another(root: Path, tmp_path: Path) -> None:
    cli, path = Cli(root), tmp_path / "new key"
    assert f"export PRONTODB_KEY_FILE={str(path)!r}" in one_line(cli.ok("secret", "make", str(path)).err)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    made = path.read_text()
    assert len(bytes.fromhex(made)) == 32
    assert "exists" in cli.fails("secret", "make", str(path))
    assert path.read_text() == made
    assert list(root.iterdir()) == []
    assert "FILE" in cli.fails("secret", "make")


def test_an_address_is_encrypted_rekeyed_and_made_plain(root: Path, key: Path) -> None:
    cli = with_key(root, key)
    cli.ok(*AT, "set", "app.x", "1")
    said = cli.ok("address", "encrypt", VAULT).err
    assert f"{VAULT} is encrypted now: 1 entry in" in said
    assert "backups made before are still plain" in said
    [shown] = cli.ok("address", "show", VAULT, "--json").json
    assert shown["encryption"]
    assert f"{VAULT} is encrypted and no key was brought; set PRONTODB_KEY_FILE" in Cli(root).fails(*AT, "get", "app.x")
    assert "is encrypted" in cli.fails("address", "encrypt", VAULT)
    [report] = cli.ok("address", "rekey", VAULT, "--json").json
    assert (report["address"], report["entries"]) == (VAULT, 1)
    assert "cannot be read any more" in cli.ok("address", "rekey", VAULT, "--drop-older").err
    assert value(cli) == "1"
    assert "is plain now" in cli.ok(*AT, "address", "decrypt").err  # without ADDRESS: where commands act
    assert value(Cli(root)) == "1"
    for command in ("rekey", "decrypt"):
        assert "is not encrypted" in cli.fails("address", command, VAULT)


def test_records_are_listed_without_any_key(root: Path, cli: Cli) -> None:
    [record] = Cli(root).ok("secret", "list", "--json").json
    assert (record["address"], record["kind"]) == (VAULT, "file")
    assert Cli(root).ok("secret", "list").text.startswith(f"{record['id']}\t{VAULT}\tfile\t")
    (root / "keys" / f"{record['id']}.json").write_text("{")
    outcome = Cli(root)("secret", "list")
    assert (outcome.code, outcome.out) == (1, b"")
    assert record["id"] in one_line(outcome.err)


@pytest.mark.parametrize("by", ["file", "command", "passphrase"])
def test_a_record_kept_safe_under_another_key_brings_a_lost_one_back(
    root: Path, cli: Cli, tmp_path: Path, by: str
) -> None:
    (tmp_path / "other").mkdir()
    other = key_file(tmp_path / "other")
    options = {
        "file": ("--with-key-file", str(other)),
        "command": ("--with-command", f"cat {other}"),
        "passphrase": ("--with-passphrase",),
    }[by]
    cli.environment["PRONTODB_OTHER_PASSPHRASE"] = "correct horse"
    safe = tmp_path / "safe.json"
    cli.ok("secret", "export", VAULT, "--output", str(safe), *options)
    assert stat.S_IMODE(safe.stat().st_mode) == 0o600
    shutil.rmtree(root / "keys")
    assert "secret import" in cli.fails(*AT, "get", "app.x")
    wrong = cli.fails("secret", "import", str(safe))  # sealed with another key than ours
    assert ("is sealed with a passphrase" if by == "passphrase" else "does not open") in wrong
    assert "is here again" in cli.ok("secret", "import", str(safe), *options).err
    assert value(cli) == "1"
    assert "was here already" in cli.ok("secret", "import", str(safe), *options).err


def test_a_record_goes_through_a_pipe(root: Path, cli: Cli) -> None:
    data = cli.ok("secret", "export", VAULT).out
    shutil.rmtree(root / "keys")
    cli.ok("secret", "import", "-", stdin=data)
    assert value(cli) == "1"
    assert "no exported key record" in cli.fails("secret", "import", "-", stdin=b"x" * 2_000_000)
    assert "stdin is closed" in cli.fails("secret", "import", "-")


def test_what_is_no_file_is_refused_and_not_waited_for(root: Path, key: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in ("pipe", ".", "absent"):
        words = ("secret", "import", str(tmp_path / place))
        done = spawn(root, *words, env=environment(root, PRONTODB_KEY_FILE=str(key)))
        assert (done.code, done.out) == (1, b"")
        assert "cannot be read" in one_line(done.err)


def test_all_records_are_sealed_with_another_key_and_no_address_is_rewritten(
    root: Path, cli: Cli, tmp_path: Path
) -> None:
    cli.ok("address", "create", "agent2/vault", "--encrypt")
    (tmp_path / "other").mkdir()
    new = key_file(tmp_path / "other")
    before = {path: path.read_bytes() for path in root.rglob("keystore.db")}
    assert "new key: 2 key records now, 0 before" in cli.ok("secret", "rotate", "--with-key-file", str(new)).err
    assert {path: path.read_bytes() for path in root.rglob("keystore.db")} == before
    assert "wrong key or damaged" in cli.fails(*AT, "get", "app.x")
    assert value(with_key(root, new)) == "1"
    again = with_key(root, new).ok("secret", "rotate", "--with-key-file", str(new))
    assert "0 key records now, 2 before" in again.err


def test_a_rotation_names_what_is_damaged_and_does_the_others(root: Path, cli: Cli, tmp_path: Path) -> None:
    cli.ok("address", "create", "agent2/vault", "--encrypt")
    ids = {line["address"]: line["id"] for line in cli.ok("secret", "list", "--json").json}
    (root / "keys" / f"{ids['agent2/vault']}.json").write_text("{")
    (tmp_path / "other").mkdir()
    new = key_file(tmp_path / "other")
    outcome = cli("secret", "rotate", "--with-key-file", str(new))
    assert outcome.code == 1
    assert "left as it is: " in outcome.err
    assert "1 key record now" in outcome.err
    assert value(with_key(root, new)) == "1"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("secret", "rotate"), "name the new key"),
        (("secret", "rotate", "--with-key-file", "/a", "--with-keyring", "b"), "do not go together"),
        (("secret", "rotate", "--with-key-file", "/absent/key"), "/absent/key"),
        (("secret", "rotate", "--with-passphrase"), "PRONTODB_OTHER_PASSPHRASE"),
        (("secret", "rotate", "--with-command", "'"), "cannot be taken apart"),
        (("secret", "export", "agent1/absent"), "no key record is of agent1/absent"),
        (("secret", "export", "0123456789abcdef"), "key record 0123456789abcdef is gone"),
        (("address", "encrypt", "agent1/absent"), "agent1/absent"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else "",
)
def test_a_wrong_use_is_one_line_and_changes_nothing(cli: Cli, words: tuple[str, ...], says: str) -> None:
    before = {path.name: path.read_bytes() for path in (cli.root / "keys").iterdir()}
    assert says in cli.fails(*words)
    assert {path.name: path.read_bytes() for path in (cli.root / "keys").iterdir()} == before


def test_a_deletion_says_what_nobody_can_read_any_more(cli: Cli, root: Path) -> None:
    cli.ok("backup")
    assert "is destroyed: nothing can read backups of it any more" in cli.ok("address", "delete", VAULT, "--yes").err
    assert list((root / "keys").glob("*.json")) == []
    assert "is gone" in cli.fails("restore", *AT, "--yes")


def test_keys_come_from_a_command_or_a_passphrase_and_stand_in_no_argument(root: Path, key: Path) -> None:
    for name, variables in (
        ("command", {"PRONTODB_KEY_COMMAND": f"cat {key}"}),
        ("passphrase", {"PRONTODB_PASSPHRASE": "correct horse"}),
    ):
        theirs = Cli(root, variables)
        theirs.ok("address", "create", f"agent1/{name}", "--encrypt")
        theirs.ok("--user", "agent1", "--cursor", name, "set", "a", "1")
        assert theirs.ok("--user", "agent1", "--cursor", name, "get", "a").text == "1"
    wrong = Cli(root, {"PRONTODB_PASSPHRASE": "wrong horse"}).fails(
        "--user", "agent1", "--cursor", "passphrase", "get", "a"
    )
    assert "wrong key or damaged" in wrong
    assert "horse" not in wrong


def test_without_a_terminal_a_passphrase_is_not_asked_for(root: Path) -> None:
    Cli(root, {"PRONTODB_PASSPHRASE": "correct horse"}).ok("address", "create", VAULT, "--encrypt")
    done = spawn(root, *AT, "get", "a")
    assert done.code == 1
    assert "set PRONTODB_PASSPHRASE" in one_line(done.err)


def test_what_an_encryption_removed_is_told_and_the_refused_undo_says_the_truth(root: Path, key: Path) -> None:
    cli = with_key(root, key)
    cli.ok(*AT, "set", "app.x", "1")
    cli.ok("backup", "create")
    assert "put aside" not in cli.ok("address", "encrypt", VAULT).err
    cli.ok("restore", *AT, "--yes")
    assert "put aside" not in cli.ok("address", "rekey", VAULT).err
    assert "1 state that restores had put aside went" in cli.ok("address", "rekey", VAULT, "--drop-older").err
    refused = cli("restore", "--undo", "--yes", *AT)
    assert refused.code != 0
    assert "nothing at agent1/vault can be undone" in refused.err
    assert "rekey --drop-older" in refused.err
    assert "name --user" not in refused.err
    assert "name --user and --cursor" in cli("restore", "--undo", "--yes").err
    cli.ok("address", "decrypt", VAULT)
    cli.ok("restore", *AT, "--yes")
    (report,) = cli.ok("address", "encrypt", VAULT, "--json").json
    assert report["forgotten"] == 1


def test_a_rotation_asks_for_the_new_key_even_where_there_is_nothing_to_seal(root: Path, key: Path) -> None:
    cli = with_key(root, key)
    cli.ok(*AT, "set", "app.x", "1")
    for option, text in (
        ("--with-key-file", "/does/not/exist"),
        ("--with-command", "false"),
        ("--with-passphrase", ""),
    ):
        words = ("secret", "rotate", option, text) if text else ("secret", "rotate", option)
        refused = Cli(root, {"PRONTODB_KEY_FILE": str(key), "PRONTODB_OTHER_PASSPHRASE": "x" * 2_000})(*words)
        assert refused.code == 1, refused
        assert "from now on" not in refused.err
    other = key_file(key.parent, "other")
    assert "0 key records now" in cli.ok("secret", "rotate", "--with-key-file", str(other)).err


def test_encrypting_without_a_key_says_that_it_needs_one(root: Path, key: Path) -> None:
    cli, keyless = with_key(root, key), Cli(root, {})
    cli.ok(*AT, "set", "app.x", "1")
    told = "encrypting agent1/vault needs a key, and no key was brought; set PRONTODB_KEY_FILE"
    assert told in keyless.fails("address", "encrypt", VAULT)
    cli.ok("address", "encrypt", VAULT)
    cli.ok("address", "decrypt", VAULT)
    assert told in keyless.fails("address", "encrypt", VAULT)


def test_an_import_of_something_else_says_that_it_is_no_exported_record(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "else").write_text("root:x:0:0::/root:/bin/sh\n")
    said = cli.fails("secret", "import", str(tmp_path / "else"))
    assert "is no exported key record" in said
    assert "prontodb secret export ADDRESS" in said


def test_a_key_file_that_is_a_link_is_told_to_be_named_itself(root: Path, cli: Cli, key: Path) -> None:
    link = key.with_name("link")
    link.symlink_to(key)
    assert "is a link, and was not followed; name the file itself" in with_key(root, link).fails(*AT, "get", "app.x")


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "x"}'])
def test_settings_that_are_none_say_what_moving_them_away_opens(root: Path, cli: Cli, text: str) -> None:
    path = root / "registry" / "global_config.json"
    path.touch(mode=0o600)
    path.write_text(text)
    for said in (cli.fails(*AT, "set", "app.x", "2"), cli("doctor").text):
        assert said.count("mend it; or move it away, and the defaults hold") == 1, said
        assert "everything is open that its access rules close" in said
