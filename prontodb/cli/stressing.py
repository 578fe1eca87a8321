"""stress: the door to the harness that ships beside the product."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from prontodb.cli import output
from prontodb.cli.parsing import Args, Syntax
from prontodb.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Main = Callable[[Sequence[str], str], int]

SYNTAX = {
    "stress": Syntax(
        ("ACTION...",),
        about=(
            "Plays scenarios with a fleet of agent processes in a root of their own (a temporary one, or --root), "
            "makes faults on purpose, checks every recorded operation afterwards and writes a report to look at. Your "
            "own root is never touched. Exit 1 when a promise did not hold.\n"
            "ACTION is run SCENARIO..., list, or report DIR; what follows `stress` is the harness's own: "
            "'prontodb stress run --help' has all options."
        ),
        examples=(
            ("prontodb stress list", "scenarios, faults, and which of them this machine can make"),
            (
                "prontodb stress run isolation contention --agents 8 --seconds 20 --faults kill,stop",
                "do they hold here?",
            ),
        ),
    ),
}
PROGRAM = "prontodb stress"
INSTALLED, BESIDE = "prontodb_stress", "stress"


def do_stress(args: Args) -> int:
    """Hand everything on to the harness."""
    words = args.words("ACTION")
    for option in ("--json", "--quiet"):
        words += [option] if args.flag(option) else []
    root = args.text("--root")
    words += [] if root is None else ["--root", root]
    output.flush()
    return _harness()(words, PROGRAM)


def _harness() -> Main:
    # In a checkout what is installed may be older than what lies beside us.
    is_checkout = (Path(__file__).parents[2] / BESIDE / "fleet.py").is_file()
    try:
        main: Main = import_module(f"{BESIDE if is_checkout else INSTALLED}.command").main
    except ModuleNotFoundError as error:
        if error.name not in (BESIDE, INSTALLED):
            raise
        raise UnavailableError("the stress harness is not installed; install prontodb from its wheel") from error
    return main
