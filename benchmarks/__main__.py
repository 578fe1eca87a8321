"""`python -m benchmarks`: run scenarios, print ratios and verdicts, write them as JSON; or turn a JSON into a table."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import machine, report
from benchmarks.contenders.listing import CONTENDERS
from benchmarks.listing import SCENARIOS
from benchmarks.measure import Findings, Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.scenarios.scenario import Scenario

RESULTS = "benchmarks.json"
MAX_ROUNDS = 1_000


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return what the command line asks for; ends the program when it cannot be understood."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="`python -m benchmarks table benchmarks.json` prints the Markdown table of a report.",
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="which to run; all without any")
    parser.add_argument(
        "--against", default="all", metavar="NAMES", help="who takes part beside us: names with commas between, or all"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds that count, a dropped one before them")
    parser.add_argument("--quick", action="store_true", help="see that everything runs, in under a minute")
    parser.add_argument("--report", type=Path, metavar="DIR", help=f"write {RESULTS} there, and measure on its disk")
    parser.add_argument("--list", action="store_true", help="list the scenarios and the contenders, and end")
    args = parser.parse_args(argv)
    unknown = [name for name in args.scenarios if name not in SCENARIOS]
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}; there are: {', '.join(SCENARIOS)}")
    args.against = None if args.against == "all" else frozenset(args.against.split(","))
    if args.against is not None and (unknown := sorted(args.against - CONTENDERS.keys())):
        parser.error(f"no contender {', '.join(unknown)}; there are: all, {', '.join(CONTENDERS)}")
    if args.rounds is not None and not 1 <= args.rounds <= MAX_ROUNDS:
        parser.error(f"--rounds takes a number from 1 to {MAX_ROUNDS:,}")
    return args


def plan_of(args: argparse.Namespace) -> Plan:
    """Return how much to measure."""
    make = Plan.quick if args.quick else Plan.standard
    plan = make() if args.rounds is None else make(args.rounds)
    return replace(plan, against=args.against)


def run_one(scenario: Scenario, base: Path, plan: Plan) -> dict[str, Any]:
    """Run a scenario in a folder of its own, print what it found, and return it for the JSON."""
    print(f"\n== {scenario.name}: {scenario.question}", flush=True)
    folder = base / scenario.name
    folder.mkdir(mode=0o700)
    findings, failed = Findings(), None
    begun = time.monotonic()
    try:
        findings = asyncio.run(scenario.run(folder, plan))
    except Exception as error:  # noqa: BLE001 - one scenario that cannot run must not hide what the others find
        failed = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - begun
    said = [
        report.rows_text(findings.rows),
        report.series_text(findings.series),
        report.control_text(findings.sync_ms),
        *(f"missing: {line}" for line in findings.missing),
        *([f"FAILED: {failed}"] if failed else []),
    ]
    print("\n\n".join(part for part in said if part))
    print(f"({seconds:.1f} s)", flush=True)
    return report.scenario_json(scenario.name, scenario.question, findings, seconds, failed)


def run(args: argparse.Namespace) -> int:
    """Run what was asked for; 1 when a scenario could not run."""
    plan = plan_of(args)
    if args.report is not None:
        args.report.mkdir(parents=True, exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="prontodb-benchmarks-", dir=args.report)).absolute()
    try:
        facts = machine.describe(base)
        print(report.machine_text(facts))
        if facts["file_system"] in machine.IN_MEMORY:
            print("warning: this file system is memory; syncs cost nothing here. Use --report on a disk.")
        if busy := report.busy_text(facts):
            print(f"warning: {busy}")
        names = args.scenarios or list(SCENARIOS)
        options = [f"--rounds {args.rounds}"] * (args.rounds is not None) + ["--quick"] * args.quick
        if args.against is not None:
            options.append(f"--against {','.join(sorted(args.against))}")
        results = {
            "format": report.FORMAT,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": " ".join(["python -m benchmarks", *args.scenarios, *options]),
            "quick": args.quick,
            "rounds": plan.rounds,
            "machine": facts,
            "scenarios": [run_one(SCENARIOS[name], base, plan) for name in names],
        }
    finally:
        shutil.rmtree(base, ignore_errors=True)
    if args.report is not None:
        target = args.report / RESULTS
        target.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"\nwritten: {target}")
    return 1 if any(scenario["failed"] for scenario in results["scenarios"]) else 0


def table(argv: Sequence[str]) -> int:
    """Print the Markdown table of a report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks table")
    parser.add_argument("results", type=Path, help=f"a {RESULTS}")
    results = json.loads(parser.parse_args(argv).results.read_text(encoding="utf-8"))
    if results.get("format") != report.FORMAT:
        print(f"this is no benchmark report of format {report.FORMAT}", file=sys.stderr)
        return 1
    sys.stdout.write(report.markdown(results))
    return 0


def main(argv: Sequence[str]) -> int:
    """Run the command line."""
    if argv[:1] == ["table"]:
        return table(argv[1:])
    args = parse(argv)
    if args.list:
        for scenario in SCENARIOS.values():
            print(f"{scenario.name:16} {scenario.question}")
        print()
        for name, kind in CONTENDERS.items():
            print(f"{name:44} {kind.why_missing() or kind.promise}")
        return 0
    return run(args)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
