"""What all contenders are given alike: keys, unique values, and tasks that ask for them."""

from __future__ import annotations

import asyncio
import base64
import random
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

VALUE_CHARACTERS = 100
NOISE_CHARACTERS = 1 << 20
FILL_BATCH = 1_000
FILL_CHARACTERS = 8_000_000
SEED = 20_240_917


class Workload:
    """Random keys out of `count`, each with a value that was never written before and does not compress well.

    Unique values matter: SQLite turns an upsert of identical bytes into nothing, without a sync, and looks fast. So do
    random ones: a store that compresses would otherwise be measured writing almost nothing.
    """

    def __init__(self, count: int, seed: int = SEED, characters: int = VALUE_CHARACTERS) -> None:
        self.keys = [f"agent.memory.note-{number:06d}" for number in range(count)]
        self.characters = characters
        self._random = random.Random(seed)
        self._written = 0
        self._noise = noise(max(NOISE_CHARACTERS, characters))

    def key(self) -> str:
        """Return a random key."""
        return self.keys[int(self._random.random() * len(self.keys))]

    def value(self) -> str:
        """Return a value of so many characters that no call returned before."""
        self._written += 1
        number = f"{self._written:016x}"
        begin = int(self._random.random() * (len(self._noise) - self.characters))
        return number + self._noise[begin : begin + self.characters - len(number)]

    def pair(self) -> tuple[str, str]:
        """Return a random key and a new value."""
        return self.key(), self.value()

    def batches(self) -> Iterator[list[tuple[str, str]]]:
        """Yield every key once with a new value, FILL_BATCH at a time, and fewer when the values are large."""
        most = max(1, min(FILL_BATCH, FILL_CHARACTERS // self.characters))
        for begin in range(0, len(self.keys), most):
            yield [(key, self.value()) for key in self.keys[begin : begin + most]]


@cache
def noise(characters: int) -> str:
    """Return random text, the same in each run: 6 bits of chance in each character."""
    return base64.b64encode(random.Random(SEED).randbytes(characters * 3 // 4 + 3)).decode()[:characters]


async def drive(tasks: int, ops: int, operation: Callable[[int], Awaitable[object]], *, pause_every: int = 0) -> int:
    """Have `tasks` tasks call `operation(task)` over and over, `ops` times in all; return how often it was called.

    With `pause_every`, each task lets the others go on after so many calls: an operation that never waits would
    otherwise run one task after the other.
    """
    each = max(1, ops // tasks)

    async def work(task: int) -> None:
        for number in range(1, each + 1):
            await operation(task)
            if pause_every and number % pause_every == 0:
                await asyncio.sleep(0)

    if tasks == 1:
        await work(0)
    else:
        await asyncio.gather(*(work(task) for task in range(tasks)))
    return each * tasks
