"""What the demo shows once its agents have ended: keystores through the library, files on disk, the command line."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

import prontodb
from ops.demo_proof import ELSEWHERE, Item, faults, in_bytes, in_values, open_to_others
from ops.demo_screen import CYAN, DIM, GREEN, RED, Screen, sized

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyio.abc import Process

    from prontodb.addresses import AddressReport

OPS = Path(__file__).resolve().parent
BOARD = "_global/board"
SHOWN_IN_TREE = 2
SHOWN_WRONG = 20
PATIENCE_S = 30
ENDING_S = 5.0


@dataclass(slots=True)
class Demo:
    """One run: where it takes place, what the agents said, and what did not hold."""

    root: str
    count: int
    screen: Screen
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    held: int = 0
    stopped_by: int = 0

    @property
    def tokens(self) -> dict[str, str]:
        """The token of each agent."""
        return {name: facts["token"] for name, facts in self.facts.items()}

    @property
    def homes(self) -> dict[str, set[str]]:
        """Whose tokens may and must lie at each place: one's own, the one copy, and what all share."""
        homes = {facts["address"]: {name} for name, facts in self.facts.items()}
        homes["agent2/prod"].add("agent1")
        return homes | {BOARD: set(self.facts)}

    def check(self, text: str, wrong: Sequence[str] = ()) -> None:
        """Show whether a check held, and remember; `wrong` says what is not as it must be."""
        self.screen.verdict(text, held=not wrong)
        for line in wrong[:SHOWN_WRONG]:
            self.screen.line(f"      {line}")
        self.held += not wrong
        self.broken += [f"{text}: {wrong[0]}"] if wrong else []


def environment(root: str) -> dict[str, str]:
    """Return our environment with this root, this checkout's code and nobody's defaults."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PRONTODB_")}
    return kept | {"PRONTODB_HOME": root, "PYTHONPATH": str(OPS.parent), "PYTHONDONTWRITEBYTECODE": "1"}


async def ended(process: Process) -> None:
    """Let a process end by itself, as ours do when their stdin ends; one that does not is killed by its block.

    A kill at the moment at which it ends would take its exit code away from asyncio, which complains on stderr.
    """
    assert process.stdin is not None
    with anyio.move_on_after(ENDING_S, shield=True):
        await process.stdin.aclose()
        await process.wait()


async def show_keystores(demo: Demo) -> None:
    """Open every keystore anew and show who stored what; check counters, values and health."""
    screen = demo.screen
    values: dict[str, list[str]] = {}
    reports: dict[str, AddressReport] = {}
    counters: dict[str, str | None] = {}
    async with prontodb.open(demo.root) as manager:
        for row in await manager.addresses():
            address = str(row.address)
            reports[address] = await manager.describe(address)
            async with manager.session(row.address.user, row.address.cursor, mode="read") as keystore:
                values[address] = [entry.value async for entry in keystore.scan()]
                counters[address] = await keystore.get("visits" if address == BOARD else "count.steps")
        doctor = await manager.doctor(deep=True)

    screen.heading("Who stored what")
    wanted = {facts["address"] for facts in demo.facts.values()} | {BOARD}
    if wanted <= set(reports):
        screen.table(*stored(demo, reports, counters))
        screen.line()
    odd = [f"unexpected or missing: {address}" for address in sorted(wanted ^ set(reports))]
    demo.check(f"there are {len(wanted)} addresses and no other", odd)
    check_claims(demo)
    check_counts(demo, counters)
    findings = [f"{finding.level}: {finding.what}; {finding.fix}" for finding in doctor.findings]
    seen = doctor.facts
    sound = f"{seen.get('addresses')} keystores, SQLite {seen.get('sqlite')} on {seen.get('file_system')}"
    demo.check(f"doctor, deep: {doctor.level}; {sound}", findings if doctor.level == "error" else [])
    wrong = faults(in_values(values, demo.tokens), demo.homes)
    demo.check("read through the library, no address has a value of another's", wrong)


def stored(
    demo: Demo, reports: Mapping[str, AddressReport], counters: Mapping[str, str | None]
) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Return head and rows of the table of who stored what."""
    head = ("address", "pid", "keys", "counter", "expired", "revision", "size", "retries", "writes/s", "time")
    rows: list[Sequence[str]] = []
    for facts in demo.facts.values():
        report = reports[facts["address"]]
        rows.append(
            (
                facts["address"],
                str(facts["pid"]),
                str(report.entries),
                counters[facts["address"]] or "",
                str(facts["expired"]),
                str(report.revision),
                sized(report.size_bytes),
                str(facts["conflicts"]),
                f"{facts['writes_per_s']:,.0f}",
                f"{facts['took_s']:.2f} s",
            )
        )
    board = reports[BOARD]
    shared = (BOARD, "all", str(board.entries), counters[BOARD] or "", "", str(board.revision))
    rows.append((*shared, sized(board.size_bytes), "", "", ""))
    return head, rows


def check_claims(demo: Demo) -> None:
    """Check what each agent saw for itself."""
    claims: dict[str, list[str]] = {}
    for name, facts in demo.facts.items():
        for claim, is_true in facts["claims"].items():
            claims.setdefault(claim, []).extend([] if is_true else [f"not so at {name}"])
    for claim, wrong in claims.items():
        demo.check(claim, wrong)


def check_counts(demo: Demo, counters: Mapping[str, str | None]) -> None:
    """Check what can only be said of all agents together."""
    facts = demo.facts.values()
    demo.check(
        "the counter of each holds every raise of its own tasks and nobody else's",
        [
            f"{agent['address']} has {counters.get(agent['address'])}, not {agent['steps']}"
            for agent in facts
            if counters.get(agent["address"]) != str(agent["steps"])
        ],
    )
    visits, counted = str(sum(agent["visits"] for agent in facts)), counters.get(BOARD)
    wrong = [] if counted == visits else [f"it is {counted}"]
    demo.check(f"the counter that {demo.count} processes raised at once is exact: {visits}", wrong)
    heard_ms = sorted(agent["news_after_ms"] for agent in facts)[len(facts) // 2]
    demo.check(
        f"each heard the news of all {demo.count} from {BOARD}, half of them within {heard_ms:.0f} ms",
        [f"{agent['name']} heard {agent['news']}" for agent in facts if agent["news"] != demo.count],
    )


async def show_files(demo: Demo) -> None:
    """Let another process read every file, then show the tree and who was found where."""
    screen = demo.screen
    done = await anyio.run_process(
        [sys.executable, str(OPS / "demo_proof.py"), demo.root],
        input=json.dumps(demo.tokens).encode(),
        env=environment(demo.root),
    )
    items = [Item(**item) for item in json.loads(done.stdout)]
    screen.heading(f"Files below {demo.root}")
    for text in tree(items):
        screen.line(f"  {text}")
    screen.line()
    demo.check("every folder is 0700 and every file 0600", open_to_others(items))

    found, homes = in_bytes(items), demo.homes
    screen.heading("Whose data lies where: tokens of each agent in the raw bytes of all files")
    places = [*homes, ELSEWHERE]
    rows = [(place, [found.get(place, {}).get(name, 0) for name in demo.facts]) for place in places]

    def colour_of(place: str, name: str) -> str:
        if name not in homes.get(place, ()):
            return RED
        return GREEN if place == demo.facts[name]["address"] else CYAN

    screen.matrix(list(demo.facts), rows, colour_of)
    for text in ("agent1 copied handoff.* to agent2/prod on purpose", f"{BOARD} is what all share"):
        screen.line(screen.paint(f"  {text}", DIM))
    screen.line()
    demo.check("no file of an address holds a byte of another's data, but for that copy", faults(found, homes))


def tree(items: Sequence[Item]) -> list[str]:
    """Return files and folders as lines with mode and size; what is like something before it only as a number."""
    lines: list[str] = []
    left_out: Counter[str] = Counter()
    for item in items:
        parts = item.path.split("/")
        alike = what_is_alike(parts)
        if alike:
            left_out[alike] += 1
            # Where the first of them would stand; the number is known at the end.
            if left_out[alike] == 1:
                lines.append(alike)
            continue
        is_folder = item.mode.startswith("d")
        size = "" if is_folder else sized(item.size_bytes)
        lines.append(f"{item.mode} {size:>8}  {'   ' * (len(parts) - 1)}{parts[-1]}{'/' if is_folder else ''}")
    return [f"{'…':>19}  {left_out[line]} more {line}" if line in left_out else line for line in lines]


def what_is_alike(parts: Sequence[str]) -> str:
    """Return under which words a path is counted instead of shown; the empty text for one that is shown."""
    if parts[0] == "addresses" and len(parts) > 1:
        number = parts[1].removeprefix("agent")
        if number.isdigit() and int(number) > SHOWN_IN_TREE:
            return "files and folders of the other agents, just like these"
    return "files and folders of locks" if parts[:2] == ["registry", "locks"] and len(parts) > 2 else ""


async def show_sessions(demo: Demo) -> None:
    """Hold an address with `prontodb run`, be refused, kill the holder, be let in, and see what it left be refused."""
    screen, at = demo.screen, ("--user", "agent1", "--cursor", "prod")
    program = [sys.executable, "-m", "prontodb"]
    # It writes once it is told to, which is when its run has long been killed.
    late = f"read go && {shlex.join([*program, 'set', 'late.write', 'x'])}"
    screen.heading("Who holds what")
    wrong: list[str] = []
    async with await anyio.open_process(
        [*program, *at, "run", "--", "sh", "-c", late], stderr=subprocess.STDOUT, env=environment(demo.root)
    ) as holder:
        try:
            screen.line(f"  $ prontodb {' '.join(at)} run -- agent &")
            sessions = ""
            with anyio.move_on_after(PATIENCE_S):
                while not sessions:
                    sessions = (await told(demo, "session", "list")).stdout
            session, _, rest = sessions.partition("\t")
            screen.command("prontodb session list", sessions.replace("\t", "  "))
            if not rest.startswith("agent1/prod\texclusive\t"):
                wrong.append(f"the session is not listed: {sessions!r}")

            refused = await told(demo, *at, "run", "--wait", "0", "--", "true")
            screen.command(f"prontodb {' '.join(at)} run --wait 0 -- true; echo $?", f"{refused.stderr}{refused.code}")
            if refused.code != 1 or session not in refused.stderr or str(holder.pid) not in refused.stderr:
                wrong.append(f"the second taker was told: {refused}")

            holder.kill()
            await holder.wait()
            taken = await told(demo, *at, "incr", "count.steps")
            screen.command(f"kill -9 {holder.pid}; prontodb {' '.join(at)} incr count.steps", taken.stdout)
            if taken.stdout.strip() != str(demo.facts["agent1"]["steps"] + 1):
                wrong.append(f"after the kill: {taken}")

            assert holder.stdin is not None and holder.stdout is not None
            await holder.stdin.send(b"go\n")
            said = b"".join([chunk async for chunk in holder.stdout]).decode()
            screen.command("# the command of the killed run lives on and writes", said)
            if "was ended by somebody else" not in said or (await told(demo, *at, "get", "late.write")).code != 2:
                wrong.append(f"the late write was not refused: {said!r}")
        finally:
            await ended(holder)
    screen.line()
    demo.check("an address is held by one; a killed holder is replaced at once, and what it left is refused", wrong)


@dataclass(slots=True)
class Told:
    """What a command said."""

    code: int
    stdout: str
    stderr: str


async def told(demo: Demo, *command: str) -> Told:
    """Run the command line and return what it said."""
    done = await anyio.run_process(
        [sys.executable, "-m", "prontodb", *command],
        env=environment(demo.root),
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return Told(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


async def show_shell(demo: Demo) -> None:
    """Run the command line as people would, show what it prints, and check output and exit codes."""
    demo.screen.heading("The same from a shell")
    demo.screen.line(f"  $ export PRONTODB_HOME={demo.root}")
    config = {name: f"keeps its own settings {name} {facts['token']}" for name, facts in list(demo.facts.items())[:2]}
    asked: list[tuple[str, int, str]] = [
        *((f"--user {name} --cursor prod get app.config", 0, value) for name, value in config.items()),
        ("--user agent1 --cursor prod get count.steps", 0, str(demo.facts["agent1"]["steps"])),
        ("--user agent1 --cursor prod get lease.0", 2, ""),
        ("--user agent1 --cursor prod keys handoff", 0, "plan\nwhy"),
        ("--user agent2 --cursor prod get handoff.plan", 0, f"first draft agent1 {demo.tokens['agent1']}"),
        ("--user nobody --cursor prod get app.config", 2, ""),
    ]
    wrong = []
    for command, code, output in asked:
        done = await told(demo, *command.split())
        printed = done.stdout.removesuffix("\n")
        ended = f"{done.code}" if code or done.code else ""
        demo.screen.command(f"prontodb {command}{'; echo $?' if code else ''}", f"{done.stdout}\n{ended}")
        if (done.code, printed) != (code, output):
            wrong.append(f"{command}: exit code {done.code}, not {code}; {printed!r}, not {output!r}; {done.stderr}")
    demo.screen.line()
    demo.check("the shell reads what the agents wrote; a miss is exit code 2 and prints nothing", wrong)
