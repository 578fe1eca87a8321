"""What agents do in a session: one move is one or a few operations on one family of keys, each with its own checker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .history import COUNTER, LEASE, LEDGER, MARK, PAIR, REGISTER, TOKEN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .work import Stay

    Move = Callable[[Stay], Awaitable[None]]

REGISTERS = COUNTERS = PAIRS = 4
LEASES = 8  # of each agent
TOKENS = 64  # of each agent; a new one takes an old one's place
BATCH = 3
PADDINGS = (0, 0, 0, 100, 1_000, 20_000)
"""Characters added to a value: mostly none, since what goes wrong goes wrong between operations, and not in them."""


MARKS = (f"{MARK}.left", f"{MARK}.right")
"""Two keys of an address that always have the same value, wherever it is copied."""


async def ledger(stay: Stay) -> None:
    """Write what is written once and looked for at the end: one key, or several at once."""
    work = stay.work

    def entry() -> tuple[str, str]:
        number = work.serial()
        padding = "." * work.chance.choice(PADDINGS)
        return f"{LEDGER}.{work.orders.process}.{number}", f"{LEDGER}:{work.orders.process}:{number}{padding}"

    kind = work.chance.random()
    if kind < 0.7:
        await stay.set(*entry())
    elif kind < 0.85:
        await stay.set_many(dict(entry() for _ in range(BATCH)))
    else:
        await stay.transact(dict(entry() for _ in range(BATCH)))


async def register(stay: Stay) -> None:
    """Read or change a key that all at this address change."""
    chance = stay.work.chance
    key = f"{REGISTER}.{chance.randrange(REGISTERS)}"
    kind = chance.random()
    if kind < 0.5:
        await stay.get(key)
    elif kind < 0.75:
        await stay.set(key, stay.work.unique())
    elif kind < 0.9:
        found = await stay.get(key)
        await stay.compare_and_set(key, found, stay.work.unique())
    else:
        await stay.delete(key)


async def counter(stay: Stay) -> None:
    """Raise a counter that all at this address raise, or read it."""
    chance = stay.work.chance
    key = f"{COUNTER}.{chance.randrange(COUNTERS)}"
    if chance.random() < 0.7:
        await stay.increment(key)
    else:
        await stay.get(key)


async def pair(stay: Stay) -> None:
    """Write two keys in one transaction, or read both: they are equal at every instant."""
    work = stay.work
    name = f"{PAIR}.{work.chance.randrange(PAIRS)}"
    left, right = f"{name}.left", f"{name}.right"
    if work.chance.random() < 0.5:
        value = work.unique()
        await stay.transact({left: value, right: value})
    else:
        found = await stay.get_many([left, right])
        work.tally.alarms += found.get(left) != found.get(right)


async def mark(stay: Stay) -> None:
    """Mark this address anew: both keys in one transaction."""
    value = stay.work.unique()
    await stay.transact(dict.fromkeys(MARKS, value))


async def look_at_lease(stay: Stay) -> None:
    """Read a key that another agent may have lent here."""
    chance, agents = stay.work.chance, stay.work.orders.agents
    await stay.get(f"{LEASE}.{agent_name(chance.randrange(agents))}-{chance.randrange(LEASES)}")


async def token(stay: Stay) -> None:
    """Write a secret of this agent, read one, or list them: there is nobody else's."""
    work = stay.work
    own = f"{TOKEN}.{work.agent}."
    kind = work.chance.random()
    if kind < 0.6:
        await stay.set(f"{own}{work.chance.randrange(TOKENS)}", f"{TOKEN}:{work.agent}:{work.unique()};")
    elif kind < 0.95:
        found = await stay.get(f"{own}{work.chance.randrange(TOKENS)}")
        work.tally.alarms += found is not None and not found.startswith(f"{TOKEN}:{work.agent}:")
    else:
        keys = await stay.keys(f"{TOKEN}.")
        work.tally.alarms += not all(key.startswith(own) for key in keys)


async def peek(stay: Stay) -> None:
    """Ask the own address for a key that only another agent writes."""
    work = stay.work
    others = work.orders.agents - 1
    if others:
        number = (work.orders.number + 1 + work.chance.randrange(others)) % work.orders.agents
        await stay.peek(f"{TOKEN}.{agent_name(number)}.{work.chance.randrange(TOKENS)}")


def lease(shortest_ms: int, longest_ms: int) -> Move:
    """Return a move that lends a key of this agent for so long, renews it or looks whether it is there."""

    async def move(stay: Stay) -> None:
        work = stay.work
        key = f"{LEASE}.{work.agent}-{work.chance.randrange(LEASES)}"
        kind = work.chance.random()
        ttl_ms = work.chance.randint(shortest_ms, longest_ms)
        if kind < 0.25:
            await stay.lend(key, work.unique(), ttl_ms)
        elif kind < 0.35:
            await stay.renew(key, ttl_ms)
        else:
            await stay.get(key)

    return move


async def move_about(
    stay: Stay,
    moves: Sequence[tuple[Move, int]],
    most: int | None = None,
    while_: Callable[[], bool] = lambda: True,
) -> None:
    """Make moves, weighted, until the session or the time is over, or so many are made."""
    kinds, weights = [move for move, _ in moves], [weight for _, weight in moves]
    while stay.goes_on and while_() and (most is None or most > 0):
        await stay.work.chance.choices(kinds, weights)[0](stay)
        most = most if most is None else most - 1


def agent_name(number: int) -> str:
    """Return the name of an agent, which is the user of its own address."""
    return f"agent{number:03}"
