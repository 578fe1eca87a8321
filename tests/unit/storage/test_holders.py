"""Lock files of sessions: made held, seen by others, marked for one session alone, removed only when it is dead."""

import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from prontodb.errors import UnsafePathError
from prontodb.model.holder import Holder, new_session_id
from prontodb.storage import holders, lock
from prontodb.storage.files import Folder, make_root
from prontodb.storage.process import ourselves
from tests.managing import Child

PARTS = ("registry", "locks", "agent@test")

SESSION = """
import sys
from prontodb.model.holder import Holder
from prontodb.storage import holders, lock
from prontodb.storage.files import make_root
from prontodb.storage.process import ourselves
with make_root(sys.argv[1], "registry", "locks", "agent@test") as folder:
    holder = Holder(ourselves(), "session", 1, sys.argv[2], "shared")
    held = lock.create_held(folder, holders.file_of(sys.argv[2]), holder)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(root: Path) -> Iterator[Folder]:
    with make_root(str(root), *PARTS) as folder:
        yield folder


def session(root: Path) -> str:
    return new_session_id(str(root), "agent/test")


def held_here(folder: Folder, session: str, mode: str = "shared") -> lock.HeldLock:
    return lock.create_held(folder, holders.file_of(session), Holder(ourselves(), "session", 1, session, mode))


def exclusive_here(root: Path, session: str) -> lock.HeldLock:
    return lock.acquire(
        str(root),
        PARTS,
        "address.lock",
        purpose="",
        wait_s=0,
        one_shot=True,
        holder=Holder(ourselves(), "session", 1, session, "exclusive"),
    )


def test_a_session_is_seen_while_it_lives_and_leaves_no_file(root: Path, folder: Folder) -> None:
    own = session(root)
    held = held_here(folder, own)
    (found,) = holders.shared(folder)
    assert (found.session, found.live) == (own, True)
    assert found.holder is not None
    assert found.holder.process == ourselves()
    assert os.stat(held.path).st_mode & 0o777 == 0o600
    held.release(remove=True)
    assert folder.names() == []


def test_one_that_was_killed_is_dead_and_one_that_was_stopped_is_not(root: Path, folder: Folder) -> None:
    killed, stopped = session(root), session(root)
    with Child(SESSION, root, killed) as first, Child(SESSION, root, stopped) as second:
        assert (first.line(), second.line()) == ("held", "held")
        first.process.kill()
        first.process.wait()
        second.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, second.process.pid, os.WSTOPPED | os.WNOWAIT)
        assert {found.session: found.live for found in holders.shared(folder)} == {killed: False, stopped: True}
        live, dead = holders.clear(folder)
        assert [found.session for found in live] == [stopped]
        assert [found.session for found in dead] == [killed]
        assert folder.names() == [holders.file_of(stopped)]


def test_one_that_cannot_be_waited_for_yet_is_dead_too(root: Path, folder: Folder) -> None:
    """A zombie has given up its locks, whatever its pid says."""
    own = session(root)
    with Child(SESSION, root, own) as child:
        assert child.line() == "held"
        child.process.kill()
        os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOWAIT)
        assert [found.live for found in holders.shared(folder)] == [False]


def test_a_record_that_cannot_be_read_does_not_hide_a_session(root: Path, folder: Folder) -> None:
    own = session(root)
    with held_here(folder, own) as held:
        Path(held.path).write_bytes(b"garbage")
        (found,) = holders.shared(folder)
        assert (found.session, found.live, found.holder) == (own, True, None)
        assert str(found) == f"session {own}"
        assert own in holders.way_out([found])


def test_the_exclusive_one_is_seen_and_an_operation_is_none(root: Path, folder: Folder) -> None:
    assert holders.exclusive(folder) is None
    with lock.acquire(str(root), PARTS, "address.lock", purpose="set", wait_s=0, one_shot=True):
        assert holders.exclusive(folder) is None
    own = session(root)
    held = exclusive_here(root, own)
    with held_here(folder, session(root)):
        found = holders.at(str(root), PARTS)
        assert [(one.session == own, one.live) for one in found] == [(True, True), (False, True)]
    held.abandon()  # as its death does
    dead = holders.exclusive(folder)
    assert dead is not None
    assert (dead.session, dead.live) == (own, False)
    with exclusive_here(root, session(root)) as again:
        assert again.previous is not None
        assert again.previous.session == own
    assert holders.exclusive(folder) is None


def test_a_mark_reaches_the_session_it_is_meant_for_and_no_other(root: Path, folder: Folder) -> None:
    own, other = session(root), session(root)
    held = exclusive_here(root, own)
    assert held.mark(own) == lock.UNMARKED
    assert not lock.mark(folder, "address.lock", lock.ASKED, other)
    assert held.mark(own) == lock.UNMARKED
    assert lock.mark(folder, "address.lock", lock.ASKED, own)
    assert held.mark(own) == lock.ASKED
    assert held.mark(other) == lock.UNMARKED, "one that came a moment too late"
    held.write(Holder(ourselves(), "session", 1, other, "exclusive"))
    assert held.mark(other) == lock.UNMARKED
    held.abandon()
    assert not lock.mark(folder, "address.lock", lock.EVICTED, other), "it is dead"
    assert not lock.mark(folder, "missing.lock", lock.EVICTED, other)


def test_an_emptied_lock_file_is_no_mark(root: Path, folder: Folder) -> None:
    own = session(root)
    with exclusive_here(root, own) as held:
        os.truncate(held.path, 0)
        assert held.mark(own) == b""


def test_a_lock_file_that_was_taken_away_is_noticed_and_not_removed_in_place_of_ours(
    root: Path, folder: Folder
) -> None:
    own = session(root)
    held = held_here(folder, own)
    path = Path(held.path)
    assert held.still_there
    path.rename(path.with_suffix(".away"))
    path.write_bytes(b"somebody else's")
    assert not held.still_there
    held.release(remove=True)
    assert path.read_bytes() == b"somebody else's"


def test_only_names_of_sessions_count(root: Path, folder: Folder) -> None:
    for name in ("s-1.lock", "s-xxxxxxxxxxxxxxxxxxxx.lock", f".{session(root)}.lock.tmp", "gate.lock"):
        folder.create(name, b"")
    assert list(holders.shared(folder)) == []
    assert holders.at(str(root / "nowhere"), PARTS) == []


def test_one_that_died_while_it_came_in_is_cleared_away(root: Path, folder: Folder) -> None:
    name = f".{holders.file_of(session(root))}.tmp"
    folder.create(name, b"")
    assert holders.clear(folder) == ([], [])
    assert folder.names() == []


def test_a_link_in_place_of_a_lock_file_is_refused(root: Path, folder: Folder, tmp_path: Path) -> None:
    (root.joinpath(*PARTS) / holders.file_of(session(root))).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafePathError):
        list(holders.shared(folder))
    assert not (tmp_path / "elsewhere").exists()


def test_two_who_look_at_once_see_a_free_lock(root: Path, folder: Folder) -> None:
    own = session(root)
    held_here(folder, own).abandon()
    fd = os.open(root.joinpath(*PARTS) / holders.file_of(own), os.O_RDONLY)
    try:
        assert lock._locked(fd, fcntl.LOCK_SH)
        seen = lock.look(folder, holders.file_of(own))
        assert seen is not None
        assert not seen.held
    finally:
        os.close(fd)
