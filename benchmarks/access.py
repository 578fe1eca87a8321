"""What access rules and tokens cost per operation: `python -m benchmarks.access`."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable

import prontodb
from prontodb.model.access import Grant
from prontodb.model.layout import Layout
from prontodb.registry import grants

ROUNDS = 40
SETTINGS = prontodb.Settings(durability="relaxed")


async def best_us(count: int, call: Callable[[], Awaitable[object]]) -> float:
    """Return microseconds per call in the best of many short rounds: what others do meanwhile only adds."""
    found = float("inf")
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for _ in range(count):
            await call()
        found = min(found, time.perf_counter() - begin)
    return found / count * 1e6


async def measure(name: str, root: str, principal: str | None = None, *, by_token: bool = False) -> None:
    """Print one line: a cached get, a get from the store, a set."""
    async with prontodb.open(root, principal=principal, settings=SETTINGS) as manager:
        token = await manager.access.mint("agent/prod", rights="read,write", by="operator") if by_token else None
        async with manager.session("agent", "prod", token=token) as keystore:
            await keystore.set("app.k", "v")
            cached = await best_us(2_000, lambda: keystore.get("app.k"))
            written = await best_us(50, lambda: keystore.set("app.k", "v"))
        async with manager.session("agent", "prod", mode="shared", token=token) as keystore:
            read = await best_us(500, lambda: keystore.get("app.k"))
    print(f"{name:24} cached get {cached:6.3f} us   get {read:6.2f} us   set {written:6.1f} us", flush=True)


async def main() -> None:
    """Measure without rules, with one grant, with a hundred, and with a token."""
    with tempfile.TemporaryDirectory() as root:
        layout = Layout(root)

        def allow(principal: str, pattern: str, prefix: str, rights: str) -> None:
            grants.add(layout, Grant(principal, pattern, prefix, rights), principal="operator", wait_s=5)

        await measure("no grants", root)
        await measure("no grants, a token", root, by_token=True)
        allow("operator", "*", "", "read,write,admin")
        await measure("1 grant", root, "operator")
        for number in range(98):
            allow("agent", "agent/*", f"p{number}.", "read,write")
        allow("agent", "agent/*", "app.", "read,write")
        await measure("100 grants, 99 apply", root, "agent")
        await measure("100 grants, a token", root, "operator", by_token=True)


if __name__ == "__main__":
    asyncio.run(main())
