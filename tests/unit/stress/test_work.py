"""Each operation of an agent is written down with how it ended, and every life has an end."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import pytest

from prontodb import errors
from stress import work as working
from stress.history import CLOSE, FAILED, GET, OK, OPEN, RAISE, SET, UNKNOWN
from stress.work import Stay
from tests.unit.stress.small_world import HOME, HOUR_NS, Life, life


async def nothing(stay: Stay) -> None:
    pass


async def test_a_visit_is_an_opening_operations_and_a_closing(tmp_path: Path) -> None:
    async def body(stay: Stay) -> None:
        assert stay.work.tally.session == "s-1"
        assert stay.work.tally.address == HOME
        await stay.set("ledger.1", "v")
        assert await stay.get("ledger.1") == "v"

    with life(tmp_path) as lived:
        assert await lived.stays(body, "shared", wait_s=2.0, create=False)
        assert lived.world.visits == [(HOME, "shared", 2.0, False)]
        assert (lived.world.left, lived.work.tally.session) == (1, "")
        opened, wrote, read, closed = lived.recorded()
    assert (opened.op, opened.argument, opened.result) == (OPEN, {"mode": "shared"}, {"session": "s-1", "epoch": 7})
    assert (wrote.op, wrote.key, wrote.argument, wrote.result) == (SET, "ledger.1", "v", 1)
    assert (read.op, read.key, read.result, closed.op) == (GET, "ledger.1", "v", CLOSE)
    assert {one.session for one in (wrote, read, closed)} == {"s-1"}
    assert {(one.outcome, one.address, one.process) for one in lived.recorded()} == {(OK, HOME, "agent001-1")}
    assert (lived.work.tally.done, lived.work.tally.failed) == (4, 0)


async def test_every_operation_of_a_stay_is_written_down_as_checkers_read_it(tmp_path: Path) -> None:
    async def body(stay: Stay) -> None:
        await stay.set_many({"ledger.1": "a", "ledger.2": "b"})
        assert await stay.get_many(["ledger.1", "x"]) == {"ledger.1": "a", "x": None}
        await stay.transact({"pair.0.left": "p", "pair.0.right": "p"})
        await stay.compare_and_set("register.0", None, "r")
        await stay.compare_and_set("register.0", None, "q")
        await stay.increment("counter.0", 3)
        await stay.lend("lease.1", "l", 1_500)
        await stay.renew("lease.1", 250)
        await stay.delete("register.0")
        assert await stay.keys("ledger.") == ["ledger.1", "ledger.2"]
        assert await stay.peek("token.agent000.1") is None

    with life(tmp_path) as lived:
        await lived.stays(body)
        told = [(one.op, one.key, one.argument, one.result) for one in lived.recorded()[1:-1]]
    assert told == [
        ("set_many", "ledger.1", {"ledger.1": "a", "ledger.2": "b"}, 2),
        ("get_many", "ledger.1", ["ledger.1", "x"], {"ledger.1": "a", "x": None}),
        ("transact", "pair.0.left", {"pair.0.left": "p", "pair.0.right": "p"}, None),
        ("cas", "register.0", [None, "r"], True),
        ("cas", "register.0", [None, "q"], False),
        ("raise", "counter.0", 3, 3),
        ("lend", "lease.1", ["l", 1_500], 1),
        ("renew", "lease.1", 250, True),
        ("delete", "register.0", None, True),
        ("keys", "ledger.", None, ["ledger.1", "ledger.2"]),
        ("peek", "token.agent000.1", None, None),
    ]
    assert lived.world.values[HOME]["pair.0.right"] == "p"


async def test_a_refused_operation_returns_none_and_the_session_goes_on(tmp_path: Path) -> None:
    async def body(stay: Stay) -> None:
        lived.world.refusals.append(errors.BusyError("not now"))
        assert await stay.get("register.1") is None
        assert stay.goes_on
        assert await stay.get_many(["register.1"]) == {"register.1": None}

    with life(tmp_path) as lived:
        await lived.stays(body)
        refused, answered = lived.recorded("get", "get_many")
    assert (refused.outcome, refused.result, refused.error) == (FAILED, None, "BusyError")
    assert answered.outcome == OK
    assert lived.work.tally.failed == 1


@pytest.mark.parametrize(
    "error", [errors.FencedError("gone"), errors.ClosedError("closed"), errors.AddressGoneError("gone")]
)
async def test_who_lost_the_session_has_nothing_left_to_do_in_it(error: errors.ProntoError, tmp_path: Path) -> None:
    async def body(stay: Stay) -> None:
        lived.world.refusals.append(error)
        await stay.set("ledger.1", "v")
        assert not stay.goes_on
        assert stay.work.goes_on

    with life(tmp_path) as lived:
        assert await lived.stays(body)
        assert lived.world.left == 1
        assert [one.error for one in lived.recorded(SET)] == [type(error).__name__]


async def test_who_is_not_let_in_is_told_so(tmp_path: Path) -> None:
    async def body(stay: Stay) -> None:
        raise AssertionError("nobody is inside")

    with life(tmp_path) as lived:
        lived.world.at_the_door.append(errors.AddressBusyError(HOME, "taken"))
        assert not await lived.stays(body)
        (opened,) = lived.recorded()
    assert (opened.op, opened.outcome, opened.error) == (OPEN, FAILED, "AddressBusyError")


async def test_operations_come_to_an_end(tmp_path: Path) -> None:
    with life(tmp_path, operations=5) as lived:

        async def body(stay: Stay) -> None:
            lived.world.refusals.append(errors.BusyError("counts as well"))
            while stay.goes_on:
                await stay.get("register.1")

        await lived.stays(body)
        assert not lived.work.goes_on
        assert [one.op for one in lived.recorded()] == [OPEN, GET, GET, GET, GET, CLOSE]


async def test_bytes_come_to_an_end(tmp_path: Path) -> None:
    with life(tmp_path, size_bytes=100) as lived:

        async def body(stay: Stay) -> None:
            await stay.set("a", "x" * 40)
            await stay.set_many({"a": "x" * 20, "b": "x" * 20})
            await stay.transact({"a": "x" * 10})
            assert stay.goes_on
            await stay.compare_and_set("a", None, "x" * 5)
            await stay.lend("lease.1", "x" * 5, 100)
            assert not stay.goes_on

        await lived.stays(body)
        assert lived.work.tally.written_bytes == 100


async def test_time_comes_to_an_end(tmp_path: Path) -> None:
    with life(tmp_path) as lived:
        assert lived.work.goes_on
        lived.work.until_ns = time.monotonic_ns()
        assert not lived.work.goes_on


async def test_what_is_no_error_of_ours_is_written_down_and_raised(tmp_path: Path) -> None:
    async def body(stay: Stay) -> None:
        lived.world.refusals.append(KeyError("a bug"))
        await stay.get("register.1")

    with life(tmp_path) as lived:
        with pytest.raises(KeyError, match="a bug"):
            await lived.stays(body)
        _, read, closed = lived.recorded()
        assert (read.outcome, read.error) == (UNKNOWN, "KeyError")
        assert (closed.op, lived.world.left) == (CLOSE, 1)


class FinerFencedError(errors.FencedError):
    """Of a kind that `prontodb.errors` does not name."""


async def test_an_error_goes_by_the_name_that_users_can_catch(tmp_path: Path) -> None:
    async def body(stay: Stay) -> None:
        lived.world.refusals.append(FinerFencedError("gone"))
        await stay.get("register.1")

    with life(tmp_path) as lived:
        await lived.stays(body)
        assert [one.error for one in lived.recorded(GET)] == ["FencedError"]


def committed(error: BaseException) -> BaseException:
    error.add_note(f"{errors.COMMITTED_NOTE}, and more")
    return error


def unknown(error: BaseException) -> BaseException:
    error.add_note(f"{errors.UNKNOWN_NOTE}, and more")
    return error


@pytest.mark.parametrize(
    ("op", "error", "outcome"),
    [
        (SET, committed(errors.BusyError("busy")), OK),
        (RAISE, committed(errors.BusyError("busy")), UNKNOWN),
        (SET, unknown(errors.BusyError("busy")), UNKNOWN),
        (SET, errors.OutcomeUnknownError("?"), UNKNOWN),
        (SET, errors.BusyError("busy"), FAILED),
        (RAISE, errors.BusyError("busy"), FAILED),
    ],
)
async def test_an_outcome_is_what_the_error_says_of_it(
    op: str, error: BaseException, outcome: str, tmp_path: Path
) -> None:
    async def body(stay: Stay) -> None:
        lived.world.refusals.append(error)
        await (stay.set("ledger.1", "v") if op == SET else stay.increment("counter.1"))

    with life(tmp_path) as lived:
        await lived.stays(body)
        assert [one.outcome for one in lived.recorded(op)] == [outcome]


@pytest.mark.parametrize(
    ("op", "note", "outcome"),
    [
        (SET, errors.COMMITTED_NOTE, OK),
        ("lend", errors.COMMITTED_NOTE, OK),
        ("cas", errors.COMMITTED_NOTE, UNKNOWN),
        (SET, errors.UNKNOWN_NOTE, UNKNOWN),
        (SET, "", FAILED),
    ],
)
async def test_a_cancelled_write_counts_by_what_is_known_of_it(
    op: str, note: str, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "CANCELLED_SHARE", 1.0)

    async def never() -> None:
        try:
            await anyio.sleep_forever()
        except BaseException as cancelled:
            cancelled.add_note(note)
            raise

    with life(tmp_path) as lived:
        lived.work.cancels_until_ns = HOUR_NS * 24 * 365 * 100
        told, _, _ = await lived.work.operate(op, never, key="ledger.1")
        (recorded,) = lived.recorded()
    assert told == recorded.outcome == outcome
    assert recorded.error == "Cancelled"


async def test_nothing_is_cancelled_unless_it_is_ordered_or_where_it_must_not_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "CANCELLED_SHARE", 1.0)
    monkeypatch.setattr(working, "CANCEL_WITHIN_S", 0.0)

    async def step() -> str:
        await anyio.lowlevel.checkpoint()
        return "done"

    async def asked(lived: Life, *, cancellable: bool) -> str:
        return (await lived.work.operate(GET, step, cancellable=cancellable))[0]

    with life(tmp_path) as lived:
        assert await asked(lived, cancellable=True) == OK
        lived.work.cancels_until_ns = HOUR_NS * 24 * 365 * 100
        assert await asked(lived, cancellable=False) == OK
        assert await asked(lived, cancellable=True) == FAILED
        assert await lived.stays(nothing)  # opening and closing are never cancelled


async def test_a_life_that_is_cancelled_still_leaves_its_session(tmp_path: Path) -> None:
    async def body(stay: Stay) -> None:
        group.cancel_scope.cancel()
        await stay.get("register.1")
        await anyio.sleep_forever()

    with life(tmp_path) as lived:
        async with anyio.create_task_group() as group:
            await lived.stays(body)
        assert lived.recorded()[-1].op == CLOSE
        assert lived.world.left == 1


def test_values_are_never_given_twice(tmp_path: Path) -> None:
    with life(tmp_path) as lived:
        assert [lived.work.unique(), lived.work.unique(), lived.work.serial()] == ["agent001-1:1", "agent001-1:2", 3]
