"""What the doctor's tests share: a visit, its findings, and where the first keystore lies."""

from pathlib import Path

from prontodb.doctor import DoctorReport, Finding, examine
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits


def visit(root: Path, *, repair: bool = False, deep: bool = False) -> DoctorReport:
    """The report of one visit."""
    return examine(Layout(str(root)), Limits(wait_s=0.2), Clock(), repair=repair, deep=deep)


def found(root: Path, *, deep: bool = False) -> list[Finding]:
    """The findings of a visit that only looks."""
    return list(visit(root, deep=deep).findings)


def only(findings: list[Finding] | tuple[Finding, ...]) -> Finding:
    """The one finding there is."""
    assert len(findings) == 1, findings
    return findings[0]


def keystore(root: Path) -> Path:
    """The keystore of agent1/prod."""
    return root / "addresses" / "agent1" / "prod" / "keystore.db"


def tree_of(root: Path) -> dict[str, tuple[int, int]]:
    """Every path with its mode and size: what a look must leave as it is, but for what names a lock's last holder."""
    passing = ("keystore.db-shm", "keystore.db-wal", "registry.lock")
    below = [path for path in root.rglob("*") if path.name not in passing]
    return {str(path): (path.lstat().st_mode, path.lstat().st_size) for path in below}
