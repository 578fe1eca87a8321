"""Damaged, edited and hostile backups: verifying names them, restoring refuses them, every error is one of ours."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prontodb.backup.container import faults, file_fault
from prontodb.backup.manifest import MANIFEST_FILE, Manifest, decode
from prontodb.backup.verify import Verifying
from prontodb.errors import CorruptError, NotFoundError, ProntoError
from prontodb.storage.files import open_root
from tests.backups import Root, edited, finished, image, rehashed
from tests.unit.backup.test_manifest import signed
from tests.unit.stores import done

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ADDRESSES = ("a/x", "a/y", "b/z")
BESIDES = ("backups", "jobs.db", "jobs.db-wal", "jobs.db-shm")


class Damaged:
    """A root with a full backup and three increments of three addresses, changed since; `folders`: of the backups."""

    def __init__(self, path: Path, template: Path) -> None:
        shutil.copytree(template, path)
        self.root = Root(path)
        self.root.clock.advance(100)
        manifests = self.root.listing().backups
        self.folders = [path / "backups" / one.kind / one.id for one in manifests]
        self.ids = [one.id for one in manifests]
        self.outside = path.parent

    def verify(self) -> dict[str, str]:
        """What verifying everything says of each backup."""
        return dict(self.root.verify().problems)

    def verify_one(self, backup: str) -> dict[str, str]:
        """What verifying one says; a backup whose manifest cannot be read is named by the error."""
        try:
            return dict(self.root.verify(backup).problems)
        except (CorruptError, NotFoundError) as error:
            return {backup: str(error)}

    def refuses(self, backup: str, **options: Any) -> None:
        """Restoring raises an error of ours, and no byte outside the backups changes."""
        before = image(self.root.path, but=BESIDES)
        with pytest.raises(ProntoError):
            self.root.restore(backup, **options)
        assert image(self.root.path, but=BESIDES) == before

    def manifests(self) -> list[Manifest]:
        return [decode((folder / MANIFEST_FILE).read_bytes(), "x") for folder in self.folders]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root that every test has a copy of."""
    path = tmp_path_factory.mktemp("template") / "root"
    path.mkdir(mode=0o700)
    root = Root(path)
    for address in ADDRESSES:
        done(root.at(address).set_many({f"k{n}": f"{address} {n}" for n in range(6)}))
    root.full()
    for n in range(3):
        for address in ADDRESSES:
            done(root.at(address).set(f"k{n}", f"changed {n}"))
            done(root.at(address).delete(f"k{n + 3}"))
        root.backup()
    for address in ADDRESSES:
        done(root.at(address).set("k0", "since then"))
    root.close()
    return path


@pytest.fixture
def shop(tmp_path: Path, template: Path) -> Iterator[Damaged]:
    opened = Damaged(tmp_path / "root", template)
    yield opened
    opened.root.close()


def test_undamaged_it_is_whole_and_can_be_restored(shop: Damaged) -> None:
    assert shop.verify() == {}
    assert [shop.verify_one(backup) for backup in shop.ids] == [{}] * 4
    assert len(shop.root.restore().restored) == 3


# Bits


def flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1 << (at % 8)
    return bytes(changed)


def faulty(folder: Path, manifest: Manifest) -> list[str]:
    """The files that differ from the manifest, as verifying finds them."""
    with open_root(str(folder)) as opened:
        return [fault for fault, _ in faults(opened, manifest) if fault is not None]


@pytest.mark.slow
def test_a_flipped_bit_at_any_byte_of_a_segment_is_found(shop: Damaged) -> None:
    found = 0
    for folder, manifest in list(zip(shop.folders, shop.manifests(), strict=True))[1:]:
        for file in sorted(folder.glob("*.zst")):
            data = file.read_bytes()
            piece = next(one for one in manifest.pieces if one.file == file.name)
            with open_root(str(folder)) as opened:
                for at in range(len(data)):
                    file.write_bytes(flipped(data, at))
                    assert file_fault(opened, piece), at
                    found += 1
            file.write_bytes(data)
    assert found > 2_000
    assert shop.verify() == {}


@pytest.mark.slow
def test_a_flipped_bit_at_any_byte_of_a_manifest_is_found(shop: Damaged) -> None:
    for folder in shop.folders:
        data = (folder / MANIFEST_FILE).read_bytes()
        for at in range(len(data)):
            with pytest.raises(ProntoError):
                decode(flipped(data, at), "x")


@pytest.mark.slow
def test_a_flipped_bit_at_every_64th_byte_of_a_snapshot_is_found(shop: Damaged) -> None:
    manifest = shop.manifests()[0]
    for file in sorted(shop.folders[0].glob("*.db")):
        data = file.read_bytes()
        for at in range(0, len(data), 64):
            file.write_bytes(flipped(data, at))
            assert len(faulty(shop.folders[0], manifest)) == 1, at
        file.write_bytes(data)


@pytest.mark.slow
def test_whatever_bit_flips_verifying_names_it_and_restoring_refuses_it(shop: Damaged) -> None:
    """The same from end to end, at a few places of each file."""
    rng = random.Random(7)
    for folder in shop.folders:
        for file in sorted(folder.iterdir()):
            data = file.read_bytes()
            for at in (0, len(data) - 2, *(rng.randrange(len(data)) for _ in range(2))):
                file.write_bytes(flipped(data, at))
                assert folder.name in shop.verify(), (file.name, at)
            assert shop.verify_one(shop.ids[3]), file.name
            shop.refuses(shop.ids[3])
            file.write_bytes(data)
    assert shop.verify() == {}


@pytest.mark.slow
def test_every_truncation_is_found(shop: Damaged) -> None:
    for folder, manifest in zip(shop.folders, shop.manifests(), strict=True):
        for file in sorted(folder.iterdir()):
            data = file.read_bytes()
            for size in range(
                0, len(data) - 1, 5 if file.suffix == ".zst" else 37 if file.suffix == ".json" else 1_024
            ):
                if file.name == MANIFEST_FILE:
                    with pytest.raises(CorruptError):
                        decode(data[:size], "x")
                    continue
                file.write_bytes(data[:size])
                assert file.name in faulty(folder, manifest)[0]
            file.write_bytes(data[: len(data) // 2])
            assert folder.name in shop.verify()
            shop.refuses(shop.ids[3])
            file.write_bytes(data)


# Files and folders


def swap(one: Path, other: Path) -> None:
    aside = one.parent / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def hole(path: Path) -> None:
    os.truncate(path, 2**40)


def instead(path: Path, make: Callable[[Path], object]) -> None:
    """Have something else in the place of a file or folder."""
    path.rename(path.parent / "aside")
    make(path)


def add(path: Path, data: bytes) -> None:
    path.write_bytes(path.read_bytes() + data)


DAMAGES: dict[str, Callable[[list[Path]], object]] = {
    "a segment is missing": lambda f: (f[2] / "a@x.jsonl.zst").unlink(),
    "a snapshot is missing": lambda f: (f[0] / "a@x.db").unlink(),
    "a manifest is missing": lambda f: (f[3] / MANIFEST_FILE).unlink(),
    "a manifest in the middle is missing": lambda f: (f[1] / MANIFEST_FILE).unlink(),
    "a backup in the middle is missing": lambda f: shutil.rmtree(f[1]),
    "the full backup is missing": lambda f: shutil.rmtree(f[0]),
    "a segment is empty": lambda f: (f[2] / "a@x.jsonl.zst").write_bytes(b""),
    "a snapshot is empty": lambda f: (f[0] / "a@x.db").write_bytes(b""),
    "a manifest is empty": lambda f: (f[3] / MANIFEST_FILE).write_bytes(b""),
    "something follows a segment": lambda f: add(f[2] / "a@x.jsonl.zst", b"\0"),
    "something follows a snapshot": lambda f: add(f[0] / "a@x.db", b"\0"),
    "something follows a manifest": lambda f: add(f[3] / MANIFEST_FILE, b"x"),
    "files of one backup are swapped": lambda f: swap(f[2] / "a@x.jsonl.zst", f[2] / "a@y.jsonl.zst"),
    "snapshots are swapped": lambda f: swap(f[0] / "a@x.db", f[0] / "a@y.db"),
    "files of two backups are swapped": lambda f: swap(f[2] / "a@x.jsonl.zst", f[3] / "a@x.jsonl.zst"),
    "manifests are swapped": lambda f: swap(f[2] / MANIFEST_FILE, f[3] / MANIFEST_FILE),
    "folders are swapped": lambda f: swap(f[2], f[3]),
    "a folder has another's name": lambda f: instead(f[3], f[2].rename),
    "a file is a folder": lambda f: instead(f[2] / "a@x.jsonl.zst", lambda path: path.mkdir(0o700)),
    "a file is a pipe": lambda f: instead(f[3] / "a@x.jsonl.zst", lambda path: os.mkfifo(path, 0o600)),
    "a manifest is a pipe": lambda f: instead(f[3] / MANIFEST_FILE, lambda path: os.mkfifo(path, 0o600)),
    "a manifest is huge": lambda f: hole(f[3] / MANIFEST_FILE),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named_and_not_restored(shop: Damaged, name: str) -> None:
    DAMAGES[name](shop.folders)
    assert shop.verify()
    assert shop.verify_one(shop.ids[3])
    shop.refuses(shop.ids[3])
    shop.refuses(shop.ids[3], user="a", cursor="x")


@pytest.mark.parametrize("name", ["note.txt", "a@w.db", ".hidden", "A@X.db"])
def test_what_does_not_belong_to_a_backup_is_named_and_does_no_harm(shop: Damaged, name: str) -> None:
    (shop.folders[2] / name).write_text("x")
    assert name in shop.verify()[shop.ids[2]]
    assert shop.verify_one(shop.ids[3]).keys() == {shop.ids[2]}
    assert len(shop.root.restore(shop.ids[3]).restored) == 3


def test_what_is_damaged_below_does_not_keep_the_older_ones_from_being_restored(shop: Damaged) -> None:
    (shop.folders[2] / "a@x.jsonl.zst").write_bytes(b"x")
    assert shop.root.restore(shop.ids[1]).failed == ()
    assert shop.verify_one(shop.ids[1]) == {}
    shop.refuses(shop.ids[2])
    # Of the addresses that the damage is not of, the newest state is there still.
    assert shop.root.restore(shop.ids[3], user="b", cursor="z").failed == ()


@pytest.mark.parametrize("kind", ["link", "newer snapshot", "newer segment"])
def test_verifying_says_what_is_wrong_and_raises_nothing(shop: Damaged, kind: str) -> None:
    file = shop.folders[0] / "a@x.db"
    data = bytearray(file.read_bytes())
    if kind == "link":
        file.rename(shop.outside / "elsewhere.db")
        file.symlink_to(shop.outside / "elsewhere.db")
    elif kind == "newer snapshot":
        data[63] = 9  # user_version
        rehashed(shop.folders[0], file.name, bytes(data))
    else:
        lines = zstd.decompress((shop.folders[1] / "a@x.jsonl.zst").read_bytes())
        lines = lines.replace(b'"format":1', b'"format":9')
        rehashed(shop.folders[1], "a@x.jsonl.zst", zstd.compress(lines), len(lines))
    assert shop.verify()


class First(random.Random):
    """Chance that always takes what comes first."""

    def choice(self, seq: Any) -> Any:
        return seq[0]


def test_a_broken_chain_is_named_though_a_newer_full_backup_is_whole(shop: Damaged) -> None:
    shop.root.full()
    shutil.rmtree(shop.folders[2])
    container = shop.root.container
    report = finished(Verifying(container, container.list(), only=None, rng=First()).steps())
    assert shop.ids[3] in dict(report.problems)
    shop.refuses(shop.ids[3])


def test_a_backup_that_lies_in_two_places_is_named(shop: Damaged) -> None:
    shutil.copytree(shop.folders[3], shop.root.path / "backups" / "full" / shop.ids[3])
    (shop.folders[3] / "a@x.jsonl.zst").write_bytes(b"x")
    assert shop.verify()


# Manifests that were edited, and given the right hash


EDITS: dict[str, object] = {
    "revision": 99,
    "chain": "00" * 16,
    "incarnation": "00" * 16,
    "entries": 2,
    "digest": "00" * 32,
    "sha256": "00" * 32,
    "size_bytes": 5,
    "raw_bytes": 5,
    "since": 5,
}


# What these say of a snapshot: see below.
_NOT_OF_A_SNAPSHOT = ("raw_bytes", "since", "chain", "incarnation")


@pytest.mark.parametrize(
    ("number", "field"),
    [(number, field) for number in (0, 1, 3) for field in EDITS if number or field not in _NOT_OF_A_SNAPSHOT],
)
def test_a_manifest_that_contradicts_its_files_is_found_out(shop: Damaged, number: int, field: str) -> None:
    edited(shop.folders[number] / MANIFEST_FILE, lambda found: found["pieces"][0].update({field: EDITS[field]}))
    assert shop.verify()
    assert shop.verify_one(shop.ids[3])
    shop.refuses(shop.ids[3], user="a", cursor="x")


@pytest.mark.parametrize("field", ["chain", "incarnation"])
def test_a_snapshot_at_another_place_in_the_history_is_found_out_in_a_chain_too(shop: Damaged, field: str) -> None:
    edited(shop.folders[0] / MANIFEST_FILE, lambda found: found["pieces"][0].update({field: EDITS[field]}))
    assert shop.verify_one(shop.ids[0])
    assert shop.verify_one(shop.ids[3])


@pytest.mark.parametrize("parent", [0, 1, 3])
def test_a_piece_that_says_to_build_on_another_is_found_out(shop: Damaged, parent: int) -> None:
    edited(shop.folders[3] / MANIFEST_FILE, lambda found: found["pieces"][0].update(parent=shop.ids[parent]))
    assert shop.verify()
    shop.refuses(shop.ids[3], user="a", cursor="x")


def test_a_piece_that_was_taken_out_is_missed_by_what_builds_on_it(shop: Damaged) -> None:
    edited(shop.folders[2] / MANIFEST_FILE, lambda found: found["pieces"].pop(0))
    assert "a@x.jsonl.zst" in shop.verify()[shop.ids[2]]
    shop.refuses(shop.ids[3], user="a", cursor="x")


def test_an_address_whose_contents_contradict_stays_as_it_was_and_is_named(shop: Damaged) -> None:
    edited(shop.folders[3] / MANIFEST_FILE, lambda found: found["pieces"][1].update(digest="00" * 32))
    before = shop.root.states()
    report = shop.root.restore(shop.ids[3])
    assert [address for address, _ in report.failed] == ["a/y"]
    assert shop.root.state("a/y") == before["a/y"]
    assert [path.name for path in shop.root.path.rglob(".new-*")] == []


@pytest.mark.parametrize("number", [0, 2])
def test_a_floor_that_contradicts_the_snapshot_is_found_out(shop: Damaged, number: int) -> None:
    edited(shop.folders[number] / MANIFEST_FILE, lambda found: found["pieces"][0].update(floor=3))
    assert shop.verify()


# Hostile manifests


def plain(shop: Damaged, number: int = 3) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shop.folders[number] / MANIFEST_FILE).read_text())
    return found


def hostile(shop: Damaged) -> Iterator[tuple[str, bytes]]:
    """Manifests that somebody made up, most with the right hash."""
    for name in ("../../../../etc/passwd", "/etc/passwd", "..", "a@x.jsonl.zst/../../x", "\0", "a" * 5_000):
        found = plain(shop)
        found["pieces"][0]["file"] = name
        yield f"file {name[:20]!r}", signed(found)
    for name in ("../x", "a/../../b", "a", "", "a/x/y", "\ud800/x", "A/x\n"):
        found = plain(shop)
        found["pieces"][0] |= {"address": name, "file": f"{name.replace('/', '@')}.jsonl.zst"}
        yield f"address {name!r}", signed(found)
    for number in (2**63, -1, 10**400, 1.5, True, None):
        for field in ("size_bytes", "raw_bytes", "revision", "entries", "at_ms"):
            found = plain(shop)
            found["pieces"][0][field] = number
            yield f"{field} {str(number)[:9]}", signed(found)
    found = plain(shop)
    found["pieces"] *= 2
    yield "twice", signed(found)
    yield "deep", b'{"format": 1, "pieces": ' + b"[" * 200_000
    text = signed(plain(shop))
    yield "duplicate", text[:-2] + b', "format": 1}'
    yield "newer", json.dumps({"format": 2}).encode()
    yield "another's", (shop.folders[2] / MANIFEST_FILE).read_bytes()
    yield "no object", b"[]"
    for parent in ("../full/x", "", "x" * 99):
        yield f"parent {parent[:9]}", signed(plain(shop) | {"parent": parent})


@pytest.mark.slow
def test_a_hostile_manifest_is_named_used_by_nobody_and_hides_no_other(shop: Damaged) -> None:
    file = shop.folders[3] / MANIFEST_FILE
    tried = 0
    for name, data in list(hostile(shop)):
        file.write_bytes(data)
        listing = shop.root.listing()
        assert [broken.id for broken in listing.unreadable] == [shop.ids[3]], name
        assert [one.id for one in listing.backups] == shop.ids[:3], name
        tried += 1
        if tried % 8 == 0:
            assert shop.verify().keys() == {shop.ids[3]}, name
            shop.refuses(shop.ids[3])
            assert finished(shop.root.work.prune()).removed == (), name
    assert tried > 40
    # And a new backup is made beside it, on what can be read.
    report = shop.root.backup()
    assert (report.parent, report.failed) == (shop.ids[2], ())


def test_huge_but_possible_numbers_do_no_harm(shop: Damaged) -> None:
    for field in ("size_bytes", "raw_bytes", "revision", "entries", "since"):
        before = (shop.folders[3] / MANIFEST_FILE).read_bytes()
        found = json.loads(before)
        found["pieces"][0][field] = 2**63 - 1
        (shop.folders[3] / MANIFEST_FILE).write_bytes(signed(found))
        assert shop.ids[3] in shop.verify(), field
        shop.refuses(shop.ids[3], user="a", cursor="x")
        (shop.folders[3] / MANIFEST_FILE).write_bytes(before)
    edited(shop.folders[3] / MANIFEST_FILE, lambda found: found.update(created_at_ms=10**14, unchanged=2**63 - 1))
    assert finished(shop.root.work.prune()).removed == ()
    assert shop.root.restore().backup == shop.ids[3]


@pytest.mark.parametrize("created_at_ms", [253_402_300_799_999, 2**62, 2**63 - 1])
def test_a_backup_from_the_end_of_time_keeps_nobody_from_making_another(shop: Damaged, created_at_ms: int) -> None:
    edited(shop.folders[3] / MANIFEST_FILE, lambda found: found.update(created_at_ms=created_at_ms))
    report = shop.root.backup()
    assert report.id in shop.root.ids()
    assert [broken.id for broken in shop.root.listing().unreadable] == [shop.ids[3]]


# Hostile segments, of which the manifest says that they belong there


def frames(raw: bytes) -> dict[str, bytes]:
    half = len(raw) // 2
    return {
        "trailing": zstd.compress(raw) + b"\0",
        "two frames": zstd.compress(raw[:half]) + zstd.compress(raw[half:]),
        "skippable": b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + zstd.compress(raw) + b"\x50\x2a\x4d\x18\x00\x00\x00\x00",
        "cut": zstd.compress(raw)[:-3],
        "no frame": raw,
        "empty": b"",
        "empty frame": zstd.compress(b""),
        "zeros": zstd.compress(bytes(200_000_000)),
        "lines": zstd.compress(b"\n" * 50_000_000),
        "doubled": zstd.compress(raw + raw),
    }


@pytest.mark.slow
def test_a_hostile_segment_is_named_and_never_restored(shop: Damaged) -> None:
    file = shop.folders[3] / "a@x.jsonl.zst"
    raw = zstd.decompress(file.read_bytes())
    for name, data in frames(raw).items():
        rehashed(shop.folders[3], file.name, data)
        assert shop.verify_one(shop.ids[3]).keys() == {shop.ids[3]}, name
        shop.refuses(shop.ids[3], user="a", cursor="x")


@pytest.mark.slow
def test_a_hostile_snapshot_with_the_right_hash_is_refused_or_has_the_right_contents(shop: Damaged) -> None:
    """A flipped bit that the manifest was made to agree with: what is restored is what its digest says, or nothing."""
    file = shop.folders[0] / "a@x.db"
    data, rng, into = file.read_bytes(), random.Random(3), shop.outside / "into"
    right = [row[:2] for row in _entries(shop, into, shop.ids[0])]
    outcomes = set()
    for at in [*range(16, 100, 4), *(rng.randrange(len(data)) for _ in range(20))]:
        rehashed(shop.folders[0], file.name, flipped(data, at))
        try:
            assert [row[:2] for row in _entries(shop, into, shop.ids[0])] == right, at
            outcomes.add("restored")
        except ProntoError:
            outcomes.add("refused")
    assert outcomes == {"restored", "refused"}


def _entries(shop: Damaged, into: Path, backup: str) -> list[Any]:
    shutil.rmtree(into, ignore_errors=True)
    shop.root.restore(backup, user="a", cursor="x", into=str(into))
    found: list[Any] = Root(into).state("a/x")["entries"]
    return found


@pytest.mark.parametrize("content", [b"garbage" * 1_000, b"SQLite format 3\0" + bytes(8_000), b""])
def test_what_is_no_keystore_is_not_restored_whatever_its_hash(shop: Damaged, content: bytes) -> None:
    rehashed(shop.folders[0], "a@x.db", content)
    assert shop.verify()
    shop.refuses(shop.ids[0], user="a", cursor="x")
