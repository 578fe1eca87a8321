"""The command line of the harness: run scenarios, list what there is, make a report's page anew."""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import anyio

from .breaks import BREAKS
from .faults import FAULTS
from .plan import DEFAULT_AGENTS, DEFAULT_MEBIBYTES, DEFAULT_OPERATIONS, DEFAULT_SECONDS, Plan, PlanError
from .promises import PROMISES
from .report.figures import scenario_data
from .report.machine import machine, versions
from .report.page import page
from .report.run import FORMAT, run_data
from .report.summary import markdown, summary
from .report.terminal import LiveLine, wants_colour
from .run import Stage, play
from .scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import TaskStatus

    from .faults.fault import Fault
    from .report.figures import Data

OK, ERROR = 0, 1
OK_VERDICT = "ok"
DATA, PAGE = "report.json", "report.html"
MAX_SEED = 1_000_000

EXAMPLES = """examples:
  python -m stress run isolation contention --agents 32 --faults kill,stop --seconds 60
  python -m stress run isolation shared-database --agents 32   the old design under the same load
  python -m stress run contention --faults all --seed 7         the same again: the seed is in every report
  python -m stress run isolation --break lost-ack              must fail: is the harness awake?
  python -m stress list                                        scenarios, faults and breaks, a line each
  python -m stress report stress-reports/LAST                  make the page anew from its report.json
"""


class _Terminated(BaseException):
    """SIGTERM ended the run, as `KeyboardInterrupt` says it of Ctrl-C."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # One line, and 1: 2 is a miss in this house.
        print(f"stress: {message}; '{self.prog} --help' has more", file=sys.stderr)
        raise SystemExit(ERROR)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=program,
        description="A fleet of agent processes, faults on purpose, a checked history.",
        epilog=EXAMPLES.replace("python -m stress", program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--debug", action="store_true", help="show where an internal error came from")
    commands = parser.add_subparsers(
        dest="command", required=True, parser_class=_Parser, metavar="run|list|report|table"
    )
    run = commands.add_parser(
        "run",
        help="play scenarios and judge them",
        epilog=EXAMPLES.replace("python -m stress", program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run.add_argument("scenarios", nargs="+", metavar="SCENARIO", help=f"one or more of: {', '.join(SCENARIOS)}")
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    run.add_argument("--agents", default=DEFAULT_AGENTS, help=f"processes (default {DEFAULT_AGENTS})", **number)
    run.add_argument("--addresses", help="addresses (default: what the scenario finds right)", **number)
    run.add_argument(
        "--seconds",
        type=float,
        default=DEFAULT_SECONDS,
        metavar="S",
        help=f"how long the agents of each scenario work (default {DEFAULT_SECONDS:g})",
    )
    run.add_argument("--faults", default="", metavar="A,B,...", help=f"any of: {', '.join(FAULTS)}; or all")
    run.add_argument(
        "--break",
        dest="breaks",
        default="",
        metavar="A,B,...",
        help=f"known faults put into the harness itself, each of which must be found: {', '.join(BREAKS)}",
    )
    run.add_argument("--seed", help="which operations and faults (default: by chance, and printed)", **number)
    run.add_argument(
        "--operations",
        default=DEFAULT_OPERATIONS,
        help=f"at most, of each agent (default {DEFAULT_OPERATIONS})",
        **number,
    )
    run.add_argument(
        "--mib",
        dest="mebibytes",
        default=DEFAULT_MEBIBYTES,
        help=f"at most, written by each agent (default {DEFAULT_MEBIBYTES})",
        **number,
    )
    run.add_argument("--root", metavar="DIR", help="an empty folder for the data (default: a temporary one)")
    run.add_argument("--report", metavar="DIR", help="where the report goes (default: stress-reports/TIME)")
    run.add_argument("--json", action="store_true", help="print the verdict as JSON")
    run.add_argument("--quiet", action="store_true", help="no progress")
    listing = commands.add_parser("list", help="list scenarios, faults and breaks", allow_abbrev=False)
    listing.add_argument("--json", action="store_true", help="as JSON")
    page = commands.add_parser("report", help="make the page anew from report.json", allow_abbrev=False)
    page.add_argument("folder", metavar="DIR", help="a folder with a report.json")
    table = commands.add_parser("table", help="print isolation beside shared-database as Markdown", allow_abbrev=False)
    table.add_argument("folder", metavar="DIR", help="a folder with a report.json of both")
    return parser


def _chosen(text: str, known: Sequence[str], what: str) -> tuple[str, ...]:
    """Return the names in a list with commas, each once; `all` is all of them."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["all"]:
        return tuple(known)
    for name in names:
        if name not in known:
            raise PlanError(f"there is no {what} {name!r}; there are: {', '.join(known)}")
    return tuple(dict.fromkeys(names))


def _free(option: str, given: str) -> Path:
    """Return a folder that is empty, or not there yet: nothing of anybody's is ever written over."""
    path = Path(given).resolve()
    try:
        is_free = not path.exists() or not any(path.iterdir())
    except OSError as error:
        raise PlanError(f"{option} {given} cannot be used: {error.strerror}") from error
    if not is_free:
        raise PlanError(f"{option} {given} is not empty; give a folder that is, or leave the option out")
    return path


def _make(option: str, path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise PlanError(f"{option} {path} cannot be made: {error.strerror}") from error
    return path


def _plan(args: argparse.Namespace, report: Path) -> Plan:
    for name in args.scenarios:
        if name not in SCENARIOS:
            raise PlanError(f"there is no scenario {name!r}; there are: {', '.join(SCENARIOS)}")
    plan = Plan(
        scenarios=tuple(dict.fromkeys(args.scenarios)),
        agents=args.agents,
        addresses=args.addresses,
        seconds=args.seconds,
        faults=_chosen(args.faults, tuple(FAULTS), "fault"),
        breaks=_chosen(args.breaks, tuple(BREAKS), "break"),
        seed=random.randrange(MAX_SEED) if args.seed is None else args.seed,
        operations=args.operations,
        mebibytes=args.mebibytes,
        report=str(report),
    )
    played = [SCENARIOS[name] for name in plan.scenarios]
    for scenario in played:
        scenario.addresses(plan)
    for name in plan.breaks:
        if not any(name in scenario.breaks for scenario in played):
            showing = [scenario.name for scenario in SCENARIOS.values() if name in scenario.breaks]
            raise PlanError(
                f"--break {name} cannot show in {', '.join(plan.scenarios)}; it can in {', '.join(showing)}"
            )
    return plan


def plan_of(words: Sequence[str]) -> Plan:
    """Return the plan that a line asks for, with nothing made or done yet. Raises `PlanError`."""
    args = _parser("stress").parse_args(words)
    return _plan(args, Path(args.report or ""))


def _do_run(args: argparse.Namespace) -> int:
    report = _free("--report", args.report or f"stress-reports/{datetime.now(UTC):%Y%m%d-%H%M%S}")
    given = _free("--root", args.root) if args.root else None
    if given is not None and (given == report or given in report.parents or report in given.parents):
        raise PlanError(f"--root {given} and --report {report} must lie beside each other, not one in the other")
    plan = _plan(args, report)
    _make("--report", report)
    root = _make("--root", given or Path(tempfile.mkdtemp(prefix="prontodb-stress-")).resolve())
    _forget_settings()
    keeps = False  # data that nobody has judged yet is worth nothing to whoever broke off
    try:
        data = anyio.run(_played, replace(plan, root=str(root)), args.quiet or args.json)
        keeps = data["verdict"] != OK_VERDICT
        (report / DATA).write_text(json.dumps(data, indent=1) + "\n")
        (report / PAGE).write_text(page(data), encoding="utf-8")
        _print(data, report, as_json=args.json)
    except Exception:
        keeps = True
        raise
    finally:
        shutil.rmtree(report / "scratch", ignore_errors=True)
        places = [place for place in (root, report / "data") if keeps and _has_files(place)]
        if given is None and root not in places:
            shutil.rmtree(root, ignore_errors=True)
        for place in places:
            print(f"stress: the data of this run stays in {place}", file=sys.stderr)
    return ERROR if keeps else OK


def _has_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))


def _forget_settings() -> None:
    """Take from the environment what is meant for the user's own root: a token or a secret would hold here, too."""
    for name in [name for name in os.environ if name.startswith("PRONTODB_")]:
        del os.environ[name]


async def _played(plan: Plan, is_quiet: bool) -> Data:
    """Play all scenarios and write the report; SIGTERM ends it as Ctrl-C does."""
    began_at = datetime.now(UTC)
    faults, skipped = _able(plan)
    scenes: list[Data] = []
    async with anyio.create_task_group() as group:
        await group.start(_end_on_sigterm, group.cancel_scope)
        with LiveLine(io.StringIO() if is_quiet else sys.stderr) as live:
            for name in plan.scenarios:
                stage = Stage.made(SCENARIOS[name], plan, faults, skipped)
                scenes.append(scenario_data(await play(stage, live.show)))
        group.cancel_scope.cancel()
    if len(scenes) < len(plan.scenarios):
        raise _Terminated
    return run_data(
        plan,
        scenes,
        promises=PROMISES,
        began_at=began_at,
        machine=machine(Path(plan.root)),
        versions=versions(),
    )


async def _end_on_sigterm(
    scope: anyio.CancelScope, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()


def _able(plan: Plan) -> tuple[list[Fault], dict[str, str]]:
    """Return the faults that this machine can make, and why it cannot make the others."""
    able: list[Fault] = []
    skipped: dict[str, str] = {}
    for name in plan.faults:
        fault = FAULTS[name]()
        reason = fault.why_not()
        if reason is None:
            able.append(fault)
        else:
            skipped[name] = reason
            print(f"stress: fault {name} is skipped: {reason}", file=sys.stderr)
    return able, skipped


def _print(data: Data, report: Path, *, as_json: bool) -> None:
    if not as_json:
        print(summary(data, colour=wants_colour(sys.stdout)))
        print(f"report: {report / PAGE}")
        return
    said = {name: data[name] for name in ("verdict", "seed", "command", "promises", "comparison")}
    scenarios = [
        {name: one[name] for name in ("name", "operations", "ok", "failed", "unknown", "checks", "violations")}
        for one in data["scenarios"]
    ]
    print(json.dumps({**said, "scenarios": scenarios, "report": str(report)}))


def _do_list(args: argparse.Namespace) -> int:
    faults = {name: make().why_not() for name, make in FAULTS.items()}
    if args.json:
        told = {
            "scenarios": {name: one.question for name, one in SCENARIOS.items()},
            "faults": {name: {"here": why is None, "why_not": why} for name, why in faults.items()},
            "breaks": {name: {"check": check, "does": does} for name, (check, does) in BREAKS.items()},
        }
        print(json.dumps(told))
        return OK
    width = max(map(len, (*SCENARIOS, *FAULTS, *BREAKS)))
    print("scenarios")
    for name, scenario in SCENARIOS.items():
        print(f"  {name:{width}}  {scenario.question}")
    print("faults")
    for name, why in faults.items():
        about = (FAULTS[name]().__class__.__doc__ or "").partition("\n")[0]
        print(f"  {name:{width}}  {about if why is None else f'not on this machine: {why}'}")
    print("breaks, and the check that must find each")
    for name, (check, does) in BREAKS.items():
        print(f"  {name:{width}}  {check}: {does}")
    return OK


def _do_report(args: argparse.Namespace) -> int:
    folder = Path(args.folder)
    data = _read(folder)
    try:
        (folder / PAGE).write_text(page(data), encoding="utf-8")
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise PlanError(f"{folder / DATA} is not what the harness wrote: {type(error).__name__} {error}") from error
    except OSError as error:
        raise PlanError(f"{folder / PAGE} cannot be written: {error.strerror}") from error
    print(folder / PAGE)
    return OK


def _read(folder: Path) -> Data:
    try:
        data: Data = json.loads((folder / DATA).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PlanError(f"{folder / DATA} cannot be read: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise PlanError(f"{folder / DATA} is no report of this harness, or of another version of it")
    return data


def _do_table(args: argparse.Namespace) -> int:
    data = _read(Path(args.folder))
    if data.get("comparison") is None:
        raise PlanError(f"{args.folder} has nothing side by side: that takes isolation and shared-database in one run")
    try:
        rows = markdown(data)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise PlanError(
            f"{args.folder}/{DATA} is not what the harness wrote: {type(error).__name__} {error}"
        ) from error
    print(rows)
    return OK


COMMANDS = {"run": _do_run, "list": _do_list, "report": _do_report, "table": _do_table}


def main(argv: Sequence[str] | None = None, program: str = "python -m stress") -> int:
    """Do what the command line says; return the exit code: 0, 1 for violations and errors, 130 and 143 on signals."""
    os.umask(0o077)
    args = _parser(program).parse_args(argv)
    try:
        return COMMANDS[args.command](args)
    except PlanError as error:
        print(f"stress: {error}", file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        return _stopped(signal.SIGINT)
    except _Terminated:
        return _stopped(signal.SIGTERM)
    except Exception as error:
        if args.debug:
            raise
        first = _first_of(error)
        print(f"stress: internal error ({type(first).__name__}: {first}); --debug says where", file=sys.stderr)
        return ERROR


def _stopped(number: signal.Signals) -> int:
    print("stress: stopped; no agent is left", file=sys.stderr)
    return 128 + number


def _first_of(error: BaseException) -> BaseException:
    """Return the first error of a group, however deep."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
