"""Events: silent by default, named, one a line, JSON on request, and never a value."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prontodb import log
from prontodb.errors import RevisionConflictError
from prontodb.model.address import Address
from tests.managing import managed, ran

SECRET = "s3cret-value"


@pytest.fixture(autouse=True)
def quiet_afterwards() -> Iterator[None]:
    """Whatever a test switched on is off when it is over."""
    yield
    log.disable()


async def use_everything(root: Path) -> None:
    async with managed(root, max_open_keystores=1) as manager:
        async with manager.session("agent", "test") as ks:
            await ks.set("token", SECRET, ttl=60)
            await ks.set_many({f"k\u2028{n}": SECRET for n in range(3)})
            with pytest.raises(RevisionConflictError):
                await ks.set("token", SECRET, expect=99)
            await ks.compare_and_set("token", SECRET, SECRET * 2)
            async with ks.transaction() as tx:
                tx.set("other", SECRET)
        await manager.copy("agent/test", "agent/copy")
        await manager.import_lines("agent/in", [line async for line in manager.export("agent/test")])
        await manager.rename("agent/copy", "agent/moved")
        await manager.delete("agent/moved")


async def test_nothing_is_said_unless_asked_for(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    await use_everything(root)
    assert capfd.readouterr() == ("", "")


async def test_events_are_named_and_never_hold_a_value(root: Path) -> None:
    stream = io.StringIO()
    log.enable(stream, as_json=True)
    await use_everything(root)
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    names = [event["event"] for event in events]
    for name in (
        "manager.opened",
        "address.created",
        "keystore.opened",
        "session.opened",
        "session.closed",
        "address.renamed",
        "address.deleted",
        "manager.closed",
    ):
        assert name in names, name
    assert names[0] == "manager.opened"
    assert names[-1] == "manager.closed"
    assert all("timestamp" in event for event in events)
    opened = events[names.index("session.opened")]
    assert (opened["address"], opened["session"][:2]) == ("agent/test", "s-")
    assert SECRET not in stream.getvalue()


async def test_readable_events_hold_no_value_either(root: Path) -> None:
    stream = io.StringIO()
    log.enable(stream)
    await use_everything(root)
    assert SECRET not in stream.getvalue()
    assert "address.created" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("as_json", [True, False])
def test_an_event_is_one_line_whatever_it_holds(as_json: bool) -> None:
    stream = io.StringIO()
    log.enable(stream, as_json=as_json)
    hostile = "line\nforged=1\r\x1b[31mred\x00\u2028\u202e\udcff end"
    log.event("thing.happened", text=hostile, thing=Address("a"), number=5, nothing=None)
    written = stream.getvalue()
    assert len(written.splitlines()) == 1
    assert written.endswith("\n")
    assert written.isascii()
    for unwanted in ("\x1b", "\r", "\x00"):
        assert unwanted not in written
    assert "\\n" in written
    assert "a/_default" in written


def test_an_application_may_take_events_itself() -> None:
    seen: list[tuple[str, dict[str, object]]] = []
    log.use(lambda name, **fields: seen.append((name, fields)))
    log.event("thing.happened", address=Address("a"), number=1)
    assert seen == [("thing.happened", {"address": Address("a"), "number": 1})]
    log.disable()
    log.event("thing.happened")
    assert len(seen) == 1


async def test_a_log_that_cannot_be_written_stops_no_work(root: Path) -> None:
    stream = io.StringIO()
    log.enable(stream, as_json=True)
    stream.close()
    await use_everything(root)


async def test_a_log_of_a_narrow_encoding_stops_no_work(root: Path) -> None:
    raw = io.BytesIO()
    log.enable(io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    log.event("thing.happened", text="ä€𝄞")
    await use_everything(root)
    assert b"manager.closed" in raw.getvalue()


def test_structlog_is_imported_only_for_those_who_ask() -> None:
    text = "import sys, prontodb.log; prontodb.log.event('x'); print('structlog' in sys.modules)"
    assert ran(text) == "False\n"
    assert "structlog" not in vars(sys.modules["prontodb.log"])
