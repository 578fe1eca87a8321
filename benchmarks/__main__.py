"""`python -m benchmarks`: run scenarios, print ratios and verdicts, leave a report; or turn reports into tables."""

from __future__ import annotations

import argparse
import asyncio
import errno
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from benchmarks import machine
from benchmarks.contenders.listing import CONTENDERS
from benchmarks.listing import SCENARIOS
from benchmarks.measure import Findings, Plan
from benchmarks.report import markdown, text
from benchmarks.report.page import page
from benchmarks.report.results import FORMAT, PAGE, RESULTS, ReportError, load, scenario_json
from prontodb.cli.progress import Shown, duration_text

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence

    from benchmarks.scenarios.scenario import Scenario

MAX_ROUNDS = 1_000
DATA = "prontodb-benchmarks-"
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a run; the programs that a scenario starts are in groups of their own, and get none of these."""
INTERRUPTED = 128 + signal.SIGINT
CHECKOUT = Path(__file__).resolve().parents[1]
FIGURES, README = CHECKOUT / "ops" / "figures.md", CHECKOUT / "README.md"


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """End the program with 2."""
        self.exit(2, f"{self.prog}: {message}; --help says more\n")


def _rounds(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_ROUNDS:
        return int(text)
    raise argparse.ArgumentTypeError(f"takes a number from 1 to {MAX_ROUNDS:,}, not {text!r}")


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("takes a folder, not an empty name")
    return Path(text)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return what the command line asks for; ends the program when it cannot be understood."""
    parser = Parser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="`python -m benchmarks table REPORT` prints the Markdown table of a report; "
        "`python -m benchmarks figures REPORT...` writes those of ops/figures.md and README.md.",
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="which to run; all without any")
    parser.add_argument(
        "--against", default="all", metavar="NAMES", help="who takes part beside us: names with commas between, or all"
    )
    parser.add_argument("--rounds", type=_rounds, metavar="N", help="rounds that count, a dropped one before them")
    parser.add_argument("--quick", action="store_true", help="see that everything runs, in under a minute")
    parser.add_argument(
        "--report", type=_folder, metavar="DIR", help=f"write {RESULTS} and {PAGE} there, and measure on its disk"
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios and the contenders, and end")
    args = parser.parse_args(argv)
    unknown = [name for name in args.scenarios if name not in SCENARIOS]
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}; there are: {', '.join(SCENARIOS)}")
    args.against = None if args.against == "all" else frozenset(args.against.split(","))
    if args.against is not None and (unknown := sorted(args.against - CONTENDERS.keys())):
        names = "all, by itself," if "all" in unknown else "all"
        parser.error(f"no contender {', '.join(map(repr, unknown))}; there are: {names} and {', '.join(CONTENDERS)}")
    return args


def plan_of(args: argparse.Namespace) -> Plan:
    """Return how much to measure."""
    make = Plan.quick if args.quick else Plan.standard
    plan = make() if args.rounds is None else make(args.rounds)
    return replace(plan, against=args.against)


async def interruptible(work: Coroutine[Any, Any, Findings]) -> Findings:
    """Do a scenario's work; Ctrl-C and the like end it (KeyboardInterrupt), cleaned up, waiting or not.

    asyncio alone would cancel the work, which a probe that waits for its processes, or a round of plain calls, would
    hear at its end. Raising wherever the signal comes would leave tasks that others wait for.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def interrupt(*_: object) -> None:
        if asyncio.current_task(loop) is task:
            raise KeyboardInterrupt
        loop.call_soon_threadsafe(task.cancel)

    before = {number: signal.signal(number, interrupt) for number in ENDING}
    try:
        return await work
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_one(scenario: Scenario, base: Path, plan: Plan, place: str) -> dict[str, Any]:
    """Run a scenario in a folder of its own, print what it found, and return it for the JSON.

    `place` says how far the whole run is, for whoever watches.
    """
    print(f"\n== {scenario.name}: {scenario.question}", flush=True)
    folder = base / scenario.name
    folder.mkdir(mode=0o700)
    findings, failed = Findings(), None
    begun = time.monotonic()
    if not sys.stderr.isatty():
        print(f"{scenario.name} ({place})", file=sys.stderr, flush=True)  # where no bar says it while it runs
    try:
        with Shown(f"{scenario.name} ({place})", "rounds", quiet=False) as shown:
            findings = asyncio.run(interruptible(scenario.run(folder, plan, shown.update)))
    except Exception as error:  # noqa: BLE001 - one scenario that cannot run must not hide what the others find
        failed = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - begun
    said = [
        text.rows_text(findings.rows),
        text.series_text(findings.series),
        text.control_text(findings.sync_ms),
        *(f"missing: {line}" for line in findings.missing),
        *([f"FAILED: {failed}"] if failed else []),
    ]
    print("\n\n".join(part for part in said if part))
    print(f"({seconds:.1f} s)", flush=True)
    return scenario_json(scenario.name, scenario.question, findings, seconds, failed)


def run_all(names: Sequence[str], base: Path, plan: Plan) -> list[dict[str, Any]]:
    """Run scenarios one after the other."""
    begun, found = time.monotonic(), list[dict[str, Any]]()
    for number, name in enumerate(names):
        place = f"{number + 1} of {len(names)}"
        if number:
            # Scenarios differ in length: roughly is all that can be said.
            left_s = (time.monotonic() - begun) / number * (len(names) - number)
            place += f", roughly {duration_text(left_s)} left in all"
        found.append(run_one(SCENARIOS[name], base, plan, place))
    return found


def place_for(report: Path | None) -> Path:
    """Return a new folder for the data, below the report's; raises OSError where the report could not be written."""
    if report is None:
        return Path(tempfile.mkdtemp(prefix=DATA)).absolute()
    report.mkdir(parents=True, exist_ok=True)
    for name in (RESULTS, PAGE):
        if (report / name).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(report / name))
    return Path(tempfile.mkdtemp(prefix=DATA, dir=report)).absolute()


@contextmanager
def signals_end() -> Iterator[None]:
    """What ends a program raises KeyboardInterrupt, so that whatever was made is removed."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(args: argparse.Namespace) -> int:
    """Run what was asked for; 1 when a scenario could not run."""
    try:
        is_new = args.report is not None and not args.report.exists()
        base = place_for(args.report)
    except OSError as error:
        place = args.report or tempfile.gettempdir()
        print(f"no report can be written at {place}: {error}; name a folder of yours", file=sys.stderr)
        return 2
    try:
        return _run(args, base)
    except BaseException:
        if is_new:
            with suppress(OSError):  # of other files nothing goes
                args.report.rmdir()
        raise


def _run(args: argparse.Namespace, base: Path) -> int:
    plan = plan_of(args)
    try:
        facts = machine.describe(base)
        print(text.machine_text(facts))
        for warning in (text.memory_text(facts), text.busy_text(facts)):
            if warning:
                print(f"warning: {warning}")
        options = [f"--rounds {args.rounds}"] * (args.rounds is not None) + ["--quick"] * args.quick
        if args.against is not None:
            options.append(f"--against {','.join(sorted(args.against))}")
        results = {
            "format": FORMAT,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": " ".join(["python -m benchmarks", *args.scenarios, *options]),
            "quick": args.quick,
            "rounds": plan.rounds,
            "machine": facts,
            "scenarios": run_all(args.scenarios or list(SCENARIOS), base, plan),
        }
    finally:
        shutil.rmtree(base, ignore_errors=True)
    print(f"\n== summary\n{text.summary_text(results)}")
    if args.report is not None:
        for name, content in ((RESULTS, json.dumps(results, indent=1) + "\n"), (PAGE, page(results))):
            try:
                (args.report / name).write_text(content, encoding="utf-8")
            except OSError as error:
                print(f"the report could not be written: {error}", file=sys.stderr)
                return 1
            print(f"\nwritten: {args.report / name}")
    return 1 if any(scenario["failed"] for scenario in results["scenarios"]) else 0


def table(argv: Sequence[str]) -> int:
    """Print the Markdown table of a report."""
    parser = Parser(prog="python -m benchmarks table", description=table.__doc__)
    parser.add_argument("results", type=Path, metavar="REPORT", help=f"a {RESULTS}, or its folder")
    sys.stdout.write(markdown.markdown(load(parser.parse_args(argv).results)))
    return 0


def figures(argv: Sequence[str]) -> int:
    """Write the tables of reports into ops/figures.md, and the rows that README.md shows from there."""
    parser = Parser(prog="python -m benchmarks figures", description=figures.__doc__)
    parser.add_argument("results", type=Path, nargs="+", metavar="REPORT", help=f"a {RESULTS}, or its folder")
    parser.add_argument("--replace", action="store_true", help="drop rows that the reports of their scenarios lack")
    args = parser.parse_args(argv)
    reports = [load(path) for path in args.results]
    paper = markdown.figures_with(FIGURES.read_text(encoding="utf-8"), reports, replace=args.replace)
    readme = markdown.readme_with(README.read_text(encoding="utf-8"), paper)
    for place, results in zip(args.results, reports, strict=True):
        for scenario in results["scenarios"]:
            if scenario["failed"] is not None:
                print(f"{scenario['name']} could not run in {place}: its figures stay as they were", file=sys.stderr)
    # Both are made before either is written: a row that is nowhere leaves both as they were.
    FIGURES.write_text(paper, encoding="utf-8")
    README.write_text(readme, encoding="utf-8")
    return 0


def main(argv: Sequence[str]) -> int:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack a letter such as that of a microsecond
    for command in (table, figures):
        if argv[:1] == [command.__name__]:
            try:
                return command(argv[1:])
            except ReportError as error:
                print(error, file=sys.stderr)
                return 1
    args = parse(argv)
    if args.list:
        for scenario in SCENARIOS.values():
            print(f"{scenario.name:16} {scenario.question}")
        print()
        for name, kind in CONTENDERS.items():
            print(f"{name:44} {kind.why_missing() or kind.promise}")
        return 0
    try:
        with signals_end():
            return run(args)
    except KeyboardInterrupt:
        print("\ninterrupted: nothing was written", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
