"""What agents do keeps to the families of keys that the checkers look at, and tells at once of what it finds wrong."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from stress import moves
from stress.history import Operation
from stress.work import Stay
from tests.unit.stress.small_world import HOME, Life, life

MANY = 300


async def made(lived: Life, move: moves.Move, times: int = MANY) -> list[Operation]:
    """Make one move so many times; return the operations, without opening and closing."""

    async def body(stay: Stay) -> None:
        for _ in range(times):
            await move(stay)

    await lived.stays(body)
    return lived.recorded()[1:-1]


@pytest.mark.parametrize(
    ("move", "family", "ops"),
    [
        (moves.ledger, "ledger", {"set", "set_many", "transact"}),
        (moves.register, "register", {"get", "set", "cas", "delete"}),
        (moves.counter, "counter", {"raise", "get"}),
        (moves.pair, "pair", {"transact", "get_many"}),
        (moves.mark, "mark", {"transact"}),
        (moves.token, "token", {"set", "get", "keys"}),
        (moves.peek, "token", {"peek"}),
        (moves.lease(10, 20), "lease", {"lend", "renew", "get"}),
        (moves.look_at_lease, "lease", {"get"}),
    ],
)
async def test_a_move_does_its_operations_on_its_family_alone(
    move: moves.Move, family: str, ops: set[str], tmp_path: Path
) -> None:
    with life(tmp_path) as lived:
        told = await made(lived, move)
        assert {one.op for one in told} == ops
        assert {one.family for one in told} == {family}
        assert {one.outcome for one in told} == {"ok"}
        assert lived.work.tally.alarms == 0


async def test_no_two_writes_of_a_ledger_share_a_key_or_a_value(tmp_path: Path) -> None:
    with life(tmp_path) as lived:
        wrote = Counter[tuple[str, str]]()
        for one in await made(lived, moves.ledger):
            wrote.update({one.key: one.argument}.items() if one.op == "set" else one.argument.items())
    assert set(wrote.values()) == {1}
    assert len({key for key, _ in wrote}) == len({value for _, value in wrote}) == len(wrote)
    assert all(value.startswith(key.replace(".", ":")) for key, value in wrote)
    assert {len(value) - len(value.rstrip(".")) for _, value in wrote} == set(moves.PADDINGS)


async def test_no_two_writes_of_a_register_share_a_value(tmp_path: Path) -> None:
    with life(tmp_path) as lived:
        told = await made(lived, moves.register)
    wrote = [one.argument if one.op == "set" else one.argument[1] for one in told if one.op in ("set", "cas")]
    assert len(set(wrote)) == len(wrote) > 0
    assert any(one.result for one in told if one.op == "cas")  # it compares with what it has just read
    assert len({one.key for one in told}) == moves.REGISTERS


@pytest.mark.parametrize(("move", "keys"), [(moves.pair, moves.PAIRS * 2), (moves.mark, 2)])
async def test_both_halves_of_a_pair_are_written_alike(move: moves.Move, keys: int, tmp_path: Path) -> None:
    with life(tmp_path) as lived:
        wrote = [one.argument for one in await made(lived, move) if one.op == "transact"]
    assert len({key for each in wrote for key in each}) == keys
    assert all(len(each) == 2 and len(set(each.values())) == 1 for each in wrote)
    assert len({value for each in wrote for value in each.values()}) == len(wrote)


async def test_a_token_names_its_agent_wherever_it_lies(tmp_path: Path) -> None:
    with life(tmp_path) as lived:
        wrote = [one for one in await made(lived, moves.token) if one.op == "set"]
    assert all(one.key.startswith("token.agent001.") for one in wrote)
    assert all(one.argument.startswith("token:agent001:") and one.argument.endswith(";") for one in wrote)


async def test_a_peek_asks_for_the_keys_of_everybody_else_and_never_for_ones_own(tmp_path: Path) -> None:
    with life(tmp_path, agents=4) as lived:
        asked = {one.key.split(".")[1] for one in await made(lived, moves.peek)}
    assert asked == {"agent000", "agent002", "agent003"}


async def test_who_is_alone_has_nobody_to_peek_at(tmp_path: Path) -> None:
    with life(tmp_path, agents=1) as lived:
        assert await made(lived, moves.peek) == []


async def test_leases_last_as_long_as_was_asked_for(tmp_path: Path) -> None:
    with life(tmp_path) as lived:
        told = await made(lived, moves.lease(40, 60))
        lent = {one.argument[1] for one in told if one.op == "lend"} | {
            one.argument for one in told if one.op == "renew"
        }
        assert {40, 60} <= lent <= set(range(40, 61))
        looked = await made(lived, moves.look_at_lease)
    assert {one.key.partition("-")[0] for one in looked if one.op == "get"} == {"lease.agent000", "lease.agent001"}


@pytest.mark.parametrize(
    ("move", "planted"),
    [
        (moves.pair, {"pair.0.left": "a", "pair.0.right": "b"}),
        (moves.token, {f"token.agent001.{number}": "token:agent000:x;" for number in range(moves.TOKENS)}),
        (moves.token, {"token.agent000.1": "x"}),
        (moves.peek, {f"token.agent000.{number}": "token:agent000:x;" for number in range(moves.TOKENS)}),
    ],
    ids=["torn", "value", "key", "peek"],
)
async def test_what_an_agent_sees_to_be_wrong_is_an_alarm(
    move: moves.Move, planted: dict[str, str], tmp_path: Path
) -> None:
    with life(tmp_path) as lived:
        lived.world.values[HOME] = dict(planted)
        await made(lived, move, 60)
        assert lived.work.tally.alarms > 0


async def test_moving_about_ends_with_its_moves_or_with_the_agent(tmp_path: Path) -> None:
    async def some(stay: Stay) -> None:
        await moves.move_about(stay, ((moves.look_at_lease, 1),), 7)

    async def all_there_are(stay: Stay) -> None:
        await moves.move_about(stay, ((moves.look_at_lease, 1),))

    with life(tmp_path, operations=50) as lived:
        await lived.stays(some)
        assert len(lived.recorded("get")) == 7
        await lived.stays(all_there_are)
        assert lived.work.tally.done == 51  # leaving the session comes on top


async def test_moves_come_as_often_as_they_weigh(tmp_path: Path) -> None:
    async def body(stay: Stay) -> None:
        await moves.move_about(stay, ((moves.look_at_lease, 90), (moves.mark, 10), (moves.peek, 0)), 400)

    with life(tmp_path) as lived:
        await lived.stays(body)
        counted = Counter(one.op for one in lived.recorded())
    assert 320 < counted["get"] < 400 == counted["get"] + counted["transact"]


@pytest.mark.parametrize(("number", "name"), [(0, "agent000"), (7, "agent007"), (999, "agent999")])
def test_names_of_agents_sort_as_their_numbers_do(number: int, name: str) -> None:
    assert moves.agent_name(number) == name
