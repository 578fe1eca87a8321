"""The face for programs without an event loop: the same results and errors, from any thread."""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import prontodb
from prontodb import blocking, guarding
from prontodb.errors import AddressBusyError, ClosedError, InvalidKeyError, RevisionConflictError, WaitTimeoutError
from tests.managing import PATIENCE_S, descriptors, ran, threads

RELAXED = prontodb.Settings(durability="relaxed")
INTERNAL = {"close"}


@pytest.fixture
def manager(root: Path) -> Iterator[blocking.SessionManager]:
    before = threads(), descriptors()
    with blocking.open(root, settings=RELAXED) as opened:
        yield opened
    assert (threads(), descriptors()) == before


@pytest.fixture
def ks(manager: blocking.SessionManager) -> Iterator[blocking.Keystore]:
    with manager.session("agent", "test") as handle:
        yield handle


def public(kind: type) -> dict[str, object]:
    return {name: found for name, found in vars(kind).items() if not name.startswith("_") and name not in INTERNAL}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (blocking.Keystore, prontodb.Keystore),
        (blocking.SessionManager, prontodb.SessionManager),
        (blocking.AccessBook, guarding.AccessBook),
    ],
)
def test_it_has_every_method_of_the_async_face_with_the_same_arguments(ours: type, theirs: type) -> None:
    assert public(ours).keys() == public(theirs).keys()
    for name, method in public(theirs).items():
        if callable(method):
            mine = getattr(ours, name)
            assert list(inspect.signature(mine).parameters) == list(inspect.signature(method).parameters), name
            assert mine.__doc__, name


def test_values_come_and_go(ks: blocking.Keystore) -> None:
    assert ks.set("a", "1") == 1
    assert ks.get("a") == "1"
    assert ks.get("b") is None
    assert ks.set_many({"b": "2", "c": "3"}) == 3
    assert ks.get_many(["a", "z"]) == {"a": "1", "z": None}
    assert [entry.key for entry in ks.scan()] == ks.list_keys() == ["a", "b", "c"]
    assert ks.increment("n", 5) == 5
    assert ks.compare_and_set("a", "1", "x")
    assert ks.delete("b")
    assert ks.count() == 3
    assert str(ks.address) == "agent/test"
    assert ks.epoch
    assert ks.cache is not None


def test_a_scan_of_many_pages_brings_each_once(ks: blocking.Keystore) -> None:
    keys = [f"k{number:04}" for number in range(900)]
    ks.set_many(dict.fromkeys(keys, "v"))
    assert [entry.key for entry in ks.scan("k")] == keys
    for entry in ks.scan("k"):
        if entry.key == "k0003":
            break  # left early, nothing stays behind


def test_a_transaction_applies_at_its_end_and_not_after_an_error(ks: blocking.Keystore) -> None:
    with ks.transaction() as tx:
        assert tx.get("a") is None
        tx.set("a", "1")
        tx.set("b", "2")
        assert tx.exists("b")
        tx.delete("b")
    assert ks.list_keys() == ["a"]
    with pytest.raises(ZeroDivisionError), ks.transaction() as tx:
        tx.set("a", "9")
        raise ZeroDivisionError
    with pytest.raises(RevisionConflictError), ks.transaction() as tx:
        tx.set("c", tx.get("a") or "")
        ks.set("a", "changed")
    assert ks.get_many(["a", "c"]) == {"a": "changed", "c": None}


def test_errors_are_the_same(manager: blocking.SessionManager, ks: blocking.Keystore) -> None:
    with pytest.raises(InvalidKeyError):
        ks.get("")
    with pytest.raises(WaitTimeoutError):
        ks.wait_for("never", timeout=0.01)
    with pytest.raises(AddressBusyError, match=ks.session_id), manager.session("agent", "test", wait=0):
        pass
    with pytest.raises(RuntimeError, match="mine"):
        ks.wait_for("never", _raise)


def _raise(_: str | None) -> bool:
    raise RuntimeError("mine")


def test_threads_share_a_handle_and_a_manager(manager: blocking.SessionManager, ks: blocking.Keystore) -> None:
    def work(number: int) -> None:
        for _ in range(20):
            ks.increment("n")
        with manager.session("agent", f"own{number}") as own:
            own.set("a", str(number))

    together([partial(work, number) for number in range(6)])
    assert ks.get("n") == "120"
    assert len(manager.addresses()) == 7


def together(calls: list[Callable[[], None]]) -> None:
    running = [threading.Thread(target=call) for call in calls]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_a_watch_brings_changes_and_ends_with_its_session(manager: blocking.SessionManager) -> None:
    seen: list[str] = []
    with manager.session("agent", "test") as ks:
        changes = ks.watch("a")
        changes.start()
        position = changes.position
        ks.set_many({"a1": "1", "b": "2", "a2": "3"})
        seen += [next(changes).key, next(changes).key]
        assert seen == ["a1", "a2"]
        assert next(ks.watch("b", since=position)).key == "b"
        ended: list[BaseException] = []

        def wait() -> None:
            try:
                next(changes)
            except ClosedError as error:
                ended.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
    thread.join(PATIENCE_S)
    assert len(ended) == 1


def test_addresses_sessions_and_copies(manager: blocking.SessionManager, ks: blocking.Keystore) -> None:
    ks.set("a", "1")
    assert manager.copy(ks, "agent/copy").copied == 1
    lines = list(manager.export("agent/copy"))
    assert manager.import_lines("agent/more", lines).imported == 1
    (found,) = manager.sessions()
    assert found.id == ks.session_id
    manager.end_session(ks.session_id, force=True)
    assert manager.rename("agent/more", "agent/less") is None
    assert manager.delete("agent/less")
    assert manager.describe("agent/copy").entries == 1
    assert manager.doctor().level == "ok"
    assert manager.settings == RELAXED
    assert manager.root


def test_after_the_block_everything_is_closed(root: Path) -> None:
    with blocking.open(root, settings=RELAXED) as manager, manager.session("agent", "test") as ks:
        ks.set("a", "1")
    for call in (lambda: ks.get("a"), manager.addresses, lambda: list(ks.scan())):
        with pytest.raises(ClosedError):
            call()
    with pytest.raises(ClosedError), manager.session("agent", "test"):
        pass


def test_its_own_thread_is_told_instead_of_waiting_for_itself(ks: blocking.Keystore) -> None:
    with pytest.raises(ClosedError, match="own thread"):
        ks.wait_for("never", lambda _: ks.get("a") == "1")


def test_it_works_beside_a_running_loop(root: Path) -> None:
    async def main() -> str | None:
        return await asyncio.to_thread(use)

    def use() -> str | None:
        with blocking.open(root, settings=RELAXED) as manager, manager.session("agent") as ks:
            ks.set("a", "1")
            return ks.get("a")

    assert asyncio.run(main()) == "1"


def test_an_error_in_the_block_is_raised_as_it_is(root: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        blocking.open(root, settings=RELAXED) as manager,
        manager.session("agent", "test"),
    ):
        raise ZeroDivisionError
    with blocking.open(root, settings=RELAXED) as manager:
        assert manager.sessions() == []


def test_leaving_the_manager_ends_what_other_threads_have_open(root: Path) -> None:
    inside, over = threading.Event(), threading.Event()
    said: list[BaseException | None] = []

    def work(manager: blocking.SessionManager) -> None:
        try:
            with manager.session("agent", "test") as ks:
                inside.set()
                over.wait(PATIENCE_S)
                with pytest.raises(ClosedError):
                    ks.get("a")
        except BaseException as error:  # noqa: BLE001 - whatever comes is looked at
            said.append(error)
        else:
            said.append(None)

    with blocking.open(root, settings=RELAXED) as manager:
        thread = threading.Thread(target=work, args=(manager,))
        thread.start()
        assert inside.wait(PATIENCE_S)
    over.set()
    thread.join(PATIENCE_S)
    assert said == [None]
    with blocking.open(root, settings=RELAXED) as manager, manager.session("agent", "test", wait=0):
        pass


class AlarmError(Exception):
    """What a signal handler raises."""


def test_an_interrupted_wait_for_a_session_takes_nothing(manager: blocking.SessionManager) -> None:
    def interrupt(_number: int, _frame: object) -> None:
        raise AlarmError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with manager.session("agent", "test"):
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            with pytest.raises(AlarmError), manager.session("agent", "test", wait=60):
                pass
    finally:
        signal.signal(signal.SIGALRM, before)
    assert manager.sessions() == []
    with manager.session("agent", "test", wait=0):
        pass


FORKED = """
import os, sys, prontodb
from prontodb import blocking
with blocking.open(sys.argv[1]) as manager, manager.session("agent", "test") as ks:
    ks.set("a", "1")
    pid = os.fork()
    if pid == 0:
        try:
            ks.get("a")
        except prontodb.errors.ClosedError as error:
            print("child:", error, flush=True)
    else:
        os.waitpid(pid, 0)
        print("parent:", ks.get("a"))
"""


def test_in_the_child_of_a_fork_it_raises_and_its_blocks_end(root: Path) -> None:
    child, parent = ran(FORKED, root).splitlines()
    assert "another process" in child
    assert parent == "parent: 1"


def test_an_export_left_early_is_closed(manager: blocking.SessionManager, ks: blocking.Keystore) -> None:
    ks.set_many({f"k{number:03}": "v" for number in range(900)})
    lines = manager.export("agent/test")
    assert next(lines)
    del lines
    entries = ks.scan()
    assert next(entries).key == "k000"


class Interrupted:
    """A loop whose page an interrupt has cancelled, and which has not let go of it yet."""

    running = is_here = True

    def __init__(self) -> None:
        self.errors: list[BaseException] = [KeyboardInterrupt(), RuntimeError("already running")]

    def run(self, _: object) -> None:
        raise self.errors.pop(0)


def test_an_interrupt_of_a_scan_stays_an_interrupt() -> None:
    async def entries() -> AsyncIterator[str]:
        yield "never"

    with pytest.raises(KeyboardInterrupt):
        list(blocking._iterated(Interrupted(), entries()))  # type: ignore[arg-type]
