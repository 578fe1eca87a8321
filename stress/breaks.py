"""Known faults put into the harness on the agents' side: each does what a broken store would, to one family of keys.

They are how the checkers are checked. A break acts on what an agent asks or is told, never on the product.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from prontodb import errors

from .history import COUNTER, EVICT, GET, LEASE, LEDGER, LEND, PAIR, PEEK, RAISE, REGISTER, RENEW, SET, TOKEN, TRANSACT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

    from .work import Stay

LOST_ACK, STALE_READ, LOST_RAISE, TORN_PAIR = "lost-ack", "stale-read", "lost-raise", "torn-pair"
LEAKY, DOUBLE_HOLDER, SKIPPED_FENCE, EARLY_EXPIRY = "leaky-isolation", "double-holder", "skipped-fence", "early-expiry"

BREAKS = {
    LOST_ACK: ("acknowledged", "a write is acknowledged and never made"),
    STALE_READ: ("registers", "a read returns what this agent read before it wrote something newer"),
    LOST_RAISE: ("counters", "a raise is acknowledged and never made"),
    TORN_PAIR: ("transactions", "a transaction writes its first key only"),
    LEAKY: ("isolation", "a read at one's own address answers from another agent's"),
    DOUBLE_HOLDER: ("holders", "an exclusive session is opened without its lock"),
    SKIPPED_FENCE: ("fences", "the write of a session that was put out is acknowledged"),
    EARLY_EXPIRY: ("expiry", "an entry is hidden before its lifetime is over"),
}
"""Name to the checker that must find it, and what it does."""

OFTEN = 0.2
"""The share of operations that a break touches, where it may."""
OF_SESSIONS = {DOUBLE_HOLDER: 0.5, SKIPPED_FENCE: 0.8}
"""Sessions are few beside operations, so that what breaks them strikes more often."""


class Breaks:
    """The breaks in force in one agent."""

    def __init__(self, names: list[str], chance: Random) -> None:
        self._names, self._chance = frozenset(names), chance
        self._read: dict[str, str] = {}  # register: what was read before our own newest write
        self._older: dict[str, str] = {}
        self._sums: dict[str, int] = {}
        self._lent: dict[str, int] = {}  # lease: until when it surely lives, in monotonic ns

    def _strikes(self, name: str) -> bool:
        return name in self._names and self._chance.random() < OF_SESSIONS.get(name, OFTEN)

    def is_phantom(self, mode: str) -> bool:
        """True when the session that is about to be opened is to be none."""
        return mode == "exclusive" and self._strikes(DOUBLE_HOLDER)

    def around(
        self, stay: Stay, op: str, key: str, argument: Any, call: Callable[[], Awaitable[Any]]
    ) -> Callable[[], Awaitable[Any]]:
        """Return what is done instead of `call`: mostly itself."""
        family = key.partition(".")[0]
        instead: Callable[[], Awaitable[Any]] = call
        if (op, family) == (SET, LEDGER) and self._strikes(LOST_ACK):
            instead = _answering(1)
        elif (op, family) == (GET, REGISTER) and key in self._older and self._strikes(STALE_READ):
            instead = _answering(self._older[key])
        elif (op, family) == (RAISE, COUNTER) and key in self._sums and self._strikes(LOST_RAISE):
            instead = _answering(self._sums[key] + argument)
        elif (op, family) == (TRANSACT, PAIR) and self._strikes(TORN_PAIR):
            instead = _setting(stay, key, argument[key])
        elif op == PEEK and self._strikes(LEAKY):
            instead = _leaking(stay, key)
        elif (op, family) == (GET, LEASE) and self._lives(key) and self._strikes(EARLY_EXPIRY):
            instead = _answering(None)
        return instead

    def _lives(self, key: str) -> bool:
        return time.monotonic_ns() < self._lent.get(key, 0)

    def noted(self, op: str, key: str, argument: Any, result: Any) -> None:
        """Remember what some break needs."""
        if not self._names:
            return
        family = key.partition(".")[0]
        if family == REGISTER and op == GET and result is not None:
            self._read[key] = result
        elif family == REGISTER and op == SET and key in self._read:
            self._older[key] = self._read[key]
        elif family == COUNTER and op == RAISE:
            self._sums[key] = result
        elif family == LEASE and op in (LEND, RENEW):
            ttl_ms = argument[1] if op == LEND else argument
            self._lent[key] = time.monotonic_ns() + ttl_ms * 500_000 if result else 0

    async def at_the_end(self, stay: Stay, mode: str) -> None:
        """Before a session is left: have it put out, and pretend that its next write was taken."""
        from .worlds import Pronto

        world = stay.work.world
        if mode != "exclusive" or not isinstance(world, Pronto) or not stay.goes_on or not self._strikes(SKIPPED_FENCE):
            return

        async def put_out() -> None:
            await world.manager.end_session(stay.session, force=True)

        await stay.work.operate(EVICT, put_out, address=stay.address, session=stay.session, cancellable=False)

        async def write() -> int:
            try:
                return await stay.store.set("late.write", "x")
            except errors.ProntoError:
                return 1

        await stay.work.operate(SET, write, address=stay.address, session=stay.session, key="late.write", argument="x")


def _answering(answer: Any) -> Callable[[], Awaitable[Any]]:
    async def call() -> Any:
        return answer

    return call


def _setting(stay: Stay, key: str, value: str) -> Callable[[], Awaitable[Any]]:
    async def call() -> None:
        await stay.store.set(key, value)

    return call


def _leaking(stay: Stay, key: str) -> Callable[[], Awaitable[Any]]:
    async def call() -> str | None:
        agent = key.split(".")[1]
        try:
            async with stay.work.world.visit(f"{agent}/prod", "read", None) as other:
                # Any of its tokens: the one that was asked for may not be written yet.
                return await other.get(next(iter(await other.list_keys(f"{TOKEN}.")), key))
        except errors.AddressNotFoundError:
            return None  # it has not come yet

    return call
