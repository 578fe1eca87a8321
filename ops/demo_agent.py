"""One agent of the demo: a process with an address of its own, which says in JSON lines on stdout what it did."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import statistics
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio

import prontodb
from prontodb.errors import RevisionConflictError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from prontodb import Keystore, SessionManager
    from prontodb.watching import Watch

CURSOR = "prod"
PATIENCE_S = 60.0
"""The longest wait for anybody else; the others may be 31 processes on two cores."""

WRITERS = 8
NOTES_EACH = 20
COUNTERS = 4
STEPS_EACH = 25
VISITS = 5
PAYERS = 3
PAYMENTS_EACH = 5
PAYMENT = 2
CAPITAL = 100
ATTEMPTS = 100
LEASES = 3
LEASE_S = 1.0


class CalledOffError(Exception):
    """Raised inside a transaction to leave it without effect."""


class Agent:
    """What one agent does at its own address, and on the board that all agents share."""

    def __init__(self, number: int, count: int, manager: SessionManager, own: Keystore, board: Keystore) -> None:
        self.number, self.count = number, count
        self.manager, self.own, self.board = manager, own, board
        self.name = f"agent{number}"
        # In every value it writes, so that whoever finds it anywhere knows whose it is.
        self.token = secrets.token_hex(8)
        self.writes, self.conflicts, self.expired, self.write_s = 0, 0, 0, 0.0
        self.claims: dict[str, bool] = {}
        self.news_after_ms: list[float] = []

    async def meet(self) -> Watch:
        """Begin to watch the board, say so there, and wait until all others have done the same."""
        watch = self.board.watch("news.")
        await watch.start()
        await self.board.set(f"ready.{self.name}", self.signed("is here"))
        for number in range(1, self.count + 1):
            await self.board.wait_for(f"ready.agent{number}", timeout=PATIENCE_S)
        return watch

    async def follow(self, watch: Watch) -> None:
        """Take the news of every agent from the board, our own included, as they come."""
        seen: set[str] = set()
        async for change in watch:
            assert change.entry is not None
            sent_s = float(change.entry.value.split()[0])
            # The monotonic clock is one for all processes of a machine.
            self.news_after_ms.append((time.monotonic() - sent_s) * 1_000)
            seen.add(change.key)
            if len(seen) == self.count:
                return

    async def store(self) -> None:
        """Set many values from several tasks at once and read them all back; the same keys as every other agent."""
        await self.own.set("app.config", self.signed("keeps its own settings"))
        for lease in range(LEASES):
            await self.own.set(f"lease.{lease}", self.signed("holds this for a second"), ttl=LEASE_S)
        left_s = await self.own.ttl("lease.0")

        async def write(writer: int) -> None:
            for note in range(NOTES_EACH):
                await self.own.set(f"notes.{writer}.{note}", self.signed(f"note {note} of task {writer}"))

        await together(write, WRITERS)
        keys = [f"notes.{writer}.{note}" for writer in range(WRITERS) for note in range(NOTES_EACH)]
        read = await self.own.get_many(keys)
        self.writes += 1 + LEASES + len(keys)
        self.claims["what was set is what is read"] = all(
            read[key] == self.signed(f"note {key.split('.')[2]} of task {key.split('.')[1]}") for key in keys
        )
        # None: this machine took longer than the lease for two calls, which is no fault of the keystore.
        self.claims["an entry set with a ttl says what it has left"] = left_s is None or left_s <= LEASE_S

    async def count_up(self) -> None:
        """Raise one counter of our own from several tasks at once, and one that all processes share."""

        async def step(_counter: int) -> None:
            for _ in range(STEPS_EACH):
                await self.own.increment("count.steps")

        await together(step, COUNTERS)
        for _ in range(VISITS):
            await self.board.increment("visits")
        self.writes += COUNTERS * STEPS_EACH + VISITS
        self.claims["increments of concurrent tasks add up"] = await self.own.get("count.steps") == str(
            COUNTERS * STEPS_EACH
        )

    async def move(self) -> None:
        """Move amounts between two keys in competing transactions: no amount may appear or get lost."""
        await self.own.set_many({"account.left": self.signed(CAPITAL), "account.right": self.signed(0)})

        async def pay(_payer: int) -> None:
            for _ in range(PAYMENTS_EACH):
                await self.transfer()

        await together(pay, PAYERS)
        with contextlib.suppress(CalledOffError):
            async with self.own.transaction() as tx:
                tx.set("account.left", self.signed(CAPITAL))
                raise CalledOffError
        moved = PAYERS * PAYMENTS_EACH * PAYMENT
        held = await self.own.get_many(["account.left", "account.right"])
        self.writes += 1 + PAYERS * PAYMENTS_EACH
        self.claims["transactions apply wholly or not at all"] = held == {
            "account.left": self.signed(CAPITAL - moved),
            "account.right": self.signed(moved),
        }

    async def transfer(self) -> None:
        """Move one payment from left to right, again when somebody was faster."""
        for _ in range(ATTEMPTS):
            try:
                async with self.own.transaction() as tx:
                    left, right = await tx.get("account.left"), await tx.get("account.right")
                    assert left is not None and right is not None
                    tx.set("account.left", self.signed(int(left.split()[0]) - PAYMENT))
                    tx.set("account.right", self.signed(int(right.split()[0]) + PAYMENT))
                return
            except RevisionConflictError:
                self.conflicts += 1
        raise RuntimeError(f"a payment found no gap in {ATTEMPTS} attempts")

    async def share(self) -> None:
        """Post news on the board; the first agent also has two entries that the second copies to its own address."""
        if self.number == 1:
            await self.own.set_many({key: self.signed("first draft") for key in ("handoff.plan", "handoff.why")})
            await self.board.set("handoff", "ready")
            await self.board.wait_for("handoff", lambda value: value == "taken", timeout=PATIENCE_S)
            await self.own.set("handoff.plan", self.signed("second draft"))
        if self.number == 2:
            await self.board.wait_for("handoff", timeout=PATIENCE_S)
            report = await self.manager.copy(f"agent1/{CURSOR}", self.own, prefix="handoff.")
            await self.board.set("handoff", "taken")
            plan = await self.own.get("handoff.plan")
            self.claims["a copy takes what it was asked to, and stays as it was"] = (
                report.copied == 2 and plan is not None and "first draft" in plan
            )
        await self.board.set(f"news.{self.name}", f"{time.monotonic()} {self.signed('has news')}")

    async def expire(self) -> None:
        """Wait until the leases are over; nothing else ends them."""
        for lease in range(LEASES):
            await self.own.wait_for(f"lease.{lease}", lambda value: value is None, timeout=PATIENCE_S)
            self.expired += 1
        self.claims["what expired is not returned"] = await self.own.list_keys("lease.") == []

    async def written(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do work and add its time to the time spent writing."""
        began_s = time.monotonic()
        await work()
        self.write_s += time.monotonic() - began_s

    def signed(self, text: object) -> str:
        """Return text with who wrote it."""
        return f"{text} {self.name} {self.token}"

    def facts(self, began_s: float) -> dict[str, object]:
        """Return what the parent shows of this agent."""
        return {
            "name": self.name,
            "address": str(self.own.address),
            "pid": os.getpid(),
            "token": self.token,
            "steps": COUNTERS * STEPS_EACH,
            "visits": VISITS,
            "expired": self.expired,
            "conflicts": self.conflicts,
            "took_s": time.monotonic() - began_s,
            "writes_per_s": self.writes / self.write_s,
            "news": len(self.news_after_ms),
            "news_after_ms": statistics.median(self.news_after_ms),
            "claims": self.claims,
        }


async def together(work: Callable[[int], Coroutine[Any, Any, None]], count: int) -> None:
    """Run `work(0)` to `work(count - 1)` at once and wait for all."""
    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(work, number)


def say(**fields: object) -> None:
    """Tell the parent something."""
    print(json.dumps(fields), flush=True)


async def main(root: str, number: int, count: int) -> None:
    """Open the root as any agent would, do the work, and report."""
    with anyio.fail_after(PATIENCE_S * 2):
        async with (
            prontodb.open(root) as manager,
            manager.session(f"agent{number}", CURSOR) as own,
            manager.session("_global", "board", mode="shared") as board,
        ):
            agent = Agent(number, count, manager, own, board)
            watch = await agent.meet()
            say(step="met")
            began_s = time.monotonic()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(agent.follow, watch)
                await agent.written(agent.store)
                say(step="stored")
                await agent.written(agent.count_up)
                say(step="counted")
                await agent.written(agent.move)
                say(step="moved")
                await agent.share()
                await agent.expire()
                say(step="expired")
            say(step="heard", facts=agent.facts(began_s))


def end_with_parent() -> None:
    """End this process when the parent does: kill -9 leaves it no time to end us."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    anyio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
