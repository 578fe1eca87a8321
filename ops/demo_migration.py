"""The demo's newcomers: a database of the old program becomes addresses, and every row of it is accounted for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from ops.demo_evidence import environment, told

if TYPE_CHECKING:
    from ops.demo_evidence import Demo

# In a process of its own, as the old program was: another SQLite library is no business of this one.
OLD_PROGRAM = """
import sqlite3, sys
old = sqlite3.connect(sys.argv[1])
old.execute("CREATE TABLE kvstore (id INTEGER PRIMARY KEY, address TEXT NOT NULL, value TEXT NOT NULL, "
            "created_at TIMESTAMP, updated_at TIMESTAMP)")
rows = [(f"veteran.main.count.{n % 40}", str(n)) for n in range(200)]
rows += [(f"rookie.main.app.theme.{n}", "dark") for n in range(5)] + [("lost", "to whom?"), ("no body.x.y.z", "?")]
old.executemany("INSERT INTO kvstore (address, value, created_at, updated_at) "
                "VALUES (?, ?, '2023-11-14 22:13:20', '2023-11-14 22:13:20')", rows)
old.commit()
"""


async def show_migration(demo: Demo) -> None:
    """Make an old database whose rows were never replaced, migrate it twice, and compare with what was written last."""
    demo.screen.heading("The old program's data comes over")
    wrong: list[str] = []
    source = Path(demo.root).parent / f"{Path(demo.root).name}-old.db"
    try:
        await anyio.run_process([sys.executable, "-c", OLD_PROGRAM, str(source)], env=environment(demo.root))
        before = await anyio.Path(source).read_bytes()
        for written in (2, 0):
            done = await told(demo, "migrate", str(source))
            shown = done.stdout.partition("\nmigrated,")[0] if written else ""
            end = next((line for line in done.stderr.splitlines() if "read" in line), "").replace(str(source), "old.db")
            demo.screen.command("prontodb migrate old.db; echo $?", f"{shown}{end}\n{done.code}")
            said = (
                f"read 207 = migrated 45{'' if written else ' (45 were there already)'} + expired 0 + superseded 160 + "
            )
            if (
                done.code != 1
                or f"{said}reported 2" not in done.stderr
                or f"{written} addresses written" not in done.stderr
            ):
                wrong.append(f"migrate: exit code {done.code}, {done.stderr!r}")
        last = await told(demo, *["--user", "veteran", "--cursor", "main", "get", "count.39"])
        demo.screen.command("prontodb --user veteran --cursor main get count.39", last.stdout)
        if last.stdout != "199":
            wrong.append(f"count.39 is {last.stdout!r}, not what was written last")
        if await anyio.Path(source).read_bytes() != before or list(source.parent.glob(f"{source.name}-*")):
            wrong.append("the old database is not as it was")
    except (OSError, subprocess.CalledProcessError) as error:
        wrong.append(f"no old database: {error!r}")
    finally:
        await anyio.Path(source).unlink(missing_ok=True)
    demo.screen.line()
    demo.check("each of 207 old rows has one fate, twice the same; the old database stays byte for byte", wrong)
