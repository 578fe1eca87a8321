"""Clocks, moments of entries, positions as text, and the paths below a root."""

import time
from datetime import UTC, datetime, timedelta

from prontodb.model.address import Address
from prontodb.model.clock import Clock, ManualClock
from prontodb.model.entry import Entry, moment
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from prontodb.model.operation import Position


def test_the_machines_clock_shows_the_machines_time() -> None:
    clock = Clock()
    before = time.time_ns() // 1_000_000
    assert before <= clock.wall_ms() <= time.time_ns() // 1_000_000
    assert clock.monotonic_s() <= clock.monotonic_s()


def test_a_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(1_000)
    assert (clock.wall_ms(), clock.monotonic_s()) == (1_000, 0.0)
    clock.advance(1.5)
    assert (clock.wall_ms(), clock.monotonic_s()) == (2_500, 1.5)
    clock.set_wall_ms(7)
    assert (clock.wall_ms(), clock.monotonic_s()) == (7, 1.5)


def test_moments_are_aware_and_exact_in_any_century() -> None:
    assert moment(0) == datetime(1970, 1, 1, tzinfo=UTC)
    assert moment(1_700_000_000_123) == datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC)
    assert moment(-1) == datetime(1970, 1, 1, tzinfo=UTC) - timedelta(milliseconds=1)
    entry = Entry("k", "v", 0, 1_000, None, 1)
    assert entry.updated_at - entry.created_at == timedelta(seconds=1)
    assert entry.expires_at is None
    assert Entry("k", "v", 0, 0, 5, 1).expires_at == moment(5)


def test_a_moment_that_no_calendar_has_comes_as_the_nearest_one() -> None:
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(microsecond=999_000, tzinfo=UTC)
    for at_ms, nearest in ((-(2**63), first), (-(10**400), first), (2**63 - 1, last), (10**400, last)):
        assert moment(at_ms) == nearest
        entry = Entry("k", "v", at_ms, at_ms, at_ms, 1)
        assert entry.created_at == entry.updated_at == entry.expires_at == nearest
    for at_ms in (-62_135_596_800_000, 253_402_300_799_999):
        assert (moment(at_ms) - moment(0)) // timedelta(milliseconds=1) == at_ms


def test_a_position_has_a_text_form() -> None:
    assert str(Position("abc", 7)) == "abc:7"


def test_paths_lie_where_the_design_says() -> None:
    layout, address = Layout("/data"), Address("agent1", "prod")
    assert layout.keystore_path(address) == "/data/addresses/agent1/prod/keystore.db"
    assert layout.path(*layout.lock_parts(address)) == "/data/registry/locks/agent1@prod"
    # A lock of creation is shared by twins, and meets no address's lock: '@' is in no name.
    assert layout.creation_lock_parts("Agent1") == layout.creation_lock_parts("agent1")
    taken = {layout.lock_parts(address), layout.creation_lock_parts("agent1"), layout.registry_lock_parts()}
    assert len(taken) == 3


def test_limits_have_the_documented_defaults() -> None:
    limits = Limits()
    assert (limits.max_key_bytes, limits.max_value_bytes, limits.max_batch_ops) == (1_024, 16 * 2**20, 1_000)
    assert (limits.max_batch_bytes, limits.max_page, limits.wait_s) == (32 * 2**20, 1_000, 5.0)
