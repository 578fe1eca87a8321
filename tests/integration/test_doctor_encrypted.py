"""What the doctor says of metadata and key records that are wrong: never anything that loses a whole keystore."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sealed import key_file
from tests.unit.cli.harness import Cli

HERE = ("--user", "agent1", "--cursor", "prod")
ADDRESS = "agent1/prod"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return key_file(tmp_path)


@pytest.fixture
def cli(root: Path, key: Path) -> Cli:
    return Cli(root, {"PRONTODB_KEY_FILE": str(key)})


def metadata_of(root: Path) -> Path:
    return root / "addresses" / ADDRESS / "metadata.json"


def record_of(root: Path) -> Path:
    (record,) = (root / "keys").glob("*.json")
    return record


def told(cli: Cli, *more: str) -> str:
    report = cli("doctor", *more)
    return report.text + report.err


def store(cli: Cli, *, encrypted: bool) -> None:
    cli.ok("address", "create", ADDRESS, *(["--encrypt"] if encrypted else []))
    cli.ok(*HERE, "set", "k", "V1")


# Metadata


def nonsense(path: Path) -> None:
    path.write_text("{")


def oversized(path: Path) -> None:
    os.truncate(path, 20 * 1024**3)


def a_link(path: Path) -> None:
    path.rename(path.parents[4] / "moved")
    path.symlink_to(path.parents[4] / "moved")


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


def no_secret(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"encryption": 5, "labels": {"team": "red"}}))


WRONG = [Path.unlink, nonsense, oversized, a_link, a_pipe, a_folder, no_secret]


@pytest.mark.plain("which addresses are encrypted is what is varied")
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
@pytest.mark.parametrize("spoil", WRONG, ids=lambda spoil: spoil.__name__)
def test_wrong_metadata_of_a_whole_keystore_is_made_anew(
    root: Path, cli: Cli, spoil: Callable[[Path], None], encrypted: bool
) -> None:
    store(cli, encrypted=encrypted)
    path = metadata_of(root)
    before = json.loads(path.read_text())
    spoil(path)
    said = told(cli)
    assert "metadata.json" in said
    assert "prontodb doctor --repair" in said
    assert "address delete" not in said
    assert "rm " not in said
    assert "made the metadata of agent1/prod anew" in told(cli, "--repair")
    labels = {"team": "red"} if spoil is no_secret else {}
    assert json.loads(path.read_text()) == before | {"labels": labels}
    assert cli.ok(*HERE, "get", "k").text.strip() == "V1"
    kept = list(path.parent.glob("metadata.json.*"))
    assert len(kept) == (0 if spoil in (Path.unlink, a_link, a_pipe) else 1)
    assert "error" not in told(cli)
    assert all(str(one) in told(cli) for one in kept)


@pytest.mark.plain("it is encrypted by hand")
def test_metadata_of_a_keystore_that_nobody_brought_the_key_for_is_left(root: Path, cli: Cli) -> None:
    store(cli, encrypted=True)
    metadata_of(root).unlink()
    said = told(Cli(root, {}), "--repair")
    assert "no key was brought" in said
    assert "address delete" not in said
    assert not metadata_of(root).exists()


def test_metadata_of_another_address_open_nothing_and_are_made_anew_once_they_are_gone(root: Path, cli: Cli) -> None:
    store(cli, encrypted=True)
    cli.ok("address", "create", "agent1/other", "--encrypt")
    metadata_of(root).write_bytes((root / "addresses" / "agent1" / "other" / "metadata.json").read_bytes())
    assert "remove that, then 'prontodb doctor --repair'" in cli.fails(*HERE, "get", "k")
    metadata_of(root).unlink()
    assert "made the metadata of agent1/prod anew" in told(cli, "--repair")
    assert cli.ok(*HERE, "get", "k").text == "V1"


def test_metadata_of_a_newer_format_is_named_and_left(root: Path, cli: Cli) -> None:
    store(cli, encrypted=False)
    path = metadata_of(root)
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    before = path.read_bytes()
    said = told(cli, "--repair")
    assert "has format 2; this ProntoDB knows formats up to 1" in said
    assert "address delete" not in said
    assert path.read_bytes() == before


def test_with_the_registry_lost_too_the_keystore_says_when_it_was_made(root: Path, cli: Cli) -> None:
    store(cli, encrypted=False)
    metadata_of(root).unlink()
    for path in (root / "registry").glob("address_registry.db*"):
        path.unlink()
    seen = (metadata_of(root).parent / "keystore.db").stat().st_mtime_ns // 1_000_000
    told(cli, "--repair")
    assert json.loads(metadata_of(root).read_text())["created_at"] <= seen + 5_000
    assert json.loads(metadata_of(root).read_text())["created_at"] >= seen - 5_000


# Key records


def linked(path: Path) -> None:
    safe = path.parents[2] / "safe.json"
    path.rename(safe)
    path.symlink_to(safe)


def newer(path: Path) -> None:
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))


def open_to_all(path: Path) -> None:
    path.chmod(0o666)


def in_an_open_folder(path: Path) -> None:
    path.parent.chmod(0o777)


SPOILT = [linked, newer, open_to_all, in_an_open_folder]


@pytest.mark.plain("it is encrypted by hand")
@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("named", [True, False], ids=["named", "metadata lost"])
def test_a_key_record_that_may_not_be_used_costs_no_keystore(
    root: Path, cli: Cli, spoil: Callable[[Path], None], named: bool
) -> None:
    store(cli, encrypted=True)
    if not named:
        metadata_of(root).unlink()
    path = record_of(root)
    spoil(path)
    before = path.read_bytes()
    said = told(cli)
    assert "address delete" not in said
    assert "restore" not in said
    assert path.name in said or str(path.parent) in said
    refused = cli("address", "delete", ADDRESS, "--yes")
    assert refused.code == 1
    assert ("format 2; this ProntoDB knows formats up to 1" in refused.err) == (spoil is newer)
    assert cli("address", "rename", ADDRESS, "agent1/other").code == 1
    assert (root / "addresses" / ADDRESS / "keystore.db").exists()
    assert path.read_bytes() == before


@pytest.mark.plain("it is encrypted by hand")
@pytest.mark.parametrize("spoil", [linked, open_to_all, in_an_open_folder], ids=lambda spoil: spoil.__name__)
def test_what_the_doctor_says_of_a_key_record_mends_it(root: Path, cli: Cli, spoil: Callable[[Path], None]) -> None:
    store(cli, encrypted=True)
    spoil(record_of(root))
    if spoil is linked:
        (line,) = [line for line in told(cli).splitlines() if "cp -- " in line]
        os.system("cp -- " + line.partition("cp -- ")[2])  # as it is pasted
    told(cli, "--repair")
    assert cli.ok(*HERE, "get", "k").text.strip() == "V1"
    assert not record_of(root).is_symlink()
    assert "error" not in told(cli)


@pytest.mark.plain("it is encrypted by hand")
def test_the_way_back_of_a_damaged_encrypted_keystore_encrypts_again(root: Path, cli: Cli) -> None:
    store(cli, encrypted=True)
    os.truncate(root / "addresses" / ADDRESS / "keystore.db", 10_000)
    said = told(cli)
    assert "export > FILE && prontodb address delete agent1/prod --yes && " in said
    assert " && prontodb address create agent1/prod --encrypt && " in said


# Openings


@pytest.mark.plain("roots without a key record look at the metadata in another way")
@pytest.mark.parametrize("argv", [(*HERE, "get", "k"), (*HERE, "set", "k", "V2"), ("audit", "verify")], ids=" ".join)
@pytest.mark.parametrize("spoil", [a_link, a_pipe, a_folder], ids=lambda spoil: spoil.__name__)
def test_metadata_of_a_wrong_kind_are_refused_on_a_root_without_secrets_too(
    root: Path, cli: Cli, spoil: Callable[[Path], None], argv: tuple[str, ...]
) -> None:
    store(cli, encrypted=False)
    assert not (root / "keys").exists()
    spoil(metadata_of(root))
    refused = cli(*argv)
    said = refused.text + refused.err
    assert refused.code == 1
    assert "metadata.json" in said
    assert "mv " in said
