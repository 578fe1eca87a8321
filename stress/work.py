"""An agent's work: each operation goes through here, where it is recorded, counted, cancelled on order and bounded."""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from prontodb import errors

from .breaks import Breaks
from .history import (
    CAS,
    CLOSE,
    DELETE,
    FAILED,
    GET,
    GET_MANY,
    KEYS,
    LEND,
    OK,
    OPEN,
    PEEK,
    RAISE,
    RENEW,
    SET,
    SET_MANY,
    TRANSACT,
    UNKNOWN,
    Recorder,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from random import Random

    from .worlds import Store, World

CANCELLED = "Cancelled"
CANCELLED_SHARE = 0.3  # of the operations, while that fault lasts
CANCEL_WITHIN_S = 0.02
WRITES_WITHOUT_ANSWER = (SET, SET_MANY, TRANSACT, LEND)
OVER = (errors.FencedError, errors.ClosedError, errors.AddressGoneError)
"""After one of these there is nothing left to do in a session."""


@dataclass(slots=True, kw_only=True)
class Orders:
    """What the parent tells an agent."""

    scenario: str
    process: str
    """Agent and life: 'agent07-2'."""
    number: int
    """Which agent of the scenario, from 0."""
    agents: int
    addresses: int
    seed: int
    root: str
    history: str
    operations: int
    size_bytes: int
    breaks: list[str]
    facts: dict[str, Any] = field(default_factory=dict)
    """What the scenario made ready for its agents."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What the parent is told while the agent works."""

    done: int = 0
    failed: int = 0
    written_bytes: int = 0
    alarms: int = 0
    """What the agent itself found to be wrong; the checkers judge afterwards."""
    session: str = ""
    address: str = ""


class Work:
    """One agent's life: what it may still do, and the ways to do it."""

    def __init__(self, orders: Orders, world: World, chance: Random) -> None:
        self.orders, self.world, self.chance = orders, world, chance
        self.tally = Tally()
        self.place, self.addresses = orders.number, orders.addresses
        """Which agent of its scenario, and of how many addresses: others where scenarios share a root."""
        self.until_ns = 0
        self.cancels_until_ns = 0
        self.breaks = Breaks(orders.breaks, chance)
        self._recorder = Recorder(orders.history)
        self._serial = 0

    @property
    def agent(self) -> str:
        """The agent, whichever life."""
        return self.orders.process.rpartition("-")[0]

    @property
    def goes_on(self) -> bool:
        """False once time, operations or bytes are used up."""
        return (
            time.monotonic_ns() < self.until_ns
            and self.tally.done + self.tally.failed < self.orders.operations
            and self.tally.written_bytes < self.orders.size_bytes
        )

    def serial(self) -> int:
        """Return a number that this process did not give before."""
        self._serial += 1
        return self._serial

    def unique(self) -> str:
        """Return a value that nobody writes twice."""
        return f"{self.orders.process}:{self.serial()}"

    async def rest(self, up_to_s: float) -> None:
        """Do nothing for a while."""
        await anyio.sleep(self.chance.uniform(0, up_to_s))

    async def operate(
        self,
        op: str,
        call: Callable[[], Awaitable[Any]],
        *,
        address: str = "",
        session: str = "",
        key: str = "",
        argument: object = None,
        cancellable: bool = True,
        is_long: bool = False,
    ) -> tuple[str, Any, BaseException | None]:
        """Do one operation and write down its call and its return; return outcome, result and what it raised.

        `cancellable`: by the fault of that name. `is_long`: cancelled when the time is over, and else not.

        What is no error of ProntoDB's is written down too, and raised: an agent that meets one dies of it.
        """
        number = self._recorder.call(time.monotonic_ns(), op, address, session, key, argument)
        outcome, result, error = UNKNOWN, None, None
        try:
            with self._scope(cancellable, is_long):
                try:
                    result = await call()
                    outcome = OK
                except anyio.get_cancelled_exc_class() as cancelled:
                    outcome, error = _outcome_of(op, cancelled), cancelled
                    raise
                except errors.ProntoError as refused:
                    outcome, error = _outcome_of(op, refused), refused
        except Exception as unexpected:
            error = unexpected
            raise
        finally:
            self._returned(number, outcome, result, error)
        return outcome, result, error

    def _scope(self, cancellable: bool, is_long: bool) -> AbstractContextManager[object]:
        if is_long:
            return anyio.move_on_after((self.until_ns - time.monotonic_ns()) / 1e9)
        # A session's own scopes outlive its opening: nothing may be nested around that.
        if not cancellable or time.monotonic_ns() > self.cancels_until_ns or self.chance.random() > CANCELLED_SHARE:
            return nullcontext()
        return anyio.move_on_after(self.chance.uniform(0, CANCEL_WITHIN_S))

    def _returned(self, number: int, outcome: str, result: object, error: BaseException | None) -> None:
        name = ""
        if error is not None:
            name = CANCELLED if isinstance(error, anyio.get_cancelled_exc_class()) else _public_name(error)
        if outcome == OK:
            self.tally.done += 1
        else:
            self.tally.failed += 1
        self._recorder.returned(number, time.monotonic_ns(), outcome, result, name)

    async def visit(
        self,
        address: str,
        mode: str,
        body: Callable[[Stay], Awaitable[None]],
        *,
        wait_s: float | None = None,
        create: bool = True,
    ) -> bool:
        """Open a session, do `body` in it, and leave it; False when nobody let us in."""
        if self.breaks.is_phantom(mode):
            return await self._haunt(address, mode)
        visit = self.world.visit(address, mode, wait_s, create=create)

        async def enter() -> dict[str, object]:
            store = await visit.__aenter__()
            self.tally.session, self.tally.address = store.session_id, address
            entered.append(store)
            return {"session": store.session_id, "epoch": store.epoch}

        entered: list[Store] = []
        # A cancelled opening is a fault of its own kind: whoever is let in and cancelled then would never leave.
        await self.operate(OPEN, enter, address=address, argument={"mode": mode}, cancellable=False)
        if not entered:
            return False
        stay = Stay(self, entered[0], address)
        try:
            await body(stay)
            await self.breaks.at_the_end(stay, mode)
        finally:
            with anyio.CancelScope(shield=True):
                self.tally.session = ""

                async def leave() -> None:
                    await visit.__aexit__(None, None, None)

                await self.operate(CLOSE, leave, address=address, session=stay.session, cancellable=False)
        return True

    async def _haunt(self, address: str, mode: str) -> bool:
        """Say that a session was opened, and hold nothing: what a broken lock would let happen."""
        session = f"phantom-{self.unique()}"

        async def nothing() -> dict[str, object]:
            return {"session": session, "epoch": None}

        async def leave() -> None:
            return None

        await self.operate(OPEN, nothing, address=address, argument={"mode": mode}, cancellable=False)
        await self.rest(0.2)
        await self.operate(CLOSE, leave, address=address, session=session, cancellable=False)
        return True

    def close(self) -> None:
        """Close the history."""
        self._recorder.close()


class Stay:
    """A session as an agent uses it: the keystore's operations, recorded; a failed one returns None."""

    def __init__(self, work: Work, store: Store, address: str) -> None:
        self.work, self.store, self.address, self.session = work, store, address, store.session_id
        self._is_over = False

    @property
    def goes_on(self) -> bool:
        """False when the session was taken away, or the agent's time is up."""
        return not self._is_over and self.work.goes_on

    async def do(self, op: str, call: Callable[[], Awaitable[Any]], key: str = "", argument: object = None) -> Any:
        """Do one operation of this session; return its result, or None when it failed."""
        call = self.work.breaks.around(self, op, key, argument, call)
        outcome, result, error = await self.work.operate(
            op, call, address=self.address, session=self.session, key=key, argument=argument
        )
        self._is_over = self._is_over or isinstance(error, OVER)
        if outcome == OK:
            self.work.breaks.noted(op, key, argument, result)
            return result
        # Whoever is refused again and again must not spin.
        await self.work.rest(0.02)
        return None

    def _wrote(self, *values: str) -> None:
        self.work.tally.written_bytes += sum(map(len, values))

    async def get(self, key: str) -> str | None:
        found: str | None = await self.do(GET, lambda: self.store.get(key), key)
        return found

    async def set(self, key: str, value: str) -> None:
        self._wrote(value)
        await self.do(SET, lambda: self.store.set(key, value), key, value)

    async def delete(self, key: str) -> None:
        await self.do(DELETE, lambda: self.store.delete(key), key)

    async def compare_and_set(self, key: str, expected: str | None, value: str) -> None:
        self._wrote(value)
        await self.do(CAS, lambda: self.store.compare_and_set(key, expected, value), key, [expected, value])

    async def increment(self, key: str, by: int = 1) -> None:
        await self.do(RAISE, lambda: self.store.increment(key, by), key, by)

    async def set_many(self, values: Mapping[str, str]) -> None:
        self._wrote(*values.values())
        await self.do(SET_MANY, lambda: self.store.set_many(values), next(iter(values)), dict(values))

    async def get_many(self, keys: list[str]) -> dict[str, str | None]:
        found: dict[str, str | None] | None = await self.do(GET_MANY, lambda: self.store.get_many(keys), keys[0], keys)
        return found or {}

    async def transact(self, values: Mapping[str, str]) -> None:
        """Set several keys in a transaction that reads the first before."""
        self._wrote(*values.values())
        first = next(iter(values))

        async def run() -> None:
            async with self.store.transaction() as transaction:
                await transaction.get(first)
                for key, value in values.items():
                    transaction.set(key, value)

        await self.do(TRANSACT, run, first, dict(values))

    async def lend(self, key: str, value: str, ttl_ms: int) -> None:
        self._wrote(value)
        await self.do(LEND, lambda: self.store.set(key, value, ttl=ttl_ms / 1_000), key, [value, ttl_ms])

    async def renew(self, key: str, ttl_ms: int) -> None:
        await self.do(RENEW, lambda: self.store.touch(key, ttl_ms / 1_000), key, ttl_ms)

    async def peek(self, key: str) -> str | None:
        """Ask this address for a key that only another agent writes, at its own."""
        found: str | None = await self.do(PEEK, lambda: self.store.get(key), key)
        self.work.tally.alarms += found is not None
        return found

    async def keys(self, prefix: str) -> list[str]:
        found: list[str] | None = await self.do(KEYS, lambda: self.store.list_keys(prefix), prefix)
        return found or []


def _public_name(error: BaseException) -> str:
    """Return the name of what was raised; of a finer kind than `prontodb.errors` has, that of its base there."""
    bases = (kind.__name__ for kind in type(error).__mro__ if getattr(errors, kind.__name__, None) is kind)
    return next(bases, type(error).__name__)


def _outcome_of(op: str, error: BaseException) -> str:
    """Return how an operation ended that raised, by what the error itself says of it."""
    if errors.outcome_is_unknown(error):
        return UNKNOWN
    if not errors.was_committed(error):
        return FAILED
    # What it would have returned went with the cancellation; where checkers need that, all they know is "perhaps".
    return OK if op in WRITES_WITHOUT_ANSWER else UNKNOWN


def abandon() -> None:
    """End this process at once, in the middle of whatever it does: no session is left, nothing is closed."""
    os._exit(0)
