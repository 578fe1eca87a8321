"""The one gate, by hand and in CI: format, lint, types, floors, leaks, tests; exit 1 when any fails."""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("prontodb", "stress", "benchmarks", "ops", "tests")  # those that exist are type-checked

# Written in pieces, so that this file passes its own check.
REGISTRY_HOSTS = (
    "pypi" + ".org",
    "python" + "hosted.org",
    "ana" + "conda.org",
    "npm" + "js.org",
    "crates" + ".io",
)
MACHINE_PATH = re.compile(r"""(?:^|[\s"'`=:(\[,])(/(?:root|work|opt)/[\w.-]+|\S*/\.py""" + r"""env/\S+)""")

# The two halves of the tests, of about the same time. What a second run with `--encrypted` lists are the suites of
# every feature that must work on encrypted addresses as on others.
WAITING = ("tests/integration", "tests/crash")
ENCRYPTED = (
    "tests/conformance",
    *(f"tests/integration/test_backup{part}.py" for part in ("", "_history", "_restore")),
    *(f"tests/integration/test_sessions{part}.py" for part in ("", "_closing", "_ended", "_hostile", "_shared")),
    *(f"tests/integration/test_{part}.py" for part in ("healing", "jobs", "manager", "migration_apply", "run")),
    *(f"tests/unit/test_{part}.py" for part in ("copying", "transfer")),
    *(f"tests/unit/cli/test_{part}.py" for part in ("backups", "restoring")),
    "tests/unit/doctor",
    *(f"tests/crash/test_{part}kill.py" for part in ("", "backup_", "migration_")),
)
LANES: dict[str, tuple[tuple[str, ...], ...]] = {
    "waiting": (WAITING, ("--encrypted", *ENCRYPTED)),
    "rest": (("tests", "benchmarks", *(f"--ignore={folder}" for folder in WAITING)),),
}

Outcome = tuple[bool, str]  # passed, and what there is to say when not


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line asked for."""

    fast: bool
    pytest_args: tuple[str, ...]


def run_tool(*command: str) -> Outcome:
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode == 0, done.stdout


def run_module(*args: str) -> Outcome:
    # By this interpreter, never by whatever the path has: what is checked is what is installed beside us.
    return run_tool(sys.executable, "-m", *args)


def check_format(_: Choice) -> Outcome:
    return run_module("ruff", "format", "--check", "--quiet", "--diff", ".")


def check_lint(_: Choice) -> Outcome:
    return run_module("ruff", "check", "--quiet", ".")


def check_types(_: Choice) -> Outcome:
    folders = [name for name in SOURCES if any((ROOT / name).rglob("*.py"))]
    return run_module("mypy", "--no-error-summary", *folders)


def check_floors(_: Choice) -> Outcome:
    # import-linter has no __main__; its program lies beside this interpreter.
    return run_tool(str(Path(sys.executable).with_name("lint-imports")), "--no-logo")


def check_leaks(_: Choice) -> Outcome:
    """No file names a package registry's host or a path of the machine it was written on."""
    # New files count as much as tracked ones: they are the next commit.
    # CI often checks out as one user and runs as another, which git calls dubious.
    git = ("git", "-c", f"safe.directory={ROOT}")
    command = (*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        return False, f"git ls-files failed: {listed.stderr}"
    leaks = [
        f"{path}:{number}: {leak}\n"
        for path in sorted(set(listed.stdout.split("\0")) - {""})
        if (ROOT / path).is_file()
        for number, line in enumerate((ROOT / path).read_text(errors="replace").splitlines(), 1)
        for leak in leaks_in(line)
    ]
    return not leaks, "".join(leaks)


def leaks_in(line: str) -> list[str]:
    return [host for host in REGISTRY_HOSTS if host in line.lower()] + MACHINE_PATH.findall(line)


def check_tests(choice: Choice) -> Outcome:
    selection = ("-m", "not slow and not crash") if choice.fast else ()
    if choice.pytest_args:  # the run that somebody asked for, shown as it goes
        command = [sys.executable, "-m", "pytest", *selection, *choice.pytest_args]
        return subprocess.run(command, cwd=ROOT, check=False).returncode == 0, ""
    sys.path.insert(0, str(ROOT))
    from ops.lanes import run_lanes

    lanes = {name: [(*selection, *run) for run in runs] for name, runs in LANES.items()}
    return run_lanes(lanes, ROOT), ""


STEPS: dict[str, Callable[[Choice], Outcome]] = {
    "format": check_format,
    "lint": check_lint,
    "types": check_types,
    "floors": check_floors,
    "leaks": check_leaks,
    "tests": check_tests,
}


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="check.py", description=__doc__)
    parser.add_argument("--fix", action="store_true", help="format and repair what ruff can, then check")
    parser.add_argument("--fast", action="store_true", help="leave out tests marked slow or crash")
    parser.add_argument("--only", action="append", choices=STEPS, metavar="STEP", help=f"one of: {', '.join(STEPS)}")
    parser.add_argument("pytest_args", nargs="*", metavar="-- ARGS", help="handed to pytest")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    args = parse(argv)
    choice = Choice(fast=args.fast, pytest_args=tuple(args.pytest_args))
    if args.fix:
        run_module("ruff", "check", "--quiet", "--fix", ".")
        run_module("ruff", "format", "--quiet", ".")

    failed = []
    started_at = time.monotonic()
    for name in args.only or STEPS:
        step_at = time.monotonic()
        passed, said = STEPS[name](choice)
        if not passed:
            failed.append(name)
            print(said.rstrip())
        print(f"{name:8}{'ok' if passed else 'FAILED':8}{time.monotonic() - step_at:6.1f} s", flush=True)

    verdict = f"FAILED in {', '.join(failed)}" if failed else "ok"
    print(f"check: {verdict} ({time.monotonic() - started_at:.1f} s)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
