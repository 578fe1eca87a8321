"""The demo's accident: a keystore is ruined, and comes back from a backup as it was, while the others go on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from ops.demo_evidence import told

if TYPE_CHECKING:
    from ops.demo_evidence import Demo

HOME = "--user agent1 --cursor prod"


async def show_backups(demo: Demo) -> None:
    """Back everything up, whole and then what changed; ruin one keystore's file; restore it and compare."""
    demo.screen.heading("An accident, and the way back")
    wrong: list[str] = []
    addresses = demo.count + 1  # with the board

    async def run(command: str, code: int = 0, says: str | None = None) -> str:
        done = await told(demo, *command.split())
        ended = f"\n{done.code}" if code or done.code else ""
        demo.screen.command(f"prontodb {command}{'; echo $?' if code else ''}", f"{done.stderr}{done.stdout}{ended}")
        if done.code != code or (says is not None and says not in done.stdout + done.stderr):
            wrong.append(f"{command}: exit code {done.code}, {done.stdout!r} {done.stderr!r}")
        return done.stdout.strip()

    await run("backup", says=f"full backup of all addresses: {addresses} whole")
    steps = await run(f"{HOME} incr count.steps")
    await run("backup", says=f"0 whole, 1 by what changed, {addresses - 1} unchanged")
    before = await told(demo, *HOME.split(), "export")

    # By path, while nobody has it open: each command above was a process of its own.
    keystore = Path(demo.root, "addresses", "agent1", "prod", "keystore.db")
    await anyio.Path(keystore).write_bytes(b"what a failing disk makes of it" * 1_000)
    demo.screen.line(f"  $ head -c 31000 /dev/urandom > {keystore.relative_to(demo.root)}  # or so")
    await run(f"{HOME} get count.steps", code=1, says="damaged")
    await run("--user agent2 --cursor prod get handoff.plan")
    await run(f"restore {HOME} --yes", says="agent1/prod")
    if await run(f"{HOME} get count.steps") != steps:
        wrong.append(f"count.steps is not {steps} again")
    after = await told(demo, *HOME.split(), "export")
    if (before.code, before.stdout) != (0, after.stdout):
        wrong.append("what was restored is not what was backed up")
    await run("backup verify", says="all whole")
    demo.screen.line()
    demo.check("a ruined keystore comes back entry by entry, revisions and lifetimes too; nobody else notices", wrong)
