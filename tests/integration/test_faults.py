"""Disks that are full, folders that cannot be written, too few descriptors: typed errors, and work goes on after."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.managing import environment, program, ran
from tests.roots import NOBODY, as_root, give, python, reachable_root

FULL_DISK = """
import asyncio, json, resource, signal, sys, prontodb
from prontodb.errors import ProntoError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
def told(outcome):
    return type(outcome).__name__
async def main():
    report = {}
    async with prontodb.open(sys.argv[1]) as manager:
        async with manager.session("agent", "full") as ks, manager.session("agent", "other") as other:
            await ks.set_many({f"k{n}": "x" * 1_000 for n in range(500)})
            await other.set("a", "1")
            limit(700_000)
            found = await asyncio.gather(
                *(ks.set(f"big{n}", "secret" * 20_000) for n in range(20)), return_exceptions=True
            )
            report["full"] = sorted({told(error) for error in found if isinstance(error, ProntoError)})
            report["odd"] = sorted({told(error) for error in found if not isinstance(error, (ProntoError, int))})
            report["said"] = any("secret" in str(error) for error in found)
            report["stored"] = [await ks.get(f"big{n}") is not None for n in range(20)]
            report["acknowledged"] = [isinstance(error, int) for error in found]
            report["count"] = await ks.count("k")
            report["scanned"] = len([entry async for entry in ks.scan("k")])
            report["other"] = await other.set("a", "2")
            limit(resource.RLIM_INFINITY)
            report["after"] = told(await ks.set("after", "x" * 100_000))
            report["counter"] = await ks.increment("n")
            report["read"] = len(await ks.get("after"))
    print(json.dumps(report))
asyncio.run(main())
"""


def test_on_a_full_disk_writes_fail_typed_reads_go_on_and_writes_work_again_after(root: Path) -> None:
    report = json.loads(ran(FULL_DISK, root))
    assert report["full"] == ["StorageFullError"]
    assert report["odd"] == []
    assert report["said"] is False
    assert report["stored"] == report["acknowledged"]
    assert (report["count"], report["scanned"], report["other"]) == (500, 500, 2)
    assert (report["after"], report["counter"], report["read"]) == ("int", 1, 100_000)


FEW_DESCRIPTORS = """
import asyncio, json, os, resource, sys, prontodb
from prontodb.errors import ProntoError
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
async def use(manager, number, outcomes):
    try:
        async with few, manager.session("agent", f"c{number}") as ks:
            await ks.set("a", str(number))
            assert await ks.get("a") == str(number)
    except ProntoError as error:
        outcomes.append(f"{type(error).__name__}: {error}")
    else:
        outcomes.append("done")
few = asyncio.Semaphore(int(sys.argv[2]))
async def main():
    outcomes = []
    settings = prontodb.Settings(durability="relaxed", wait_s=60)
    async with prontodb.open(sys.argv[1], settings=settings) as manager:
        await asyncio.gather(*(use(manager, number, outcomes) for number in range(200)))
        print(json.dumps({"done": outcomes.count("done"), "others": [o for o in outcomes if o != "done"][:5],
                          "refused": len(outcomes) - outcomes.count("done"),
                          "open": manager._engine.open_keystores}))
asyncio.run(main())
print(len(os.listdir("/proc/self/fd")) < 10)
"""


def test_two_hundred_addresses_need_no_more_than_64_descriptors(root: Path) -> None:
    line, ended = ran(FEW_DESCRIPTORS, root, 20).splitlines()
    report = json.loads(line)
    assert report["others"] == []
    assert (report["done"], ended) == (200, "True")
    assert report["open"] <= 10


def test_more_sessions_at_once_than_there_are_descriptors_for_are_refused_typed(root: Path) -> None:
    line, ended = ran(FEW_DESCRIPTORS, root, 200).splitlines()
    report = json.loads(line)
    assert ended == "True"
    assert report["done"] >= 20
    assert report["done"] + report["refused"] == 200
    for other in report["others"]:
        assert re.match(r"UnavailableError: \d+ sessions are open, all that .*ulimit -n", other)


NO_DESCRIPTOR = """
import asyncio, os, sys, prontodb
from prontodb.errors import ProntoError
async def attempt(name, call):
    try:
        print(name, await call)
    except ProntoError as error:
        print(name, type(error).__name__)
async def open_session(manager):
    async with manager.session("agent", "new") as ks:
        return await ks.set("a", "1")
async def main():
    async with prontodb.open(sys.argv[1]) as manager, manager.session("agent", "test") as ks:
        await ks.set("a", "1")
        await ks.count()
        taken = []
        while True:
            try:
                taken.append(os.dup(0))
            except OSError:
                break
        await attempt("get", ks.get("a"))
        await attempt("set", ks.set("a", "2"))
        await attempt("count", ks.count())
        await attempt("session", open_session(manager))
        for fd in taken:
            os.close(fd)
        await attempt("count", ks.count())
        await attempt("session", open_session(manager))
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
asyncio.run(main())
"""


def test_without_a_single_descriptor_left_errors_are_typed_and_what_is_open_works(root: Path) -> None:
    lines = ran(NO_DESCRIPTOR, root).splitlines()
    # For the session another keystore may be closed, which makes just enough room.
    assert lines[3] in ("session 1", "session UnavailableError")
    revision = 2 if lines[3] == "session 1" else 1
    assert lines[:3] + lines[4:] == ["get 1", "set 2", "count UnavailableError", "count 1", f"session {revision}"]


# What cannot be written

USE = """
import asyncio, json, sys, prontodb
from prontodb.errors import ProntoError
async def outcome(call):
    try:
        return await call
    except ProntoError as error:
        return type(error).__name__
async def use(root):
    async with prontodb.open(root, settings=prontodb.Settings(wait_s=0.2)) as manager:
        async with manager.session("agent", "test", mode="read") as ks:
            return {
                "get": await outcome(ks.get("a")),
                "many": await outcome(ks.get_many(["a", "no"])),
                "list": await outcome(ks.list_keys()),
                "count": await outcome(ks.count()),
                "ttls": await outcome(ks.namespace_ttls()),
                "wait": await outcome(ks.wait_for("a")),
                "set": await outcome(ks.set("a", "2")),
                "delete": await outcome(ks.delete("a")),
                "increment": await outcome(ks.increment("n")),
                "lifetime": await outcome(ks.set_namespace_ttl("ns", 5)),
            }
async def main(root):
    try:
        print(json.dumps(await use(root)))
    except ProntoError as error:
        print(json.dumps({"session": type(error).__name__, "said": str(error)}))
"""
READS = {"get": "1", "many": {"a": "1", "no": None}, "list": ["a"], "count": 1, "ttls": {}, "wait": "1"}
REFUSED = dict.fromkeys(("set", "delete", "increment", "lifetime"), "ReadOnlyError")

MAKE = """
import asyncio, os, signal, sys, prontodb
async def main():
    async with prontodb.open(sys.argv[1]) as manager, manager.session("agent", "test") as ks:
        await ks.set("a", "1")
        if sys.argv[2] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def close_for_writing(root: Path, mode: int) -> None:
    """Take the right to write from every folder below and including `root`."""
    for folder, _, _ in os.walk(root, topdown=False):
        os.chmod(folder, mode)


def open_for_writing(root: Path) -> None:
    for folder, _, _ in os.walk(root):
        os.chmod(folder, 0o700)


def used_by_nobody(root: Path) -> subprocess.CompletedProcess[str]:
    """Use a root as another user, in a process that has used one before: not everybody may read our interpreter."""
    with reachable_root() as before:
        ran(MAKE, before, "closed")
        text = USE + f"asyncio.run(main({str(before)!r}))\nbecome()\nasyncio.run(main({str(root)!r}))"
        return python(text, user=NOBODY)


@as_root
def test_a_root_without_the_right_to_write_can_be_read_and_refuses_writes_typed() -> None:
    with reachable_root() as root:
        ran(MAKE, root, "closed")
        give(root, NOBODY)
        close_for_writing(root, 0o500)
        try:
            done = used_by_nobody(root)
        finally:
            open_for_writing(root)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == READS | REFUSED


@as_root
def test_commits_in_a_log_that_cannot_be_recovered_are_never_passed_over() -> None:
    """Killed writer, closed folder: without recovery the last commits would be missing."""
    with reachable_root() as root:
        subprocess.run(program(MAKE, root, "killed"), env=environment(), check=False)
        folder = root / "addresses/agent/test"
        assert (folder / "keystore.db-wal").stat().st_size > 0
        (folder / "keystore.db-shm").unlink()
        give(root, NOBODY)
        close_for_writing(root, 0o500)
        try:
            done = used_by_nobody(root)
        finally:
            open_for_writing(root)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["session"] == "ReadOnlyError"
    assert "recover" in report["said"]


READ_ONLY_MOUNT = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 1, 32, 4096, 16384, 1 << 18
def done(result):
    if result:
        print("skip", os.strerror(ctypes.get_errno()))
        sys.exit(0)
def read_only(path):
    done(libc.unshare(CLONE_NEWNS))
    done(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    done(libc.mount(path.encode(), path.encode(), None, MS_BIND, None))
    done(libc.mount(b"none", path.encode(), None, MS_BIND | MS_REMOUNT | MS_RDONLY, None))
read_only(sys.argv[1])
"""


@as_root
@pytest.mark.parametrize(("state", "inline_reads"), [("closed", True), ("closed", False), ("killed", True)])
def test_on_a_read_only_file_system_reading_works_and_writing_is_refused_typed(
    root: Path, state: str, inline_reads: bool
) -> None:
    subprocess.run(program(MAKE, root, state), env=environment(), check=False)
    if state == "killed":
        (root / "addresses/agent/test/keystore.db-shm").unlink()
    use = USE.replace("wait_s=0.2", f"wait_s=0.2, inline_reads={inline_reads}")
    said = ran(READ_ONLY_MOUNT + use + "asyncio.run(main(sys.argv[1]))", root)
    if said.startswith("skip"):
        pytest.skip(f"this machine gives no mount namespace: {said}")
    report = json.loads(said)
    if state == "closed":
        assert report == READS | REFUSED
    else:
        assert report["session"] == "ReadOnlyError"
