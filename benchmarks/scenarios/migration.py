"""How long does it take to migrate an old program's rows, beside SQLite's own copy of them, and in how much memory?"""

from __future__ import annotations

import compileall
import json
import os
import shutil
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING, Any

from sqlcipher3 import dbapi2 as sqlite

import prontodb
from benchmarks import children
from benchmarks.contenders import Durability, Promise
from benchmarks.contenders.sqlite import SCHEMA
from benchmarks.measure import Findings, Row, Series, sync_time_ms
from benchmarks.old_sources import FORMATS, RUST, RUST_TABLE, SHARED, SHARED_TABLE
from benchmarks.scenarios.footprint import IS_LINUX
from benchmarks.scenarios.scenario import Scenario
from prontodb.migration.ledger import CACHE_KIB
from prontodb.storage.connection import uri

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.measure import Plan
    from benchmarks.old_sources import Expected, Format

ROWS_A_KEY = 10
"""Rows of the large source for each key of the plan; the small one has one."""
MAX_ROUNDS = 3
"""More would say little: a round takes two minutes, in which a slow moment of the machine does not count for much."""
DEADLINE_S = 1_800
CHECKOUT = Path(__file__).parents[2]
PACKAGE = Path(prontodb.__file__).parent

OURS, PLAIN, KEYED = "prontodb migrate", "SQLite's copy alone", "SQLite's copy of each key's newest row, in order"
NOTES = {
    OURS: "tested, judged, journalled, checksummed, read again",
    PLAIN: "one transaction",
    KEYED: "one transaction, a unique key",
}
# Of a child, getrusage(2) tells the most that it or the process it was forked from ever had; this is its own alone.
WATCHED = """
import os, sys
from prontodb.cli.main import main
code = main()
if os.path.exists("/proc/self/status"):
    with open("/proc/self/status") as status:
        print(*(line.split()[1] for line in status if line.startswith("VmHWM:")))
sys.exit(code)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """How SQLite alone does it: the new file's tables, the one statement that fills them, and what counts the rows."""

    schema: tuple[str, ...]
    fill: str
    count: str = "SELECT count(*) FROM kvstore"


COPIES = {
    (PLAIN, SHARED.name): Copy(schema=(SHARED_TABLE,), fill="INSERT INTO kvstore SELECT * FROM old.kvstore"),
    (PLAIN, RUST.name): Copy(
        schema=(RUST_TABLE,), fill="INSERT INTO kv SELECT * FROM old.kv", count="SELECT count(*) FROM kv"
    ),
    # Beside max() the other columns are of the row that has it: https://sqlite.org/lang_select.html#bareagg
    (KEYED, SHARED.name): Copy(
        schema=SCHEMA,
        fill="INSERT INTO kvstore (namespace_key, value, created_at, updated_at) "
        "SELECT address, value, created_at, updated_at "
        "FROM (SELECT address, value, created_at, updated_at, max(id) FROM old.kvstore GROUP BY address)",
    ),
    (KEYED, RUST.name): Copy(
        schema=SCHEMA,
        fill="INSERT INTO kvstore (namespace_key, value, created_at, updated_at, ttl_expires_at) "
        "SELECT path, value, created_at, updated_at, expires_at FROM "
        "(SELECT project || '.' || namespace || '.' || key AS path, value, created_at, updated_at, expires_at, "
        "max(rowid) FROM old.kv GROUP BY path)",
    ),
}


def copy(contender: str, format_name: str, source: str, target: str) -> dict[str, float]:
    """Copy a source's rows into a new file, durable at its end; return the seconds and the number of rows."""
    how = COPIES[contender, format_name]
    begun = time.perf_counter()
    with closing(sqlite.connect(uri(target), uri=True, isolation_level=None)) as connection:
        # What SQLite sorts goes to disk, past a cache as large as the migration's.
        for pragma in ("synchronous=FULL", "temp_store=FILE", f"cache_size=-{CACHE_KIB}"):
            connection.execute(f"PRAGMA {pragma}").close()
        connection.execute("ATTACH ? AS old", (f"{uri(source)}?mode=ro&immutable=1",)).close()
        connection.execute("BEGIN IMMEDIATE").close()
        for table in how.schema:
            connection.execute(table).close()
        connection.execute(how.fill).close()
        connection.execute("COMMIT").close()
    seconds = time.perf_counter() - begun
    with closing(sqlite.connect(target)) as connection:
        rows = connection.execute(how.count).fetchone()[0]
    return {"seconds": seconds, "rows": rows}


@dataclass(slots=True)
class Source:
    """A source, the scratch folder beside it, and what was measured of it, a figure per round."""

    format: Format
    path: Path
    expected: Expected
    seconds: dict[str, list[float]] = field(default_factory=lambda: {OURS: [], PLAIN: [], KEYED: []})
    peak_kib: list[int] = field(default_factory=list)


class Children:
    """Processes that migrate or copy, each alone, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._scratch = folder, folder / "scratch"
        self._scratch.mkdir()
        # SQLite's sorting goes to TMPDIR: the same disk for all.
        self._environment = {name: text for name, text in os.environ.items() if not name.startswith("PRONTODB_")}
        self._environment |= {"TMPDIR": str(self._scratch)}
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def _run(self, *arguments: str, code: int = 0) -> tuple[float, list[str]]:
        """Run a Python program, which must end with this code; return how long it took and the lines it printed."""
        # Nobody pays for what another has written and not synced.
        os.sync()
        begun = time.perf_counter()
        done = children.run(
            [sys.executable, *arguments],
            env=self._environment,
            cwd=CHECKOUT,
            stdout=PIPE,
            stderr=PIPE,
            text=True,
            timeout=DEADLINE_S,
        )
        seconds = time.perf_counter() - begun
        if done.returncode != code:
            raise RuntimeError(f"a program ended with {done.returncode}, not {code}, and said: {done.stderr}")
        return seconds, done.stdout.splitlines()

    def migrate(self, source: Source) -> tuple[float, int]:
        """Migrate into a new root; return the seconds of the whole command and its peak memory in KiB."""
        root = self._folder / "root"
        arguments = ("--root", str(root), "migrate", str(source.path), "--scratch", str(self._scratch))
        # Exit 1 says that rows were reported, and some are to be.
        code = 1 if source.expected.reported else 0
        seconds, lines = self._run("-c", WATCHED, *arguments, "--json", code=code)
        if not lines:
            raise RuntimeError(f"migrating {source.format.name} said nothing")
        check(json.loads(lines[0]), source.expected)
        shutil.rmtree(root)
        return seconds, int(lines[1]) if len(lines) > 1 else 0

    def copy(self, contender: str, source: Source) -> float:
        """Have SQLite copy the rows into a new file; return the seconds of that alone."""
        target = self._folder / "copy.db"
        arguments = ("-m", "benchmarks.scenarios.migration", contender, source.format.name)
        _, lines = self._run(*arguments, str(source.path), str(target))
        found: dict[str, float] = json.loads(lines[0])
        expected = source.expected
        rows = expected.read if contender == PLAIN else expected.read - expected.superseded
        if found["rows"] != rows:
            raise RuntimeError(f"{contender} has {found['rows']:,} rows, not {rows:,}")
        target.unlink()
        return found["seconds"]


def check(report: Mapping[str, Any], expected: Expected) -> None:
    """Raise unless a report has a fate for every row, and for each the number that there must be."""
    found = {name: report[name] for name in ("read", "migrated", "expired", "superseded", "reported")}
    found["reasons"] = {one["reason"]: one["rows"] for one in report["reasons"]}
    found["addresses"], found["lifetimes"] = len(report["written"]), report["namespaces"]
    wanted = {
        "read": expected.read,
        "migrated": expected.migrated,
        "expired": expected.expired,
        "superseded": expected.superseded,
        "reported": expected.reported.total(),
        "reasons": dict(expected.reported),
        "addresses": expected.addresses,
        "lifetimes": expected.lifetimes,
    }
    if found != wanted or report["failed"] or report["namespaces_reported"]:
        raise RuntimeError(f"migrated otherwise than expected: {found}, not {wanted}")
    if found["read"] != sum(found[fate] for fate in ("migrated", "expired", "superseded", "reported")):
        raise RuntimeError(f"the counts do not add up: {found}")


def rows_of(large: Source, small: Source) -> tuple[list[Row], list[Row]]:
    """Return the table's lines for one format: the ratios, and the absolute figures."""
    ours, count, few = large.seconds[OURS], large.expected.read, small.expected.read
    what = f"migrating {count:,} rows of {large.format.name}"
    ratios = [
        Row(
            what=f"{what}: time against {peer}",
            unit="x",
            figures=tuple(own / other for own, other in zip(ours, large.seconds[peer], strict=True)),
        )
        for peer in (PLAIN, KEYED)
    ]
    figures = [Row(what=f"{what}: speed", unit="rows/s", figures=tuple(count / own for own in ours))]
    if IS_LINUX:
        pairs = zip(large.peak_kib, small.peak_kib, strict=True)
        ratios.append(
            Row(
                what=f"{what}: peak memory against {few:,} rows",
                unit="x",
                figures=tuple(most / less for most, less in pairs),
            )
        )
        figures += [
            Row(
                what=f"migrating {source.expected.read:,} rows of {source.format.name}: peak memory",
                unit="MiB",
                figures=tuple(kib / 1_024 for kib in source.peak_kib),
            )
            for source in (small, large)
        ]
    return ratios, figures


def _series(source: Source) -> list[Series]:
    count = source.expected.read
    return [
        Series(
            race=f"a row of {source.format.name}",
            contender=contender,
            promise=Promise(survives=Durability.POWER_LOSS, notes=(NOTES[contender],)),
            figures=tuple(each * 1e6 / count for each in seconds),
        )
        for contender, seconds in source.seconds.items()
    ]


async def probe(folder: Path, plan: Plan) -> Findings:
    """Make the sources, then migrate and copy them in turn, every program in a process of its own."""
    compileall.compile_dir(str(PACKAGE), quiet=2)
    children = Children(folder)
    pairs = []
    for name, format_ in FORMATS.items():
        large, small = (
            Source(format_, *format_.make(folder / f"{name}-{count}", count))
            for count in (plan.keys * ROWS_A_KEY, plan.keys)
        )
        pairs.append((large, small))
    findings = Findings(missing=[] if IS_LINUX else ["peak memory of a migration: needs /proc (Linux)"])
    for _ in range(min(plan.rounds, MAX_ROUNDS)):
        findings.sync_ms.append(sync_time_ms(folder))
        for large, small in pairs:
            for source in (small, large):
                seconds, peak_kib = children.migrate(source)
                source.seconds[OURS].append(seconds)
                source.peak_kib.append(peak_kib)
            for contender in (PLAIN, KEYED):
                large.seconds[contender].append(children.copy(contender, large))
    told = [rows_of(large, small) for large, small in pairs]
    findings.rows = [row for ratios, _ in told for row in ratios] + [row for _, figures in told for row in figures]
    findings.series = [series for large, _ in pairs for series in _series(large)]
    return findings


SCENARIO = Scenario(
    name="migration",
    question="How long does it take to migrate an old program's rows, beside SQLite's own copy of them?",
    probe=probe,
)

if __name__ == "__main__":
    print(json.dumps(copy(*sys.argv[1:])))
