"""What the doctor says: findings with the command that heals each, and the report of one visit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

OK = "ok"
WARNING = "warning"
ERROR = "error"

REPAIR = "prontodb doctor --repair"
MEND = "mend what is named, then run 'prontodb doctor' again"
NEWER = "use a newer ProntoDB"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong: `level` is 'warning' or 'error', `fix` the one command or step that heals it."""

    level: str
    what: str
    fix: str


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """What was seen (`facts`, JSON-able), what is wrong still, and what was healed, a line each."""

    facts: dict[str, object]
    findings: tuple[Finding, ...]
    repaired: tuple[str, ...]

    @property
    def level(self) -> str:
        """The worst level found: 'ok', 'warning' or 'error'."""
        levels = {finding.level for finding in self.findings}
        return next((level for level in (ERROR, WARNING) if level in levels), OK)

    def as_dict(self) -> dict[str, object]:
        """Return the report as JSON-able fields."""
        return {
            "level": self.level,
            "facts": dict(self.facts),
            "findings": [asdict(finding) for finding in self.findings],
            "repaired": list(self.repaired),
        }


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding and, where it can be healed safely, the function that does it and says what it did."""

    finding: Finding
    heal: Callable[[], str] | None = None


def warning(what: str, fix: str, heal: Callable[[], str] | None = None) -> Problem:
    """Something that works still, and should not stay."""
    return Problem(Finding(WARNING, what, fix), heal)


def error(what: str, fix: str, heal: Callable[[], str] | None = None) -> Problem:
    """Something that does not work, or is not safe."""
    return Problem(Finding(ERROR, what, fix), heal)
