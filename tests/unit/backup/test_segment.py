"""Segment files: what is written is read again, and whatever is not as we write it is refused, typed and in bounds."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prontodb.backup.chain import Chains, Link, put_together
from prontodb.backup.container import Container
from prontodb.backup.segment import Segment
from prontodb.engine.sqlite.digest import Digest
from prontodb.engine.sqlite.writing import next_chain
from prontodb.errors import CorruptError, NewerFormatError
from prontodb.storage.files import open_root
from tests.backups import Root, edited, rehashed
from tests.managing import ran
from tests.unit.stores import done

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FILE = "a@x.jsonl.zst"


class Written:
    """A segment that a real backup wrote, on the snapshot that it goes on from."""

    def __init__(self, root: Root) -> None:
        keystore = root.at("a/x")
        done(keystore.set_many({f"k{n}": str(n) for n in range(5)}))
        done(keystore.set_namespace_ttl("n", 60))
        self.base = Path(root.full().path or "")
        done(keystore.set("k1", "ä\n"))
        done(keystore.delete_many(["k2", "k3"]))
        done(keystore.set("n.new", "1"))
        self.folder = Path(root.backup().path or "")
        self.root, self.container = root, root.container
        self.data = (self.folder / FILE).read_bytes()
        self.raw = zstd.decompress(self.data)
        self.lines = self.raw.splitlines()

    def link(self) -> Link:
        """The segment's piece as its manifest has it now."""
        return Chains.of(self.container.list()).tips(self.folder.name)["a/x"]

    def read(self, data: bytes, raw_bytes: int | None = None) -> list[tuple[str, Any]]:
        """Put other bytes in its place, and read it for its keys."""
        (self.folder / FILE).write_bytes(data)
        with open_root(str(self.folder)) as folder:
            return list(Segment(folder, FILE, len(self.raw) if raw_bytes is None else raw_bytes).rows())

    def lay(self, lines: list[Any]) -> None:
        """Put other lines in its place; the manifest says that they belong there."""
        raw = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
        rehashed(self.folder, FILE, zstd.compress(raw), len(raw))

    def built(self) -> Digest:
        """Put the state after the segment together, in a scratch folder."""
        container = Container(self.container.path, by_kind=True)
        links = Chains.of(container.list()).links(self.link())
        with container.scratch() as folder:
            return put_together(container, links, folder, "keystore.db")


@pytest.fixture
def written(root: Path) -> Iterator[Written]:
    opened = Root(root)
    yield Written(opened)
    opened.close()


# As it was written


def test_a_segment_holds_each_changed_key_once_with_what_became_of_it(written: Written) -> None:
    found = written.read(written.data)
    assert [(key, None if row is None else row[1]) for key, row in found] == [
        ("k2", None), ("k3", None), ("k1", "ä\n"), ("n.new", "1"),
    ]  # fmt: skip
    head = json.loads(written.lines[0])
    assert (head["address"], head["revision"] - head["since"]) == ("a/x", 4)
    assert written.link().piece.raw_bytes == len(written.raw)
    assert written.built() == written.link().piece.content


# Lines that are not ours: the file's hash and the manifest's agree, what they say does not


def test_no_line_can_be_left_out_or_moved(written: Written) -> None:
    lines = [json.loads(line) for line in written.lines]
    first_entry = next(at for at, line in enumerate(lines) if isinstance(line, list) and line[0] == "e")
    for at in range(len(lines)):
        others = [lines[:at] + lines[at + 1 :]]
        if at not in (0, first_entry + 1):  # two entries in another order are the same change
            others.append([*lines[: at - 1], lines[at], lines[at - 1], *lines[at + 1 :]])
        for other in others:
            written.lay(other)
            with pytest.raises(CorruptError):
                written.built()


def field_changes(line: Any) -> Iterator[Any]:
    """The line with one of its values replaced by others, one after the other."""
    odd: list[object] = [None, -1, 7, 2**62, "other", []]
    places = list(line) if isinstance(line, dict) else range(len(line))
    for place in places:
        for value in odd:
            # -1 is how a checksum sees an expiry that is none.
            if value != line[place] and (line[place], value) != (None, -1):
                copy = dict(line) if isinstance(line, dict) else list(line)
                copy[place] = value
                yield copy


@pytest.mark.slow
def test_no_value_of_a_line_can_be_another(written: Written) -> None:
    lines = [json.loads(line) for line in written.lines]
    tried = 0
    for at, line in enumerate(lines):
        # Nothing but the file's hash tells other lifetimes and switches from ours.
        for other in () if isinstance(line, list) and line[0] == "o" else field_changes(line):
            written.lay([*lines[:at], other, *lines[at + 1 :]])
            tried += 1
            with pytest.raises((CorruptError, NewerFormatError)):
                written.built()
    assert tried > 200


@pytest.mark.parametrize(
    "lines",
    [[], [[]], [{}], [None], [5], ["x"], [["j"]], [{"prontodb": "end"}], [{"prontodb": "segment"}],
     [{"prontodb": "segment", "format": -1}], [{"prontodb": "segment", "format": True}]],
)  # fmt: skip
def test_what_does_not_begin_as_a_segment_is_none(written: Written, lines: list[Any]) -> None:
    written.lay(lines)
    with pytest.raises(CorruptError):
        written.built()


def test_a_segment_of_a_newer_format_says_so(written: Written) -> None:
    lines = [json.loads(line) for line in written.lines]
    lines[0]["format"] = 2
    written.lay(lines)
    with pytest.raises(NewerFormatError, match="format 2"):
        written.built()


def chained(lines: list[Any], at: int, value: object) -> list[Any]:
    """The lines with one field of the last journal row replaced, and the chain that then follows."""
    chain = bytes.fromhex(lines[0]["since_chain"])
    rows = [line for line in lines if isinstance(line, list) and line[0] == "j"]
    rows[-1][at] = value
    for row in rows:
        session = row[4].encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        chain = next_chain(chain, row[1], row[2], row[3], session, row[5])
        row[6] = chain.hex()
    lines[0]["chain"] = chain.hex()
    return lines


def hostile_lines(written: Written, kind: str) -> list[Any]:
    lines = [json.loads(line) for line in written.lines]
    entry = next(line for line in lines if isinstance(line, list) and line[0] == "e")
    options = next(line for line in lines if isinstance(line, list) and line[0] == "o")
    match kind:
        case "moment":
            lines = chained(lines, 3, 10**30)
        case "session":
            lines = chained(lines, 4, "\ud800")
        case "created":
            entry[7], entry[3] = entry[7] - entry[3] + 10**30, 10**30
        case "lifetime":
            options[1] = {"\ud800": 5}
        case "twice":
            at = lines.index(entry)
            lines[at + 1] = entry
    return lines


@pytest.mark.parametrize("kind", ["moment", "session", "created", "lifetime", "twice"])
def test_what_sqlite_cannot_store_is_damage_and_no_accident(written: Written, kind: str) -> None:
    lines = hostile_lines(written, kind)
    written.lay(lines)

    def change(found: dict[str, Any]) -> None:
        found["pieces"][0]["chain"] = lines[0]["chain"]

    edited(written.folder / "manifest.json", change)
    with pytest.raises(CorruptError):
        written.built()


@pytest.mark.parametrize(
    "line", [b"[" * 100_000, b'{"a":1,"a":2}', b'["e",' + b"9" * 5_000 + b"]", b"[NaN]", b"\xff\xfe", b"", b" "]
)
def test_a_line_that_is_no_strict_json_is_refused(written: Written, line: bytes) -> None:
    for at in range(len(written.lines)):
        raw = b"\n".join([*written.lines[:at], line, *written.lines[at + 1 :]]) + b"\n"
        with pytest.raises(CorruptError):
            written.read(zstd.compress(raw), len(raw))


# Frames that are not ours


def test_every_beginning_of_the_file_is_cut_and_said_to_be(written: Written) -> None:
    for size in range(len(written.data)):
        with pytest.raises(CorruptError):
            written.read(written.data[:size])


def test_a_flipped_bit_anywhere_never_makes_another_change_of_it(written: Written) -> None:
    """Though the file's hash were not looked at: what it makes must be what the manifest says, or an error of ours."""
    right = written.link().piece.content
    # Stored as it is: whatever bit flips in the text, it can be unpacked.
    stored = zstd.compress(written.raw, level=-100)
    unpacked = 0
    for at in range(len(stored)):
        flipped = bytearray(stored)
        flipped[at] ^= 1 << (at % 8)
        try:
            written.read(bytes(flipped))
        except (CorruptError, NewerFormatError):
            continue
        unpacked += 1
        rehashed(written.folder, FILE, bytes(flipped))
        try:
            # Nothing but the file's hash tells other lifetimes and switches from ours.
            assert written.built() == right, at
        except CorruptError:
            continue
    assert unpacked > 50


@pytest.mark.parametrize("more", [b"\0", b"\n", b"x" * 2_000_000, zstd.compress(b""), zstd.compress(b"x\n"),
                                  b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"])  # fmt: skip
def test_nothing_may_follow_the_frame(written: Written, more: bytes) -> None:
    with pytest.raises(CorruptError):
        written.read(written.data + more)


def test_several_frames_are_not_one(written: Written) -> None:
    half = len(written.raw) // 2
    with pytest.raises(CorruptError, match="follows after its end"):
        written.read(zstd.compress(written.raw[:half]) + zstd.compress(written.raw[half:]))


def test_it_may_unpack_to_as_much_as_its_manifest_says_and_not_a_byte_more_or_less(written: Written) -> None:
    assert written.read(written.data)
    with pytest.raises(CorruptError, match="more than its manifest says"):
        written.read(written.data, len(written.raw) - 1)
    with pytest.raises(CorruptError, match="cut"):
        written.read(written.data, len(written.raw) + 1)


def test_a_frame_that_wants_much_memory_is_refused_before_it_gets_any(written: Written) -> None:
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 28})
    wide = packer.compress(written.raw) + packer.flush()
    with pytest.raises(CorruptError, match="cannot be unpacked"):
        written.read(wide)


BOMB = """
import resource, sys
from prontodb.backup.segment import Segment
from prontodb.errors import CorruptError
from prontodb.storage.files import open_root
resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))
with open_root(sys.argv[1]) as folder:
    try:
        Segment(folder, "bomb.zst", int(sys.argv[2]))
    except CorruptError as error:
        print("refused")
    except MemoryError:
        print("out of memory")
"""


def bomb(folder: Path, size: int) -> None:
    """A few kilobytes that unpack to a single line of `size` bytes."""
    packer = zstd.ZstdCompressor()
    data = b"".join([packer.compress(b"[" + b" " * (8 << 20)) for _ in range(size >> 23)])
    (folder / "bomb.zst").write_bytes(data + packer.flush())
    (folder / "bomb.zst").chmod(0o600)


def test_a_bomb_goes_off_no_further_than_the_manifest_allows(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    bomb(tmp_path, 512 << 20)
    assert (tmp_path / "bomb.zst").stat().st_size < 200_000
    assert ran(BOMB, tmp_path, 1_000_000) == "refused\n"


@pytest.mark.slow
def test_a_bomb_that_its_manifest_admits_takes_no_memory_either(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    bomb(tmp_path, 768 << 20)
    assert ran(BOMB, tmp_path, 2**62) == "refused\n"
