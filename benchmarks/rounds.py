"""The rounds that scenarios have in common: many tasks that get or set, whatever the contender."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.workload import drive

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.contenders import Measured
    from benchmarks.measure import Round

PAUSE_EVERY = 16
"""Gets of one task, one after the other, before it lets other tasks go on."""


def gets(tasks: int, *, hot: bool = False) -> Round:
    """Return a round of `tasks` tasks that get random keys; of few keys over and over when `hot`."""

    async def run(measured: Measured, ops: int) -> int:
        key = (measured.hot if hot else measured.workload).key
        return await _many(measured.store, tasks, ops, measured.store.get, lambda: (key(),), pause_every=PAUSE_EVERY)

    return run


def sets(tasks: int) -> Round:
    """Return a round of `tasks` tasks, each of which sets a random key to a new value, waits for it, and goes on."""

    async def run(measured: Measured, ops: int) -> int:
        return await _many(measured.store, tasks, ops, measured.store.set, measured.workload.pair)

    return run


def batches(tasks: int) -> Round:
    """Return a round of transactions of `tasks` sets each: what as many tasks that share commits can reach at most."""

    async def run(measured: Measured, ops: int) -> int:
        store, pair = measured.store, measured.workload.pair
        rounds = max(1, ops // tasks)
        for _ in range(rounds):
            store.set_batch([pair() for _ in range(tasks)])
        return rounds * tasks

    return run


async def _many(
    store: Any, tasks: int, ops: int, call: Callable[..., Any], arguments: Callable[[], tuple[str, ...]], **how: int
) -> int:
    """Call with new arguments, `ops` times in all; a store without tasks is called one time after the other."""
    if store.is_async:
        return await drive(tasks, ops, lambda _: call(*arguments()), **how)
    for _ in range(ops):
        call(*arguments())
    return ops
