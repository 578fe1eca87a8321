"""Key records: sealed, hostile, lost, exported, rotated; never half, never replaced by less."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prontodb.encryption import records
from prontodb.encryption.keyring import DamagedRecordError, Keyring, Rotation
from prontodb.encryption.records import Keys
from prontodb.encryption.sources import KeyFile, Passphrase
from prontodb.errors import BusyError, CorruptError, NewerFormatError, ProntoError, SecretError
from tests.sealed import key_file, keyring

A, B = "agent1/prod", "agent2/prod"


@pytest.fixture
def ring(root: Path, tmp_path: Path) -> Keyring:
    return keyring(root, key_file(tmp_path))


def file_of(root: Path, record: str) -> Path:
    return root / "keys" / f"{record}.json"


def test_a_secret_comes_back_in_another_process_and_only_with_its_key(
    root: Path, tmp_path: Path, ring: Keyring
) -> None:
    secret = ring.make(A, 1)
    assert keyring(root, tmp_path / "key").secret(secret.name) == secret
    assert file_of(root, secret.record).stat().st_mode & 0o777 == 0o600
    assert (root / "keys").stat().st_mode & 0o777 == 0o700
    text = file_of(root, secret.record).read_bytes()
    assert secret.data_key not in text
    assert secret.data_key.hex().encode() not in text
    with pytest.raises(SecretError, match=r"wrong key or damaged: key record .* it was sealed with another one"):
        keyring(root, key_file(tmp_path, "other")).secret(secret.name)
    with pytest.raises(SecretError, match="no key was brought; set PRONTODB_KEY_FILE"):
        Keyring(str(root), None).secret(secret.name)
    with pytest.raises(SecretError, match="sealed with a file; what was brought is a passphrase"):
        Keyring(str(root), Passphrase("x")).secret(secret.name)


def test_generations_are_added_and_dropped(root: Path, ring: Keyring) -> None:
    first = ring.make(A, 1)
    second = ring.add(first.record)
    assert (second.name, second.chain_key) == (f"{first.record}-2", first.chain_key)
    assert second.data_key != first.data_key
    assert ring.secret(first.name) == first
    ring.drop_older(second)
    assert ring.secret(second.name) == second
    with pytest.raises(SecretError, match=r"generation 1 of key record .* was dropped"):
        ring.secret(first.name)


def test_a_record_that_is_gone_says_how_to_bring_it_back(ring: Keyring) -> None:
    secret = ring.make(A, 1)
    ring.destroy(secret.record)
    ring.destroy(secret.record)
    with pytest.raises(SecretError, match=r"is gone.*prontodb secret import FILE"):
        ring.secret(secret.name)


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


HOSTILE: list[Callable[[dict[str, Any]], object]] = [
    lambda f: f.pop("sealed"), lambda f: f.update(more=1), lambda f: f.update(format="1"), lambda f: f.update(format=0),
    lambda f: f.update(id="../../etc"), lambda f: f.update(address=5), lambda f: f.update(created_at=-1),
    lambda f: f.update(sealed="not base64!"), lambda f: f.update(sealed=""), lambda f: f.update(address="a\x1bb"),
    lambda f: f["wrapped_by"].update(stretch={}), lambda f: f["wrapped_by"].pop("check"),
    lambda f: f["wrapped_by"].update(kind="passphrase"), lambda f: f["wrapped_by"].update(kind="tea"),
    lambda f: f.update(wrapped_by=[]), lambda f: f.update(address="../x"), lambda f: f.update(also="no/such/thing"),
    lambda f: f.pop("also"),
]  # fmt: skip


@pytest.mark.parametrize("change", HOSTILE, ids=map(str, range(len(HOSTILE))))
def test_a_hostile_record_is_one_line_and_keeps_nobody_from_the_others(
    root: Path, tmp_path: Path, ring: Keyring, change: Callable[[dict[str, Any]], object]
) -> None:
    secret, other = ring.make(A, 1), ring.make(B, 1)
    edited(file_of(root, secret.record), change)
    again = keyring(root, tmp_path / "key")
    with pytest.raises(SecretError) as caught:
        again.secret(secret.name)
    assert "\n" not in str(caught.value)
    assert again.secret(other.name) == other


def test_a_record_of_a_newer_format_is_left_alone(root: Path, ring: Keyring) -> None:
    secret = ring.make(A, 1)
    edited(file_of(root, secret.record), lambda fields: fields.update(format=2))
    with pytest.raises(NewerFormatError):
        Keyring(str(root), ring.source).secret(secret.name)


RUBBISH = {
    "empty": b"",
    "cut": b"{",
    "list": b"[]",
    "no text": b"\xff",
    "deep": b"{" * 60_000,
    "long": b" " * 1_100_000,
}


@pytest.mark.parametrize("data", RUBBISH.values(), ids=RUBBISH)
def test_rubbish_is_no_record(root: Path, ring: Keyring, data: bytes) -> None:
    secret = ring.make(A, 1)
    file_of(root, secret.record).write_bytes(data)
    with pytest.raises(DamagedRecordError, match="bring it back: prontodb secret import FILE"):
        Keyring(str(root), ring.source).secret(secret.name)


def test_a_record_put_in_the_place_of_another_is_noticed(root: Path, ring: Keyring) -> None:
    one, two = ring.make(A, 1), ring.make(B, 1)
    file_of(root, one.record).write_bytes(file_of(root, two.record).read_bytes())
    with pytest.raises(DamagedRecordError, match="it is the record"):
        Keyring(str(root), ring.source).secret(one.name)
    edited(file_of(root, one.record), lambda fields: fields.update(id=one.record))
    with pytest.raises(SecretError, match="the record is not as it was written"):
        Keyring(str(root), ring.source).secret(one.name)


def test_links_pipes_and_records_open_to_others_are_refused_or_closed(root: Path, ring: Keyring) -> None:
    secret = ring.make(A, 1)
    path = file_of(root, secret.record)
    path.chmod(0o666)
    with pytest.raises(ProntoError, match="can be written by others"):
        Keyring(str(root), ring.source).secret(secret.name)
    path.chmod(0o644)
    assert Keyring(str(root), ring.source).secret(secret.name) == secret
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(ProntoError, match="not a regular file"):
        Keyring(str(root), ring.source).secret(secret.name)


# Rotation


def test_rotation_seals_all_anew_and_none_of_the_secrets_changes(root: Path, tmp_path: Path, ring: Keyring) -> None:
    secrets = [ring.make(f"a{n}/x", 1) for n in range(5)]
    new = KeyFile(key_file(tmp_path, "new"))
    assert ring.rotate(new) == Rotation(done=5, before=0)
    assert [Keyring(str(root), new).secret(secret.name) for secret in secrets] == secrets
    with pytest.raises(SecretError):
        Keyring(str(root), ring.source).secret(secrets[0].name)


def test_a_rotation_that_was_killed_goes_on(root: Path, tmp_path: Path, ring: Keyring) -> None:
    secrets = [ring.make(f"a{n}/x", 1) for n in range(4)]
    new = KeyFile(key_file(tmp_path, "new"))
    half = secrets[1]
    record = ring.record(half.record)
    anew = records.sealed(ring.keys(record), record.address, 1, new, None)
    file_of(root, half.record).write_bytes(anew.encode())
    assert Keyring(str(root), ring.source).rotate(new) == Rotation(done=3, before=1)
    assert [Keyring(str(root), new).secret(secret.name) for secret in secrets] == secrets


def test_a_rotation_with_a_record_that_does_not_open_changes_nothing(root: Path, tmp_path: Path, ring: Keyring) -> None:
    secret = ring.make(A, 1)
    keyring(root, key_file(tmp_path, "strange")).make(B, 1)
    before = {path.name: path.read_bytes() for path in (root / "keys").iterdir()}
    with pytest.raises(SecretError, match="wrong key or damaged"):
        ring.rotate(KeyFile(key_file(tmp_path, "new")))
    assert {path.name: path.read_bytes() for path in (root / "keys").iterdir()} == before
    assert ring.secret(secret.name) == secret


def test_a_passphrase_is_stretched_once_for_all_records(root: Path, ring: Keyring) -> None:
    secret = ring.make(A, 1)
    ring.make(B, 1)
    phrase = Passphrase("correct horse")
    ring.rotate(phrase)
    again = Keyring(str(root), Passphrase("correct horse"))
    third = again.make("c/x", 1)
    stretches = {again.record(record).stretch.salt for record in again.ids()}  # type: ignore[union-attr]
    assert len(stretches) == 1
    assert again.secret(secret.name) == secret
    assert Keyring(str(root), Passphrase("correct horse")).secret(third.name) == third
    with pytest.raises(SecretError, match="wrong key or damaged"):
        Keyring(str(root), Passphrase("wrong horse")).secret(secret.name)


# Export, import


def test_an_exported_record_is_taken_back(root: Path, tmp_path: Path, ring: Keyring) -> None:
    secret = ring.make(A, 1)
    plain, sealed = ring.exported(ring.record(secret.record), None), Passphrase("safe place")
    other = ring.exported(ring.record(secret.record), sealed)
    ring.destroy(secret.record)
    record, is_new, aside = keyring(root, tmp_path / "key").imported(plain, None)
    assert (record.id, is_new, aside) == (secret.record, True, None)
    assert keyring(root, tmp_path / "key").secret(secret.name) == secret
    assert ring.imported(other, Passphrase("safe place"))[1] is False
    with pytest.raises(SecretError, match="sealed with a passphrase"):
        ring.imported(other, None)


def test_an_older_export_never_replaces_a_record_that_holds_more(ring: Keyring) -> None:
    first = ring.make(A, 1)
    old = ring.exported(ring.record(first.record), None)
    second = ring.add(first.record)
    assert ring.imported(old, None)[1] is False
    ring.drop_older(second)
    with pytest.raises(SecretError, match="is here with other keys; it stays as it is"):
        ring.imported(old, None)
    assert ring.secret(second.name) == second


def test_what_is_no_record_is_not_imported(ring: Keyring) -> None:
    for data in (b"", b"{}", b'{"format": 1}'):
        with pytest.raises(CorruptError):
            ring.imported(data, None)
    assert ring.ids() == []


# Whose a record is


def test_a_record_opens_for_its_own_address_alone(ring: Keyring) -> None:
    secret = ring.make(A, 1)
    assert ring.secret(secret.name, A) == secret
    with pytest.raises(SecretError, match=rf"the metadata of {B} names key record .* of {A}, which is not its own"):
        ring.secret(secret.name, B)
    ring.renaming(secret.record, A, B)
    assert ring.secret(secret.name, A) == ring.secret(secret.name, B) == secret
    assert (ring.is_of(secret.record, A), ring.is_of(secret.record, B)) == (True, True)
    ring.settle(secret.record, B)
    assert (ring.is_of(secret.record, A), ring.is_of(secret.record, B)) == (False, True)


def test_all_secrets_of_an_address_are_found_the_newest_of_each_record_first(ring: Keyring) -> None:
    one, other = ring.make(A, 1), ring.make(A, 2)
    ring.make(B, 1)
    late = ring.add(one.record)
    found = ring.secrets_of(A)
    assert sorted(secret.name for secret in found) == sorted((one.name, late.name, other.name))
    assert found.index(late) < found.index(one)


# Room


def test_a_full_record_is_refused_before_it_is_written_and_forgetting_makes_room(
    ring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_SECRETS", 3)
    secret = ring.make(A, 1)
    ring.add(secret.record)
    last = ring.add(secret.record)
    with pytest.raises(SecretError, match=r"holds 3 secrets, as many as one can.*--drop-older"):
        ring.add(secret.record)
    assert ring.secret(last.name) == last
    fourth = ring.add(secret.record, forgetting=True)
    ring.drop_older(fourth)
    assert ring.add(secret.record).generation == 5


def test_the_largest_record_can_be_read(root: Path, ring: Keyring) -> None:
    secret = ring.make(A, 1)
    record = ring.record(secret.record)
    numbers = range(records.MAX_GENERATION - records.MAX_SECRETS - 100, records.MAX_GENERATION)
    full = Keys(secret.record, dict.fromkeys(numbers, secret.data_key), secret.chain_key)
    assert ring.source is not None
    data = record.resealed(full, ring.source, None).encode()
    assert len(data) <= records.MAX_RECORD_BYTES
    file_of(root, secret.record).write_bytes(data)
    assert ring.newest(secret.record).generation == records.MAX_GENERATION - 1


# One at a time


def test_no_rotation_brings_back_what_was_destroyed_meanwhile(
    root: Path, tmp_path: Path, ring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = ring.make(A, 1)
    other = Keyring(str(root), ring.source, wait_s=0)
    tried = []

    def destroyed(*args: Any) -> Any:
        with pytest.raises(BusyError):
            other.destroy(secret.record)
        with pytest.raises(BusyError):
            other.make(B, 1)
        tried.append(1)
        return sealed(*args)

    sealed = records.sealed
    monkeypatch.setattr(records, "sealed", destroyed)
    new = KeyFile(key_file(tmp_path, "new"))
    ring.rotate(new)
    assert tried
    assert Keyring(str(root), new).secret(secret.name) == secret


def test_what_a_kill_left_of_a_record_goes_with_it(root: Path, ring: Keyring) -> None:
    secret, other = ring.make(A, 1), ring.make(B, 1)
    left, foreign = root / "keys" / f".{secret.record}.json.abc123.tmp", root / "keys" / f".{other.record}.json.x.tmp"
    aside = root / "keys" / f"{secret.record}.17.aside"
    for path in (left, foreign, aside):
        path.write_bytes(file_of(root, secret.record).read_bytes())
        path.chmod(0o600)
    ring.destroy(secret.record)
    assert not left.exists()
    assert not aside.exists()
    assert foreign.exists()
    assert ring.remains() == [str(foreign)]
    ring.tidy()
    assert ring.remains() == []
    assert ring.secret(other.name) == other


def test_a_damaged_record_keeps_no_rotation_from_the_others(root: Path, tmp_path: Path, ring: Keyring) -> None:
    secret = ring.make(A, 1)
    stray = root / "keys" / "0000000000000000.json"
    stray.touch(mode=0o600)
    new = KeyFile(key_file(tmp_path, "new"))
    rotation = ring.rotate(new)
    assert (rotation.done, len(rotation.damaged)) == (1, 1)
    assert "0000000000000000" in rotation.damaged[0]
    assert Keyring(str(root), new).secret(secret.name) == secret


# Bringing back


@pytest.mark.parametrize("data", RUBBISH.values(), ids=RUBBISH)
def test_an_import_takes_the_place_of_a_damaged_record_which_is_kept(root: Path, ring: Keyring, data: bytes) -> None:
    secret = ring.make(A, 1)
    safe = ring.exported(ring.record(secret.record), None)
    file_of(root, secret.record).write_bytes(data)
    _, is_new, aside = ring.imported(safe, None)
    assert is_new
    assert aside is not None
    assert Path(aside).read_bytes() == data
    assert ring.aside() == [aside]
    assert Keyring(str(root), ring.source).secret(secret.name) == secret


def test_an_import_takes_the_place_of_a_record_whose_key_is_lost(root: Path, tmp_path: Path, ring: Keyring) -> None:
    secret = ring.make(A, 1)
    safe = ring.exported(ring.record(secret.record), None)
    lost = KeyFile(key_file(tmp_path, "lost"))
    ring.rotate(lost)
    again = Keyring(str(root), ring.source)
    _, is_new, aside = again.imported(safe, None)
    assert is_new
    assert again.secret(secret.name) == secret
    assert aside is not None
    found = Keyring(str(root), lost).imported(Path(aside).read_bytes(), None)  # the key was found again
    assert found[1]


def test_an_import_can_say_whose_it_is_now(ring: Keyring) -> None:
    secret = ring.make(A, 1)
    safe = ring.exported(ring.record(secret.record), None)
    for destroyed in (True, False):
        if destroyed:
            ring.destroy(secret.record)
        record, is_new, _ = ring.imported(safe, None, B)
        assert (record.address, is_new) == (B, destroyed)
        assert ring.secret(secret.name, B) == secret
        ring.settle(secret.record, A)
