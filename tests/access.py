"""Roots with access rules in force, and managers that say who asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from prontodb.composition import open_manager
from prontodb.manager import SessionManager
from prontodb.model.access import Grant
from prontodb.model.layout import Layout
from prontodb.model.settings import Settings
from prontodb.registry import grants
from prontodb.storage import connection as sqlite

RELAXED = Settings(durability="relaxed")
OPERATOR = Grant("operator", "*", "", "read,write,admin")


def rule(root: Path, *more: Grant) -> None:
    """Put rules in force: those of the operator, and `more`."""
    layout = Layout(str(root))
    for grant in (OPERATOR, *more):
        grants.add(layout, grant, principal="operator", wait_s=5)


@asynccontextmanager
async def opened(root: Path, principal: str | None = None, **options: Any) -> AsyncIterator[SessionManager]:
    """Open a manager for a principal."""
    async with open_manager(str(root), settings=RELAXED, principal=principal, **options) as manager:
        yield manager


def authors(root: Path, address: str) -> list[str]:
    """Who the journal of an address says wrote, in order."""
    connection = sqlite.connect(str(root / "addresses" / address / "keystore.db"))
    try:
        return [row[0] for row in sqlite.rows(connection, "SELECT session FROM journal ORDER BY rev")]
    finally:
        connection.close()


@pytest.fixture(autouse=True)
def no_principal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the environment say nothing of who asks."""
    for name in ("PRONTODB_PRINCIPAL", "PRONTODB_TOKEN", "PRONTODB_SESSION"):
        monkeypatch.delenv(name, raising=False)
