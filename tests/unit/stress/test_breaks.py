"""Each break does to one family of keys what a broken store would, and leaves all others alone."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from prontodb import errors
from stress import breaks, moves
from stress.breaks import (
    BREAKS,
    DOUBLE_HOLDER,
    EARLY_EXPIRY,
    LEAKY,
    LOST_ACK,
    LOST_RAISE,
    SKIPPED_FENCE,
    STALE_READ,
    TORN_PAIR,
)
from stress.history import OK, Operation
from stress.work import Stay
from tests.unit.stress.small_world import HOME, Life, life

OTHERS = "agent000/prod"


class Sure(Random):
    """A chance that always strikes, and is not the one that the moves are drawn from."""

    def random(self) -> float:
        return 0.0


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every break strikes wherever it may."""
    monkeypatch.setattr(breaks, "OFTEN", 1.1)
    monkeypatch.setattr(breaks, "OF_SESSIONS", {})


async def results(lived: Life, *asked: tuple[str, Any]) -> list[Any]:
    """Have a stay's methods called; return what each operation recorded as its result."""

    async def body(stay: Stay) -> None:
        for name, arguments in asked:
            await getattr(stay, name)(*arguments)

    await lived.stays(body)
    return [one.result for one in lived.recorded()[1:-1]]


async def test_a_lost_write_is_acknowledged_and_is_not_there(tmp_path: Path) -> None:
    with life(tmp_path, LOST_ACK) as lived:
        assert await results(lived, ("set", ("ledger.1", "v")), ("set", ("register.1", "w"))) == [1, 1]
        assert lived.world.values[HOME] == {"register.1": "w"}


async def test_a_stale_read_is_what_was_read_before_ones_own_newest_write(tmp_path: Path) -> None:
    with life(tmp_path, STALE_READ) as lived:
        lived.world.values[HOME] = {"register.1": "first"}
        read, key = ("get", ("register.1",)), "register.1"
        assert await results(lived, read, ("set", (key, "second")), read) == ["first", 1, "first"]


async def test_nothing_is_stale_that_was_never_read(tmp_path: Path) -> None:
    with life(tmp_path, STALE_READ) as lived:
        asked = [("set", ("register.1", "a")), ("get", ("register.1",)), ("get", ("register.2",))]
        assert await results(lived, *asked) == [1, "a", None]


async def test_a_lost_raise_is_acknowledged_with_the_sum_it_should_have_had(tmp_path: Path) -> None:
    with life(tmp_path, LOST_RAISE) as lived:
        assert await results(lived, *[("increment", ("counter.1", 2))] * 3) == [2, 4, 6]
        assert lived.world.values[HOME] == {"counter.1": "2"}


async def test_a_torn_transaction_writes_its_first_key_only(tmp_path: Path) -> None:
    with life(tmp_path, TORN_PAIR) as lived:
        both = {"pair.0.left": "v", "pair.0.right": "v"}
        assert await results(lived, ("transact", (both,)), ("transact", ({"ledger.1": "a", "ledger.2": "b"},)))
        assert lived.world.values[HOME] == {"pair.0.left": "v", "ledger.1": "a", "ledger.2": "b"}


async def test_a_leak_answers_with_a_token_of_the_other_whichever_it_has(tmp_path: Path) -> None:
    with life(tmp_path, LEAKY) as lived:
        lived.world.values[OTHERS] = {"token.agent000.9": "token:agent000:x;", "ledger.1": "y"}
        assert await results(lived, ("peek", ("token.agent000.3",))) == ["token:agent000:x;"]
        assert lived.world.visits[-1] == (OTHERS, "read", None, True)
        assert lived.work.tally.alarms == 1


async def test_there_is_nothing_to_leak_from_who_has_not_come(tmp_path: Path) -> None:
    async def body(stay: Stay) -> None:
        lived.world.at_the_door.append(errors.AddressNotFoundError(OTHERS))
        assert await stay.peek("token.agent000.3") is None

    with life(tmp_path, LEAKY) as lived:
        await lived.stays(body)
        assert [one.outcome for one in lived.recorded("peek")] == [OK]
        assert await results(lived, ("peek", ("token.agent000.3",))) is not None


async def test_an_entry_is_hidden_only_while_it_surely_lives(tmp_path: Path) -> None:
    with life(tmp_path, EARLY_EXPIRY) as lived:
        read = ("get", ("lease.1",))
        lent = ("lend", ("lease.1", "v", 60_000))
        short = ("lend", ("lease.1", "v", 0))
        assert await results(lived, read, lent, read, short, read) == [None, 1, None, 1, "v"]
        renewed = ("renew", ("lease.1", 60_000))
        assert (await results(lived, renewed, read))[-2:] == [True, None]


async def test_a_renewal_that_found_nothing_keeps_nothing_alive(tmp_path: Path) -> None:
    with life(tmp_path, EARLY_EXPIRY) as lived:
        assert await results(lived, ("lend", ("lease.1", "v", 60_000)), ("renew", ("lease.2", 60_000))) == [1, False]
        lived.world.values[HOME]["lease.2"] = "by another"
        assert (await results(lived, ("get", ("lease.2",))))[-1] == "by another"


async def test_a_double_holder_says_that_it_came_and_never_did(tmp_path: Path) -> None:
    async def body(stay: Stay) -> None:
        assert stay.session == "s-1"

    with life(tmp_path, DOUBLE_HOLDER) as lived:
        assert await lived.stays(body)
        assert lived.world.visits == []
        opened, closed = lived.recorded()
        assert (opened.outcome, closed.outcome, closed.session) == (OK, OK, opened.result["session"])
        await lived.stays(body, "shared")
        assert len(lived.world.visits) == 1


async def test_a_skipped_fence_needs_a_store_that_has_fences(tmp_path: Path) -> None:
    with life(tmp_path, SKIPPED_FENCE) as lived:
        assert await results(lived, ("set", ("ledger.1", "v"))) == [1]


async def every_move(lived: Life) -> list[Operation]:
    every = (
        moves.ledger,
        moves.register,
        moves.counter,
        moves.pair,
        moves.mark,
        moves.token,
        moves.peek,
        moves.lease(60_000, 90_000),
    )

    async def body(stay: Stay) -> None:
        await moves.move_about(stay, tuple((move, 1) for move in every), 400)

    await lived.stays(body, "shared")
    return lived.recorded()


FAMILY = {
    LOST_ACK: "ledger",
    STALE_READ: "register",
    LOST_RAISE: "counter",
    TORN_PAIR: "pair",
    LEAKY: "token",
    EARLY_EXPIRY: "lease",
    DOUBLE_HOLDER: "",
    SKIPPED_FENCE: "",
}


SEEN = BREAKS.keys() - {DOUBLE_HOLDER, SKIPPED_FENCE, LOST_ACK}
"""Breaks that show in what one agent alone is told; the others show in what is there, or between agents."""


@pytest.mark.parametrize("name", BREAKS)
async def test_a_break_changes_nothing_of_any_other_family(name: str, tmp_path: Path) -> None:
    told = []
    for index, names in enumerate([(), (name,)]):
        folder = tmp_path / str(index)
        folder.mkdir()
        with life(folder, *names) as lived:
            # A break that may strike draws from the agent's chance; here nothing hangs on that but the moves' order.
            lived.work.breaks = breaks.Breaks(list(names), Sure())
            lived.world.values[OTHERS] = {"token.agent000.1": "token:agent000:x;"}
            told.append([(one.op, one.family, one.key, one.result) for one in (await every_move(lived))[1:-1]])
    whole, broken = ([one for one in each if one[1] != FAMILY[name]] for each in told)
    assert whole == broken
    has_shown = told[0] != told[1]
    assert has_shown is (name in SEEN)
