"""Fences: the store itself refuses who lost the address, whatever that one believes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from prontodb.direct import OneShot, run
from prontodb.engine.sqlite import fencing, opening
from prontodb.engine.sqlite.context import Context
from prontodb.errors import AddressBusyError, FencedError
from prontodb.keystore import Keystore
from prontodb.model.address import Address
from prontodb.model.clock import Clock
from prontodb.model.holder import Holder, new_session_id
from prontodb.model.limits import Limits
from prontodb.model.operation import Fence
from prontodb.storage import lock
from prontodb.storage.process import ourselves
from tests.parts import Parts, fill, value

ONE = Address("agent1", "prod")


def fenced(root: Path, work: Callable[..., object]) -> object:
    return fencing.at(Parts(root).layout, ONE, Limits(wait_s=0), Clock(), work)


def take_over(root: Path, identity: tuple[int, int] | None = None) -> int:
    found = fenced(root, lambda c, t, now: fencing.take_over(c, t, identity, now))
    assert isinstance(found, int)
    return found


def epoch_of(root: Path) -> int:
    parts = Parts(root)
    return opening.read(parts.layout, ONE, lambda connection: Context(connection).epoch, busy_timeout_ms=0)


def write_as(root: Path, fence: Fence, key: str = "k", text: str = "late") -> None:
    with OneShot(str(root), ONE, limits=Limits(wait_s=0)) as keystore:
        run(Keystore(keystore._keyspace, ONE, fence, Limits(wait_s=0), Clock()).set(key, text))


def _fine() -> None:
    """What says that the address is ours still."""


def lock_path(root: Path) -> Path:
    return root / "registry/locks/agent1@prod/address.lock"


def session_lock(root: Path, session: str) -> lock.HeldLock:
    return Parts(root).lifecycle.hold(ONE, "", holder=Holder(ourselves(), "session", 1, session, "exclusive"))


@pytest.fixture(autouse=True)
def stored(root: Path) -> None:
    fill(root, "agent1/prod", {"k": "v"})


def test_a_new_holder_shuts_out_the_old_one(root: Path) -> None:
    first = take_over(root)
    write_as(root, Fence("s-a", first))
    second = take_over(root)
    assert second == first + 1
    with pytest.raises(FencedError, match=f"epoch {first}, now {second}"):
        write_as(root, Fence("s-a", first))
    write_as(root, Fence("s-b", second), text="new")
    assert value(root, "agent1/prod", "k") == "new"


def test_epochs_of_two_keystores_never_meet(root: Path) -> None:
    """What was told an epoch of the keystore that lay here before, or elsewhere, holds nothing of this one."""
    seen = {epoch_of(root)}
    for _ in range(20):
        Parts(root).lifecycle.delete(ONE)
        fill(root, "agent1/prod", {"k": "v"})
        assert 2**40 <= epoch_of(root) < 2**46
        seen |= {take_over(root), take_over(root)}
    assert len(seen) == 41


def test_who_is_no_longer_the_holder_raises_nothing(root: Path) -> None:
    epoch = epoch_of(root)

    def check() -> None:
        raise FencedError("put out")

    with pytest.raises(FencedError):
        fenced(root, lambda c, t, now: fencing.take_over(c, t, None, now, check))
    assert epoch_of(root) == epoch


def test_an_eviction_is_of_one_holder_and_happens_once(root: Path) -> None:
    epoch = take_over(root)
    assert fenced(root, lambda c, t, now: fencing.evict(c, t, epoch, now)) == epoch + 1
    with pytest.raises(FencedError, match="already"):
        fenced(root, lambda c, t, now: fencing.evict(c, t, epoch, now))
    assert epoch_of(root) == epoch + 1


def test_a_revoked_session_writes_no_more_until_it_is_forgotten(root: Path) -> None:
    fenced(root, lambda c, t, now: fencing.revoke(c, t, "s-a", now))
    with pytest.raises(FencedError, match="s-a"):
        write_as(root, Fence("s-a"))
    write_as(root, Fence("s-b"))
    fenced(root, lambda c, t, now: fencing.restore(c, t, ["s-a"], now))
    write_as(root, Fence("s-a"), text="again")
    assert value(root, "agent1/prod", "k") == "again"


def test_another_lock_file_than_the_last_holders_shuts_that_one_out(root: Path) -> None:
    """Somebody deleted the lock file under a holder: who comes next cannot see that one."""
    with Parts(root).lifecycle.hold(ONE, "session") as held:
        epoch = take_over(root, held.identity)
        path = lock_path(root)
        path.rename(path.with_suffix(".away"))
        with OneShot(str(root), ONE) as keystore:  # takes a new lock file
            run(keystore.set("k", "mine"))
        with pytest.raises(FencedError):
            write_as(root, Fence("s-a", epoch))
    assert epoch_of(root) == epoch + 1
    with OneShot(str(root), ONE) as keystore:
        run(keystore.set("k", "again"))
    assert epoch_of(root) == epoch + 1, "the same lock file again: nobody is shut out"


def test_the_lock_file_is_compared_by_a_shared_session_too(root: Path) -> None:
    with Parts(root).lifecycle.hold(ONE, "session") as held:
        epoch = take_over(root, held.identity)
        fenced(root, lambda c, t, now: fencing.check_lock(c, t, held.identity, now, _fine))
        assert epoch_of(root) == epoch
        other = (held.identity[0], held.identity[1] + 1)
        fenced(root, lambda c, t, now: fencing.check_lock(c, t, other, now, _fine))
        assert epoch_of(root) == epoch + 1


def test_an_address_without_any_holder_yet_is_not_written_to_for_its_lock(root: Path) -> None:
    epoch, before = epoch_of(root), (root / "addresses/agent1/prod/keystore.db").stat().st_mtime_ns
    fenced(root, lambda c, t, now: fencing.check_lock(c, t, (1, 2), now, _fine))
    assert epoch_of(root) == epoch
    assert (root / "addresses/agent1/prod/keystore.db").stat().st_mtime_ns == before


def test_whoever_takes_the_lock_of_a_dead_session_shuts_out_what_it_started(root: Path) -> None:
    session = new_session_id(str(root), ONE)
    held = session_lock(root, session)
    epoch = take_over(root, held.identity)
    write_as_child = Fence(session, epoch)
    held.abandon()  # as its death does: the record stays
    with Parts(root).lifecycle.hold(ONE, "look"):
        pass
    assert epoch_of(root) == epoch + 1
    with pytest.raises(FencedError):
        write_as(root, write_as_child)
    with Parts(root).lifecycle.hold(ONE, "look"):
        pass
    assert epoch_of(root) == epoch + 1, "once"


def test_a_session_that_ended_by_itself_leaves_nothing_to_do(root: Path) -> None:
    epoch = epoch_of(root)
    session_lock(root, new_session_id(str(root), ONE)).release()
    with Parts(root).lifecycle.hold(ONE, "look") as held:
        assert held.previous is None
    assert epoch_of(root) == epoch


def test_who_cannot_shut_out_the_dead_leaves_the_sign_for_the_next(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, epoch = new_session_id(str(root), ONE), epoch_of(root)
    session_lock(root, session).abandon()

    def fails(*_: object) -> None:
        # A kill here leaves the file as it is now.
        assert session.encode() in lock_path(root).read_bytes()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fencing, "at", fails)
        with pytest.raises(KeyboardInterrupt):
            Parts(root).lifecycle.hold(ONE, "look")
    with Parts(root).lifecycle.hold(ONE, "look") as held:
        assert held.previous is not None
        assert held.previous.session == session
    assert epoch_of(root) == epoch + 1


def test_a_damaged_keystore_of_a_dead_session_can_still_be_deleted(root: Path) -> None:
    session_lock(root, new_session_id(str(root), ONE)).abandon()
    (root / "addresses/agent1/prod/keystore.db").write_bytes(b"garbage" * 1_000)
    assert Parts(root).lifecycle.delete(ONE)


def test_an_address_with_live_sessions_is_neither_deleted_nor_renamed(root: Path) -> None:
    from prontodb.storage import holders
    from prontodb.storage.files import make_root

    parts, session = Parts(root, wait_s=0), new_session_id(str(root), ONE)
    with make_root(str(root), *parts.layout.lock_parts(ONE)) as folder:
        holder = Holder(ourselves(), "session", 1, session, "shared")
        held = lock.create_held(folder, holders.file_of(session), holder)
        for change in (lambda: parts.lifecycle.delete(ONE), lambda: parts.lifecycle.rename(ONE, Address("a", "b"))):
            with pytest.raises(AddressBusyError, match=f"prontodb session end {session}") as caught:
                change()
            assert caught.value.holders == (holder,)
        held.abandon()
        parts.lifecycle.rename(ONE, Address("a", "b"))
        assert list(holders.shared(folder)) == []
