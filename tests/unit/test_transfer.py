"""Export and import: what comes out goes in again, and a wrong file writes nothing at all."""

import errno
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prontodb import transfer
from prontodb.composition import open_manager
from prontodb.direct import OneShot
from prontodb.errors import (
    ConflictError,
    CorruptError,
    InvalidImportError,
    InvalidInputError,
    ProntoError,
    QuotaExceededError,
    RevisionConflictError,
    UnavailableError,
)
from prontodb.keystore import Keystore
from prontodb.model.address import Address
from prontodb.model.limits import Limits
from prontodb.model.reports import ImportReport
from prontodb.transfer import export_lines, import_file, import_lines
from tests.checking import keystore_faults
from tests.unit.stores import Stores, done, expiries, listed, values

THREE_A_BATCH = Limits(max_batch_ops=3, max_page=2, wait_s=0)
EXACT = {"created_at", "updated_at", "revision"}  # the store's own, given anew by an import


@pytest.fixture
def stores(root: Path) -> Iterator[Stores]:
    found = Stores(str(root))
    yield found
    found.close()
    for user in sorted(os.listdir(root / "addresses")) if (root / "addresses").exists() else []:
        for cursor in sorted(os.listdir(root / "addresses" / user)):
            assert keystore_faults(str(root), Address(user, cursor)) == []


def filled(stores: Stores, address: str = "a/source", count: int = 10) -> Keystore:
    keystore = stores.at(address)
    done(keystore.set_many({f"k{number:03}": str(number) for number in range(count)}))
    return keystore


def plain(*keys: str) -> list[str]:
    return [json.dumps({"key": key, "value": f"new {key}"}) for key in keys]


# Export


def test_an_export_has_a_head_its_entries_in_order_and_an_end(stores: Stores) -> None:
    keystore = stores.at("a/b")
    done(keystore.set("b", "ä\n", ttl=60))
    done(keystore.set("a", "\U0001f600"))
    now_ms = stores.clock.wall_ms()
    lines = listed(export_lines(keystore))
    assert [json.loads(line) for line in lines] == [
        {"prontodb": "export", "format": 1, "address": "a/b"},
        entry_fields("a", "\U0001f600", now_ms, None, 2),
        entry_fields("b", "ä\n", now_ms, now_ms + 60_000, 1),
        {"prontodb": "end", "count": 2},
    ]
    assert all(line.isascii() and "\n" not in line for line in lines)


def entry_fields(key: str, value: str, at_ms: int, expires_at: int | None, revision: int) -> dict[str, Any]:
    return {
        "key": key,
        "value": value,
        "created_at": at_ms,
        "updated_at": at_ms,
        "expires_at": expires_at,
        "revision": revision,
    }


def test_only_live_entries_with_the_prefix_are_exported(stores: Stores) -> None:
    keystore = stores.at("a/b")
    done(keystore.set_many({"app.a": "1", "apple": "2"}))
    done(keystore.set("app.old", "3", ttl=1))
    stores.clock.advance(2)
    lines = [json.loads(line) for line in listed(export_lines(keystore, "app."))]
    assert [line.get("key", line.get("count")) for line in lines[1:]] == ["app.a", 1]


def test_an_entry_that_expires_while_an_export_is_read_is_left_out(stores: Stores) -> None:
    keystore = filled(stores, count=1)
    done(keystore.set("k001", "gone before it is handed out", ttl=1))

    async def read_slowly() -> list[dict[str, Any]]:
        lines = []
        async for line in export_lines(keystore):
            lines.append(json.loads(line))
            if "key" in lines[-1]:
                stores.clock.advance(1)
        return lines

    assert [line.get("key", line.get("count")) for line in done(read_slowly())] == [None, "k000", 1]


@pytest.mark.plain("it operates on the file itself")
def test_an_export_that_meets_a_damaged_entry_has_no_end(stores: Stores) -> None:
    keystore = filled(stores, "a/b", 3)
    path = stores.root + "/addresses/a/b/keystore.db"
    keystore._keyspace.close()  # type: ignore[attr-defined]
    data = Path(path).read_bytes()
    spot = data.rindex(b"k0011")  # the key, and the value after it
    Path(path).write_bytes(data[: spot + 4] + b"7" + data[spot + 5 :])
    got: list[str] = []

    async def export() -> None:
        async for line in export_lines(stores.at("a/b")):
            got.append(line)

    with pytest.raises(CorruptError):
        done(export())
    assert not any('"end"' in line for line in got)
    Path(path).write_bytes(data)


# Round trip


CHARACTERS = st.characters(exclude_categories=["Cs"])
ENTRIES = st.dictionaries(
    st.text(CHARACTERS.filter(lambda c: c.isprintable()), min_size=1, max_size=8),
    st.tuples(st.text(CHARACTERS, max_size=12), st.none() | st.integers(1, 10**9)),
    max_size=6,
)


@settings(max_examples=40)
@given(ENTRIES, st.sampled_from(["lines", "file", "pipe"]), st.booleans())
def test_what_is_exported_and_imported_is_equal_expiry_included(
    entries: dict[str, tuple[str, int | None]], way: str, small: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stores = Stores(folder)
        source = stores.at("a/source")
        for key, (value, ttl) in entries.items():
            done(source.set(key, value, ttl=ttl))
        stores.clock.advance(1)
        exported = listed(export_lines(source))
        target = stores.at("b/target", limits=THREE_A_BATCH if small else Limits())
        data = "".join(line + "\n" for line in exported).encode()
        if way == "lines":
            report = done(import_lines(target, exported))
        else:
            report = done(import_file(target, io.BytesIO(data) if way == "file" else Pipe(data)))
        live = values(source)
        assert report.imported == len(live)
        assert values(target) == live
        assert expiries(target) == expiries(source)
        again = [json.loads(line) for line in listed(export_lines(target))][1:]
        first = [json.loads(line) for line in exported][1:]
        assert [without(line) for line in again] == [without(line) for line in first]
        stores.close()


def without(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in EXACT}


class Pipe(io.BytesIO):
    """A file that cannot go back."""

    def seekable(self) -> bool:
        return False

    def seek(self, offset: int, whence: int = 0, /) -> int:
        raise io.UnsupportedOperation("seek")

    def tell(self) -> int:
        raise io.UnsupportedOperation("tell")


def test_the_handles_of_the_command_line_export_and_import(root: Path) -> None:
    with OneShot(str(root), Address("a")) as source, OneShot(str(root), Address("b")) as target:
        done(source.set("key", "value", ttl=3_600))
        assert done(import_lines(target, listed(export_lines(source)))) == ImportReport(imported=1, batches=1)
        assert expiries(target) == expiries(source)


# Expiry


def test_entries_past_their_expiry_are_left_out_and_counted(stores: Stores) -> None:
    source = stores.at("a/source")
    done(source.set("short", "1", ttl=10))
    done(source.set("long", "2", ttl=100))
    lines = listed(export_lines(source))
    stores.clock.advance(10)
    target = stores.at("b/target")
    assert done(import_lines(target, lines)) == ImportReport(imported=1, expired=1, batches=1)
    assert values(target) == {"long": "2"}


@pytest.mark.parametrize("limits", [Limits(), THREE_A_BATCH], ids=["one batch", "many batches"])
def test_a_line_that_has_expired_conflicts_with_nothing(stores: Stores, limits: Limits) -> None:
    target = stores.at("b/target", limits=limits)
    done(target.set("old", "mine"))
    lines = [json.dumps({"key": "old", "value": "x", "expires_at": 1}), *plain("a", "b", "c", "d")]
    for data in (lines, io.BytesIO("\n".join(lines).encode())):
        done(target.clear("new"))
        target_report = done(imported(target, data, "keep" if isinstance(data, io.BytesIO) else "fail"))
        assert target_report.expired == 1
    assert done(target.get("old")) == "mine"


async def imported(target: Keystore, data: list[str] | io.BytesIO, on_conflict: str) -> ImportReport:
    if isinstance(data, io.BytesIO):
        return await import_file(target, data, on_conflict=on_conflict)
    return await import_lines(target, data, on_conflict=on_conflict)


def test_hand_made_lines_take_the_default_lifetime_and_exported_ones_do_not(stores: Stores) -> None:
    target = stores.at("b/target")
    done(target.set_namespace_ttl("cache", 5))
    now_ms = stores.clock.wall_ms()
    done(
        import_lines(
            target,
            [
                '{"key":"cache.a","value":""}',
                '{"key":"cache.b","value":"","expires_at":null}',
                '{"key":"cache.c","value":"","ttl":"1m"}',
                '{"key":"cache.d","value":"","ttl":"never"}',
            ],
        )
    )
    assert expiries(target) == {
        "cache.a": now_ms + 5_000,
        "cache.b": None,
        "cache.c": now_ms + 60_000,
        "cache.d": None,
    }


# Nothing half done


@pytest.mark.parametrize("limits", [Limits(), THREE_A_BATCH], ids=["one batch", "many batches"])
@pytest.mark.parametrize("way", ["lines", "file", "pipe"])
@pytest.mark.parametrize(
    "last", [b"\xff", b'{"key":"z","value":"\\ud800"}', b'{"key":"z"}', b'{"key":"k000","value":""}', b"["]
)
def test_one_wrong_line_at_the_end_and_nothing_is_written(
    stores: Stores, limits: Limits, way: str, last: bytes
) -> None:
    target = stores.at("b/target", limits=limits)
    lines = [line.encode() for line in plain(*(f"k{number:03}" for number in range(10)))] + [last]
    with pytest.raises(InvalidImportError, match=r"^line 11 cannot be imported.*nothing was written$"):
        done(imported_by(way, target, lines))
    assert not os.path.exists(stores.root + "/addresses")


async def imported_by(way: str, target: Keystore, lines: list[bytes], on_conflict: str = "fail") -> ImportReport:
    data = b"\n".join(lines) + b"\n"
    if way == "lines":
        return await import_lines(target, lines, on_conflict=on_conflict)
    return await import_file(target, io.BytesIO(data) if way == "file" else Pipe(data), on_conflict=on_conflict)


def test_an_export_cut_anywhere_is_refused_and_writes_nothing(stores: Stores) -> None:
    lines = listed(export_lines(filled(stores, count=3)))
    data = "".join(line + "\n" for line in lines).encode()
    target = stores.at("b/target")
    for end in range(len(data) - 1):
        with pytest.raises(InvalidImportError):
            done(import_file(target, io.BytesIO(data[:end])))
    assert not os.path.exists(stores.root + "/addresses/b")
    # Only the last line end may be missing.
    assert done(import_file(target, io.BytesIO(data[:-1]))).imported == 3


def test_a_lost_or_doubled_line_is_refused(stores: Stores) -> None:
    lines = listed(export_lines(filled(stores, count=3)))
    target = stores.at("b/target")
    for broken in (lines[:1] + lines[2:], lines[1:], [*lines[:2], *lines[1:]], lines + lines):
        with pytest.raises(InvalidImportError):
            done(import_lines(target, broken))
    assert not os.path.exists(stores.root + "/addresses/b")


@pytest.mark.parametrize("limits", [Limits(), THREE_A_BATCH], ids=["one batch", "many batches"])
@pytest.mark.parametrize("way", ["lines", "file", "pipe"])
@pytest.mark.parametrize("taken", ["k000", "k009"])
def test_a_conflict_anywhere_fails_before_anything_is_written(
    stores: Stores, limits: Limits, way: str, taken: str
) -> None:
    target = stores.at("b/target", limits=limits)
    done(target.set(taken, "mine"))
    # In any order: lines need not be sorted.
    lines = [line.encode() for line in plain(*(f"k{number:03}" for number in range(9, -1, -1)))]
    with pytest.raises(RevisionConflictError):
        done(imported_by(way, target, lines))
    assert values(target) == {taken: "mine"}


@pytest.mark.parametrize(("limits", "batches"), [(Limits(), 1), (THREE_A_BATCH, 4)])
@pytest.mark.parametrize("way", ["lines", "file"])
def test_keep_and_replace_do_as_they_say(stores: Stores, limits: Limits, batches: int, way: str) -> None:
    keys = [f"k{number:03}" for number in range(10)]
    lines = [line.encode() for line in plain(*keys)]
    new = {key: f"new {key}" for key in keys}
    kept, replaced = stores.at("b/kept", limits=limits), stores.at("b/replaced", limits=limits)
    for target in (kept, replaced):
        done(target.set("k004", "mine"))
    report = done(imported_by(way, kept, lines, "keep"))
    assert report == ImportReport(imported=9, kept=1, batches=batches)
    assert values(kept) == new | {"k004": "mine"}
    report = done(imported_by(way, replaced, lines, "replace"))
    assert report == ImportReport(imported=10, batches=batches)
    assert values(replaced) == new


def test_a_race_between_batches_never_writes_over_anything(stores: Stores) -> None:
    somebody = stores.at("b/target")

    def step_in(write: int) -> None:
        if write == 2:
            done(somebody.set("k004", "mine"))

    target = stores.at("b/target", limits=THREE_A_BATCH, before_apply=step_in)
    with pytest.raises(ConflictError, match=r"'k004' .* stays; 3 entries were written at b/target before that"):
        done(import_lines(target, plain(*(f"k{number:03}" for number in range(8)))))
    assert done(somebody.get("k004")) == "mine"
    assert done(somebody.count()) == 4


def test_a_full_quota_in_one_batch_writes_nothing(stores: Stores) -> None:
    target = stores.at("b/target", limits=Limits(max_entries=5))
    with pytest.raises(QuotaExceededError):
        done(import_lines(target, plain(*"abcdef")))
    assert values(target) == {}


LINE = '{"key":"k","value":"v"}'


@pytest.mark.parametrize("lines", [None, 5, LINE, LINE.encode(), object()], ids=repr)
def test_what_is_no_sequence_of_lines_is_refused(stores: Stores, lines: Any) -> None:
    keystore = filled(stores, count=1)
    with pytest.raises(InvalidInputError, match="lines must be several"):
        done(import_lines(keystore, lines))
    assert values(keystore) == {"k000": "0"}


@pytest.mark.parametrize("line", [None, 5, [], {}, object(), bytearray(LINE.encode())], ids=repr)
def test_a_line_that_is_no_text_is_refused_with_its_number(stores: Stores, line: Any) -> None:
    keystore = filled(stores, count=1)
    with pytest.raises(InvalidImportError, match=f"^line 2 cannot be imported: its type is {type(line).__name__}, "):
        done(import_lines(keystore, [LINE, line]))
    assert values(keystore) == {"k000": "0"}


def test_a_wrong_option_is_refused_before_a_line_is_read(stores: Stores) -> None:
    def never() -> Iterator[bytes]:
        raise AssertionError("a line was read")
        yield b""

    with pytest.raises(InvalidInputError, match="on_conflict"):
        done(import_lines(stores.at("b/target"), never(), on_conflict="merge"))


# Limits and files


def test_a_stream_is_held_up_to_a_limit_and_a_file_is_not(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line.encode() for line in plain(*(f"k{number:03}" for number in range(10)))]
    monkeypatch.setattr(transfer, "MAX_IMPORT_BYTES", sum(map(len, lines)) - 1)
    target = stores.at("b/target")
    for way in ("lines", "pipe"):
        with pytest.raises(InvalidImportError, match="import from a file"):
            done(imported_by(way, target, lines))
    assert not os.path.exists(stores.root + "/addresses/b")
    assert done(imported_by("file", target, lines)).imported == 10


def test_a_line_without_end_is_read_no_further_than_the_longest_entry(stores: Stores) -> None:
    endless = Endless()
    limits = Limits(max_value_bytes=1_000)
    with pytest.raises(InvalidImportError, match=r"^line 1 .* longer than"):
        done(import_file(stores.at("b/target", limits=limits), endless))
    assert endless.given < 20_000


class Endless(Pipe):
    """A device that gives the same byte for ever."""

    given = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size > 0
        self.given += size
        return b"x" * size


def test_a_file_that_cannot_be_read_is_our_error(stores: Stores) -> None:
    class Broken(io.BytesIO):
        name = "import.jsonl"

        def readline(self, size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(UnavailableError, match=r"cannot use 'import\.jsonl'"):
        done(import_file(stores.at("b/target"), Broken()))


def test_a_file_is_read_from_where_it_stands(stores: Stores) -> None:
    file = io.BytesIO(b"a comment of the caller\n" + plain("a")[0].encode())
    file.readline()
    assert done(import_file(stores.at("b/target"), file)) == ImportReport(imported=1, batches=1)


def test_a_file_that_changes_between_its_two_readings_is_noticed(stores: Stores) -> None:
    lines = [line.encode() for line in plain(*(f"k{number:03}" for number in range(8)))]

    class Changing(io.BytesIO):
        def seek(self, offset: int, whence: int = 0, /) -> int:
            found = super().seek(offset, whence)
            self.getbuffer()[-3:] = b"???"
            return found

    target = stores.at("b/target", limits=THREE_A_BATCH)
    with pytest.raises(ConflictError, match=r"^the file changed while it was imported: line 8 ") as caught:
        done(import_file(target, Changing(b"\n".join(lines))))
    assert caught.value.__notes__ == ["6 entries were written at b/target before that"]


def test_progress_counts_what_is_written_so_far(stores: Stores) -> None:
    told: list[int] = []
    target = stores.at("b/target", limits=THREE_A_BATCH)
    done(import_lines(target, plain(*"abcdefgh"), progress=told.append))
    assert told == [3, 6, 8]


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=30) | st.sampled_from([*plain("a", "b"), "", "{}"]), max_size=5))
def test_whatever_the_lines_hold_all_is_imported_or_nothing(lines: list[bytes | str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stores = Stores(folder)
        target = stores.at("b/target")
        count, message = 0, ""
        try:
            count = done(import_lines(target, lines)).imported
        except ProntoError as error:
            message = str(error)
        assert message.isprintable()
        assert bool(os.listdir(folder)) == bool(count)
        assert len(values(target)) == count
        stores.close()


async def test_a_wrong_import_through_the_manager_makes_no_address(root: Path) -> None:
    async with open_manager(str(root)) as manager:
        with pytest.raises(InvalidImportError):
            await manager.import_lines("b/target", ["{}"])
        assert not (root / "addresses" / "b").exists()
        assert (await manager.import_lines("b/target", plain("a"))).imported == 1
