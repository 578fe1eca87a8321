"""Segment files: what changed in one keystore, as JSON lines under zstd; every line is checked when it is read.

The head says whose changes they are and where they go on from. Then come the journal's rows, the keys that are gone,
the entries that the changes left, the options of the keystore, and the end with the counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from itertools import chain
from typing import TYPE_CHECKING

from prontodb.encryption import sealing
from prontodb.encryption.sealing import SALT_BYTES
from prontodb.engine.sqlite.increment import PAGE, Options
from prontodb.engine.sqlite.schema import CHAIN_BYTES
from prontodb.errors import CorruptError, NewerFormatError, shown
from prontodb.model import strict_json
from prontodb.model.history import Mark
from prontodb.storage.files import NewFile

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from prontodb.backup.manifest import Piece
    from prontodb.engine.sqlite.digest import Digest
    from prontodb.engine.sqlite.increment import JournalRow, Reading, Row, Writing
    from prontodb.model.secret import Secret
    from prontodb.storage.files import Folder

FORMAT = 1
MARK = "prontodb"
SEALED_MARK = b"prontodb sealed segment 1\n"
PURPOSE = b"segment"
LEVEL = 3
"""Of zstd: 3 is its own default; above it, time grows faster than files shrink."""
WINDOW_LOG_MAX = 27
"""zstd frames that want more than 128 MiB of memory are none of ours."""
MAX_LINE_BYTES = 128 * 1024 * 1024
"""Longer than any line that the default limits allow; whoever reads need not have more memory than that."""
_LEAST, _MOST = -(2**63), 2**63 - 1
_JOURNAL, _GONE, _ENTRY, _OPTIONS = "j", "g", "e", "o"

_to_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class LineTooLongError(Exception):
    """A line would be longer than whoever reads it takes; the keystore is to be copied whole."""


class Written:
    """What was written of one segment: its sizes, packed and not, and the hash of the file."""

    __slots__ = ("entries", "gone", "raw_bytes", "sha256", "size_bytes")

    def __init__(self) -> None:
        self.raw_bytes = self.size_bytes = self.entries = self.gone = 0
        self.sha256 = ""


def write(
    folder: Folder,
    name: str,
    address: str,
    reading: Reading,
    each: Callable[[list[Row]], None],
    secret: Secret | None = None,
) -> Written:
    """Write what `reading` yields as the new file `name`; `each` is called with every page of entries.

    With a secret the file is sealed, bound to the address and to where it goes on from and leads to. It is synced when
    this returns; after an error it is not there.
    """
    done = Written()
    with NewFile(folder, name) as file:
        packer, digest = zstd.ZstdCompressor(level=LEVEL), hashlib.sha256()

        assert reading.since is not None
        seal = None if secret is None else Seal(secret, address, reading.since.revision, reading.now)
        head, sealer = (b"", None) if seal is None else seal.sealer()

        def store(data: bytes) -> None:
            digest.update(data)
            file.write(data)

        def put(data: bytes) -> None:
            store(data if sealer is None else sealer.update(data))

        def line(item: object) -> None:
            text = _to_json(item).encode() + b"\n"
            if len(text) > MAX_LINE_BYTES:
                raise LineTooLongError
            done.raw_bytes += len(text)
            put(packer.compress(text))

        store(head)
        line({MARK: "segment", "format": FORMAT, "address": address, "incarnation": reading.now.incarnation,
              "since": reading.since.revision, "since_chain": reading.since.chain,
              "revision": reading.now.revision, "chain": reading.now.chain, "floor": reading.floor})  # fmt: skip
        journal = 0
        for *row, chain in reading.journal():
            line([_JOURNAL, *row, chain.hex()])
            journal += 1
        for gone in pages(reading.gone):
            line([_GONE, *gone])
            done.gone += len(gone)
        for entries in pages(reading.entries()):
            each(entries)
            for entry in entries:
                line([_ENTRY, *entry])
            done.entries += len(entries)
        options = reading.options()
        line([_OPTIONS, dict(options.lifetimes_ms), options.history, options.audit, options.token_epoch])
        line({MARK: "end", "journal": journal, "gone": done.gone, "entries": done.entries})
        put(packer.flush())
        if sealer is not None:
            store(sealer.finish())
        done.sha256, done.size_bytes = digest.hexdigest(), file.size_bytes
    return done


class Seal:
    """What a segment of an encrypted keystore is sealed with: it opens for this address, from there to there alone.

    A mark, a random salt, then the stream, whose key comes of the secret, the salt and all that it is bound to.
    """

    __slots__ = ("_context", "_secret")

    def __init__(self, secret: Secret, address: str, since: int, now: Mark) -> None:
        self._secret = secret
        self._context = "\n".join((address, now.incarnation, str(since), str(now.revision), now.chain)).encode()

    def _key(self, salt: bytes) -> bytes:
        return self._secret.derived(PURPOSE, salt + self._context)

    def sealer(self) -> tuple[bytes, sealing.StreamSealer]:
        """Return the first bytes of a new file, and what seals the rest."""
        salt = os.urandom(SALT_BYTES)
        return SEALED_MARK + salt, sealing.StreamSealer(self._key(salt))

    def unsealed(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield what a file's bytes hold; `WrongKeyError`."""
        head, size = len(SEALED_MARK), len(SEALED_MARK) + SALT_BYTES
        first = next(chunks, b"")
        if not first.startswith(SEALED_MARK) or len(first) < size:
            raise sealing.WrongKeyError("it is not sealed as its manifest says")
        return sealing.unseal_stream(self._key(first[head:size]), chain((first[size:],), chunks))


def pages(items: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield the items in lists of PAGE."""
    page: list[Any] = []
    for item in items:
        page.append(item)
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page


def open_segment(folder: Folder, piece: Piece, secret: Secret | None) -> Segment:
    """Open the file of a piece, as its manifest describes it."""
    seal = None if secret is None else Seal(secret, piece.address, piece.since, piece.mark)
    return Segment(folder, piece.file, piece.raw_bytes, seal)


class Segment:
    """A segment file that is read once, from its beginning: `head` first, then `put_into` or `hashes`.

    `raw_bytes` is what the manifest says it unpacks to; more is never unpacked. Raises `CorruptError` for whatever is
    not as we write it, `NewerFormatError`.
    """

    def __init__(self, folder: Folder, name: str, raw_bytes: int, seal: Seal | None = None) -> None:
        self._place = shown(f"{folder.path}/{name}")
        self._lines = self._unpacked(self._chunks(folder, name, seal), raw_bytes)
        fields = self._next()
        if not isinstance(fields, dict) or fields.get(MARK) != "segment":
            raise self._wrong("it does not begin as a segment does")
        version = self._whole(fields.get("format"))
        if version > FORMAT:
            raise NewerFormatError(self._place, version, FORMAT)
        self.address = self._text(fields.get("address"))
        incarnation = self._text(fields.get("incarnation"))
        self.since = Mark(incarnation, self._whole(fields.get("since")), self._text(fields.get("since_chain")))
        self.mark = Mark(incarnation, self._whole(fields.get("revision")), self._text(fields.get("chain")))
        self.floor = self._whole(fields.get("floor"))
        self._ahead: object = None

    # Lines

    def _chunks(self, folder: Folder, name: str, seal: Seal | None) -> Iterator[bytes]:
        """Yield the file's bytes, unsealed."""
        chunks = folder.chunks(name)
        if seal is None:
            yield from chunks
            return
        try:
            yield from seal.unsealed(chunks)
        except sealing.WrongKeyError as error:
            raise self._wrong(str(error)) from error

    def _unpacked(self, chunks: Iterable[bytes], raw_bytes: int) -> Iterator[bytes]:
        unpacker = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG_MAX})
        left: list[bytes] = []  # of a line whose end has not come yet
        seen = 0
        try:
            for chunk in chunks:
                data = chunk
                while data or not unpacker.needs_input:
                    if unpacker.eof:
                        raise self._wrong("something follows after its end")
                    out = unpacker.decompress(data, max_length=1024 * 1024)
                    data = b""
                    seen += len(out)
                    if seen > raw_bytes:
                        raise self._wrong("it holds more than its manifest says")
                    if b"\n" in out:
                        *lines, rest = b"".join((*left, out)).split(b"\n")
                        left = [rest] if rest else []
                        yield from lines
                    elif out:
                        left.append(out)
                        if sum(map(len, left)) > MAX_LINE_BYTES:
                            raise self._wrong("a line of it is too long")
                    if unpacker.eof and unpacker.unused_data:
                        raise self._wrong("something follows after its end")
                    if unpacker.eof:
                        break
        except zstd.ZstdError as error:
            raise self._wrong("it cannot be unpacked") from error
        except FileNotFoundError as error:
            raise self._wrong("it is missing") from error
        if not unpacker.eof or left or seen != raw_bytes:
            raise self._wrong("it is cut")

    def _next(self) -> object:
        line = next(self._lines, None)
        if line is None:
            raise self._wrong("its last line is missing")
        try:
            return strict_json.loads(line)
        except ValueError as error:
            raise self._wrong("a line of it is not valid JSON") from error

    def _take(self, kind: str) -> list[Any] | None:
        """Return the next line if it is of this kind, without the kind; else leave it."""
        if self._ahead is None:
            self._ahead = self._next()
        found = self._ahead
        if not isinstance(found, list) or not found or found[0] != kind:
            return None
        self._ahead = None
        return found[1:]

    def journal(self) -> Iterator[JournalRow]:
        """Yield the rows of the journal; the first thing to be read, and enough by itself."""
        while (row := self._take(_JOURNAL)) is not None:
            if [type(field) for field in row] != [int, int, int, str, str, str] or not _storable(row):
                raise self._wrong("a row of the journal in it holds something else")
            try:
                chain = bytes.fromhex(row[5])
            except ValueError as error:
                raise self._wrong("a row of the journal in it holds no chain") from error
            if len(chain) != CHAIN_BYTES:
                raise self._wrong("a row of the journal in it holds a chain of another length")
            yield row[0], row[1], row[2], row[3], row[4], chain

    def _gone(self) -> list[str]:
        gone: list[str] = []
        while (keys := self._take(_GONE)) is not None:
            gone += [self._text(key) for key in keys]
        return gone

    def _entries(self) -> Iterator[Row]:
        while (row := self._take(_ENTRY)) is not None:
            if len(row) != 7 or type(row[0]) is not str or type(row[1]) is not str:
                raise self._wrong("an entry in it holds something else")
            numbers = all(type(field) is int or (at == 2 and field is None) for at, field in enumerate(row[2:]))
            if not numbers or not _storable(row):
                raise self._wrong("an entry in it holds something else")
            yield tuple(row)

    def _options(self) -> Options:
        found = self._take(_OPTIONS)
        if found is None or len(found) != 4 or not isinstance(found[0], dict):
            raise self._wrong("the keystore's options are missing in it")
        for ms in found[0].values():
            self._whole(ms)
        if not _storable(found[0]):
            raise self._wrong("the name of a namespace in it is no text")
        return Options(found[0], *(self._whole(number) for number in found[1:]))

    def _end(self, journal: int, gone: int, entries: int) -> None:
        found = self._next() if self._ahead is None else self._ahead
        if found != {MARK: "end", "journal": journal, "gone": gone, "entries": entries}:
            raise self._wrong("its end does not say what it holds")
        if next(self._lines, None) is not None:
            raise self._wrong("something follows after its end")

    # Uses

    def put_into(self, writing: Writing) -> Digest:
        """Put the changes into a staged copy of the place they go on from; return the digest that results."""
        if writing.mark != self.since:
            raise self._wrong("it does not go on from what lies before it")
        journal = entries = 0
        for rows in pages(self.journal()):
            writing.journal(rows)
            journal += len(rows)
        if writing.mark != self.mark:
            raise self._wrong("its journal does not lead to where it says")
        gone = self._gone()
        writing.gone(gone)
        for found in pages(self._entries()):
            writing.entries(found)
            entries += len(found)
        digest = writing.finish(self._options())
        self._end(journal, len(gone), entries)
        return digest

    def rows(self) -> Iterator[tuple[str, Row | None]]:
        """Yield each key that changed with its entry, None for one that is gone."""
        journal = sum(1 for _ in self.journal())
        gone = self._gone()
        for key in gone:
            yield key, None
        entries = 0
        for row in self._entries():
            entries += 1
            yield row[0], row
        self._options()
        self._end(journal, len(gone), entries)

    # Checks

    def _whole(self, number: object) -> int:
        if type(number) is not int or not 0 <= number < 2**63:
            raise self._wrong("a number in it is none of ours")
        return number

    def _text(self, text: object) -> str:
        if not isinstance(text, str) or not _storable((text,)):
            raise self._wrong("a name in it is no text")
        return text

    def _wrong(self, reason: str) -> CorruptError:
        return CorruptError(f"{self._place} is no whole segment: {reason}")


def _storable(fields: Iterable[object]) -> bool:
    """True when SQLite can hold each of them: numbers of 64 bits, and text that is UTF-8."""
    try:
        for field in fields:
            if isinstance(field, str):
                field.encode()
            elif isinstance(field, int) and not _LEAST <= field <= _MOST:
                return False
    except UnicodeEncodeError:
        return False
    return True
