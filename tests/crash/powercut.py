"""Power-cut images: what a disk may hold when the power goes at any instant of a recorded program.

`record` runs a program under strace and returns what it did below one folder, its acknowledgements among it. A `Disk`
follows these events and lays out images of itself. Strictly by POSIX a write is safe once its file was synced, and a
name once the folder that holds it was synced (not when the file was); what is not yet safe is lost, kept, or torn, as
the mode says. Renames are atomic, of folders too. Memory-mapped writes are not seen: SQLite rebuilds its -shm anyway.
"""

import codecs
import os
import random
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.tracing import environment

LOST, KEPT, JOURNALLED, SCATTERED = "lost", "kept", "journalled", "scattered"
"""Modes: all unsafe changes lost; all kept; names as a journalling file system keeps them (in one order, all of them
safe at any sync) with data at random; names of each folder and data at random."""

SECTOR = 512
_TRACED = (
    "openat,creat,write,pwrite64,writev,pwritev,lseek,ftruncate,truncate,fallocate,fsync,fdatasync,sync,syncfs,"
    "unlink,unlinkat,rmdir,rename,renameat,renameat2,mkdir,mkdirat,link,linkat,symlink,symlinkat,dup,dup2,dup3,fcntl"
)
_CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|<[^>]*>|[^,]')


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: `ack`, `make` (a file), `folder`, `write`, `cut` (to a size), `sync`, `drop`, `move`."""

    kind: str
    path: str = ""
    data: bytes = b""
    offset: int = 0
    target: str = ""


def record(command: Sequence[str], base: Path, log: Path) -> list[Event]:
    """Run `command` to its end and return its events below `base`; what it prints is an acknowledgement."""
    strace = ["strace", "-f", "-qq", "-y", "-xx", "-s", "1000000", "--seccomp-bpf", "-o", str(log)]
    done = subprocess.run(
        [*strace, "-e", f"trace={_TRACED}", *command], capture_output=True, text=True, env=environment(), timeout=120
    )
    assert done.returncode == 0, done.stderr
    reader = _Reader(str(base))
    return [event for line in log.read_text().splitlines() for event in reader.events(line)]


def _text(quoted: str) -> bytes:
    return codecs.escape_decode(quoted.strip()[1:-1].encode())[0]


def _arguments(text: str) -> list[str]:
    """Split at the commas that stand in no string and no path."""
    parts = [""]
    for token in re.finditer(_TOKEN.pattern + "|,", text):
        if token[0] == ",":
            parts.append("")
        else:
            parts[-1] += token[0]
    return [part.strip() for part in parts]


class _Reader:
    """Turns strace's lines into events; knows where in its file each descriptor stands."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._position: dict[str, list[int]] = {}  # by descriptor; shared by duplicates

    def events(self, line: str) -> Iterator[Event]:
        assert "<unfinished" not in line, "the recorded program must have one thread"
        matched = _CALL.match(line)
        if matched is None or int(matched[3]) < 0:
            return
        name, arguments, result = matched[1], _arguments(matched[2]), int(matched[3])
        handler = getattr(self, f"_on_{name}", None)
        assert handler is not None, f"a call that the replayer does not know: {line[:200]}"
        for event in handler(arguments, result):
            if event.kind == "ack" or self._below(event.path) or self._below(event.target):
                yield event

    def _below(self, path: str) -> bool:
        return path == self._base or path.startswith(self._base + "/")

    def _open_path(self, descriptor: str) -> str:
        """The path that strace shows behind a descriptor: `5<\\x2f...>`."""
        return os.fsdecode(_text(descriptor[descriptor.index("<") :]))

    def _path(self, at: str, name: str) -> str:
        text = os.fsdecode(_text(name))
        return os.path.normpath(text if text.startswith("/") else f"{self._open_path(at)}/{text}")

    def _on_openat(self, arguments: list[str], result: int) -> Iterator[Event]:
        path = self._path(arguments[0], arguments[1])
        flags = arguments[2].split("|")
        self._position[str(result)] = [0]
        assert "O_APPEND" not in flags or not self._below(path), "appending is not replayed"
        if "O_CREAT" in flags:
            yield Event("make", path)
        if "O_TRUNC" in flags:
            yield Event("cut", path)

    def _on_write(self, arguments: list[str], result: int) -> Iterator[Event]:
        number = arguments[0].partition("<")[0]
        data = _text(arguments[1])[:result]
        if number == "1":
            yield Event("ack", data=data)
            return
        position = self._position.setdefault(number, [0])
        yield Event("write", self._open_path(arguments[0]), data, position[0])
        position[0] += result

    def _on_pwrite64(self, arguments: list[str], result: int) -> Iterator[Event]:
        yield Event("write", self._open_path(arguments[0]), _text(arguments[1])[:result], int(arguments[3]))

    def _on_lseek(self, arguments: list[str], result: int) -> Iterator[Event]:
        self._position.setdefault(arguments[0].partition("<")[0], [0])[0] = result
        return iter(())

    def _on_dup(self, arguments: list[str], result: int) -> Iterator[Event]:
        self._position[str(result)] = self._position.setdefault(arguments[0].partition("<")[0], [0])
        return iter(())

    _on_dup2 = _on_dup3 = _on_dup

    def _on_fcntl(self, arguments: list[str], result: int) -> Iterator[Event]:
        return self._on_dup(arguments, result) if arguments[1].startswith("F_DUPFD") else iter(())

    def _on_ftruncate(self, arguments: list[str], result: int) -> Iterator[Event]:
        yield Event("cut", self._open_path(arguments[0]), offset=int(arguments[1]))

    def _on_fsync(self, arguments: list[str], result: int) -> Iterator[Event]:
        yield Event("sync", self._open_path(arguments[0]))

    _on_fdatasync = _on_fsync

    def _on_mkdir(self, arguments: list[str], result: int) -> Iterator[Event]:
        yield Event("folder", self._path("", arguments[0]))

    def _on_mkdirat(self, arguments: list[str], result: int) -> Iterator[Event]:
        yield Event("folder", self._path(arguments[0], arguments[1]))

    def _on_unlink(self, arguments: list[str], result: int) -> Iterator[Event]:
        yield Event("drop", self._path("", arguments[0]))

    _on_rmdir = _on_unlink

    def _on_unlinkat(self, arguments: list[str], result: int) -> Iterator[Event]:
        yield Event("drop", self._path(arguments[0], arguments[1]))

    def _on_rename(self, arguments: list[str], result: int) -> Iterator[Event]:
        yield Event("move", self._path("", arguments[0]), target=self._path("", arguments[1]))

    def _on_renameat(self, arguments: list[str], result: int) -> Iterator[Event]:
        old, new = self._path(arguments[0], arguments[1]), self._path(arguments[2], arguments[3])
        yield Event("move", old, target=new)

    _on_renameat2 = _on_renameat


@dataclass(slots=True)
class _File:
    """A file's inode: its bytes that are safe, and what was done to it since."""

    safe: bytearray = field(default_factory=bytearray)
    pending: list[Event] = field(default_factory=list)

    def sync(self) -> None:
        for event in self.pending:
            _change(self.safe, event, len(event.data))
        self.pending.clear()

    def image(self, mode: str, chance: random.Random) -> bytearray:
        found = bytearray(self.safe)
        for event in self.pending if mode != LOST else ():
            whole = len(event.data)
            if mode == KEPT:
                _change(found, event, whole)
            elif chance.random() < 0.5:
                torn = chance.random() < 0.3 and whole > SECTOR
                _change(found, event, chance.randrange(0, whole, SECTOR) if torn else whole)
        return found


def _change(content: bytearray, event: Event, length: int) -> None:
    if event.kind == "cut":
        del content[event.offset :]
        content.extend(bytes(event.offset - len(content)))
        return
    content.extend(bytes(max(0, event.offset - len(content))))
    content[event.offset : event.offset + length] = event.data[:length]


@dataclass(slots=True)
class _Folder:
    """A folder's inode: the names in it as a running system sees them."""

    names: dict[str, "_File | _Folder"] = field(default_factory=dict)


@dataclass(slots=True)
class _NameChange:
    """One atomic change of names, as (folder, name, what it leads to or None); safe once a folder of it was synced."""

    steps: list[tuple[_Folder, str, "_File | _Folder | None"]]
    safe: bool = False


class Disk:
    """Follows events, and lays out what a power cut at this instant could leave."""

    def __init__(self, base: Path) -> None:
        self._base = str(base)
        self._top = _Folder()
        self._log: list[_NameChange] = []
        self._journalled = 0  # length of the log at the latest sync of anything

    def follow(self, event: Event) -> None:
        """Do what the program did."""
        match event.kind:
            case "make" if self._find(event.path) is None:
                self._link(event.path, _File())
            case "folder":
                self._link(event.path, _Folder())
            case "write" | "cut":
                file = self._find(event.path)
                if isinstance(file, _File) and not event.path.endswith("-shm"):
                    file.pending.append(event)
            case "sync":
                self._sync(self._find(event.path))
            case "drop":
                self._log.append(_NameChange([self._unlinked(event.path)]))
            case "move":
                found = self._find(event.path)
                assert found is not None, event
                gone = self._unlinked(event.path)
                self._log.append(_NameChange([gone, self._linked(event.target, found)]))

    def _place(self, path: str) -> tuple[_Folder, str]:
        above, name = os.path.split(path)
        folder = self._find(above)
        assert isinstance(folder, _Folder), f"nothing was recorded at {above}"
        return folder, name

    def _find(self, path: str) -> "_File | _Folder | None":
        here: _File | _Folder | None = self._top
        for part in os.path.relpath(path, self._base).split("/"):
            if part == ".":
                continue
            here = here.names.get(part) if isinstance(here, _Folder) else None
        return here

    def _link(self, path: str, inode: "_File | _Folder") -> None:
        self._log.append(_NameChange([self._linked(path, inode)]))

    def _linked(self, path: str, inode: "_File | _Folder") -> tuple[_Folder, str, "_File | _Folder | None"]:
        folder, name = self._place(path)
        folder.names[name] = inode
        return folder, name, inode

    def _unlinked(self, path: str) -> tuple[_Folder, str, None]:
        folder, name = self._place(path)
        del folder.names[name]
        return folder, name, None

    def _sync(self, inode: "_File | _Folder | None") -> None:
        if isinstance(inode, _File):
            inode.sync()
        elif isinstance(inode, _Folder):
            for change in self._log:
                change.safe = change.safe or any(folder is inode for folder, _, _ in change.steps)
        self._journalled = len(self._log)

    def lay(self, destination: Path, mode: str, chance: random.Random) -> None:
        """Write an image of the base folder into the new folder `destination`."""
        tree: dict[int, dict[str, _File | _Folder]] = {}
        for change in self._kept_changes(mode, chance):
            for folder, name, inode in change.steps:
                names = tree.setdefault(id(folder), {})
                if inode is None:
                    names.pop(name, None)
                else:
                    names[name] = inode
        _lay(self._top, tree, destination, mode, chance)

    def _kept_changes(self, mode: str, chance: random.Random) -> list[_NameChange]:
        if mode == LOST:
            return [change for change in self._log if change.safe]
        if mode == KEPT:
            return self._log
        if mode == JOURNALLED:
            return self._log[: chance.randint(self._journalled, len(self._log))]
        cuts: dict[int, int] = {}
        kept = []
        for number, change in enumerate(self._log):
            for folder, _, _ in change.steps:
                cuts.setdefault(id(folder), chance.randint(0, len(self._log)))
            if change.safe or all(number < cuts[id(folder)] for folder, _, _ in change.steps):
                kept.append(change)
        return kept


def _lay(
    folder: _Folder, tree: dict[int, dict[str, "_File | _Folder"]], path: Path, mode: str, chance: random.Random
) -> None:
    path.mkdir(mode=0o700)
    for name, inode in tree.get(id(folder), {}).items():
        if isinstance(inode, _Folder):
            _lay(inode, tree, path / name, mode, chance)
        else:
            fd = os.open(path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(fd, "wb") as file:
                file.write(inode.image(mode, chance))
