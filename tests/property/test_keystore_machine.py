"""The handle against a dictionary with expiry: random calls through every engine, each answer compared."""

import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from prontodb.errors import NotANumberError, RevisionConflictError
from prontodb.keystore import Keystore
from prontodb.model.address import Address
from prontodb.model.key import namespace_of, project_of
from prontodb.model.limits import Limits
from prontodb.model.operation import Fence
from tests.checking import root_faults
from tests.conformance.engines import ENGINES, WallClock

HERE = Address("agent", "machine")

KEYS = st.sampled_from(["a", "b", "n.a", "n.b", "n.m.a", "p.n.a", "n~", "ü", "n.\U0010ffff", "\ue000.x"])
PREFIXES = st.sampled_from(["", "n", "n.", "n.m", "p.", "\U0010ffff", "\ud7ff", "ü", "none"])
VALUES = st.sampled_from(
    ["", "0", "41", "-7", "+3", "text", "ä\x00\n", "9" * 18, "9223372036854775807", "1" * 20, " 1"]
)
TTLS = st.sampled_from([None, None, None, 1, 0.25, "2s", "never"])
WHOLE = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
INFINITE = float("inf")


@dataclass(slots=True)
class Row:
    """What the model knows of an entry, expired or not."""

    value: str
    created: int
    updated: int
    expires: int | None
    revision: int


class Model:
    """The dictionary: rows, default lifetimes, the revision, and the time."""

    def __init__(self, clock: WallClock) -> None:
        self.clock = clock
        self.rows: dict[str, Row] = {}
        self.lifetimes: dict[str, int] = {}
        self.revision = 0

    def live(self, prefix: str = "") -> dict[str, Row]:
        now = self.clock.wall_ms()
        found = {k: row for k, row in self.rows.items() if row.expires is None or row.expires > now}
        return {key: found[key] for key in sorted(found) if key.startswith(prefix)}

    def expiry(self, key: str, ttl: object) -> int | None:
        now = self.clock.wall_ms()
        if ttl is None:
            lifetime = self.lifetimes.get(namespace_of(key))
            return None if lifetime is None else now + lifetime
        if ttl == "never":
            return None
        return now + (2_000 if ttl == "2s" else round(ttl * 1_000))  # type: ignore[operator]

    def put(self, key: str, value: str, expires: int | None) -> int:
        now, before = self.clock.wall_ms(), self.live().get(key)
        self.revision += 1
        self.rows[key] = Row(value, before.created if before else now, now, expires, self.revision)
        return self.revision

    def drop(self, key: str) -> bool:
        if key not in self.live():
            return False
        del self.rows[key]
        self.revision += 1
        return True


class KeystoreMachine(RuleBasedStateMachine):
    """Calls a `Keystore` and the model alike; `engine_name` says over which engine."""

    engine_name: ClassVar[str] = ""

    def __init__(self) -> None:
        super().__init__()
        self.closing = ExitStack()
        self.portal = self.closing.enter_context(start_blocking_portal("asyncio"))
        self.root = tempfile.mkdtemp(prefix="prontodb-machine-")
        self.clock = WallClock()
        self.model = Model(self.clock)

    @initialize()
    def open(self) -> None:
        self.engine = self.portal.call(ENGINES[self.engine_name], self.root, self.clock)
        self.portal.call(self.engine.create, HERE)
        self.keystore = self.handle("first")
        self.other = self.handle("other")

    def handle(self, name: str) -> Keystore:
        keyspace = self.portal.call(self.engine.keyspace, HERE)
        return Keystore(keyspace, HERE, Fence(name), Limits(), self.clock)

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.portal.call(self.engine.close)
        self.closing.close()
        faults = root_faults(self.root)
        shutil.rmtree(self.root)
        assert faults == []

    def call(self, work: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        async def now() -> Any:
            return await work(*args, **kwargs)

        return self.portal.call(now)

    # Writing

    @rule(key=KEYS, value=VALUES, ttl=TTLS)
    def set(self, key: str, value: str, ttl: Any) -> None:
        assert self.call(self.keystore.set, key, value, ttl=ttl) == self.model.put(
            key, value, self.model.expiry(key, ttl)
        )

    @rule(key=KEYS, value=VALUES, wrong=st.booleans())
    def set_if_at_a_revision(self, key: str, value: str, wrong: bool) -> None:
        row = self.model.live().get(key)
        expect = (row.revision if row else 0) + wrong
        if wrong:
            with pytest.raises(RevisionConflictError):
                self.call(self.keystore.set, key, value, expect=expect)
        else:
            revision = self.call(self.keystore.set, key, value, expect=expect)
            assert revision == self.model.put(key, value, self.model.expiry(key, None))

    @rule(values=st.dictionaries(KEYS, VALUES, max_size=4), ttl=TTLS)
    def set_many(self, values: dict[str, str], ttl: Any) -> None:
        revision = self.call(self.keystore.set_many, values, ttl=ttl)
        for key, value in values.items():
            self.model.put(key, value, self.model.expiry(key, ttl))
        assert revision == self.model.revision

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        assert self.call(self.keystore.delete, key) == self.model.drop(key)

    @rule(keys=st.lists(KEYS, max_size=4))
    def delete_many(self, keys: list[str]) -> None:
        assert self.call(self.keystore.delete_many, keys) == sum([self.model.drop(key) for key in keys])

    @rule(prefix=PREFIXES.filter(bool))
    def clear(self, prefix: str) -> None:
        gone = list(self.model.live(prefix))
        assert self.call(self.keystore.clear, prefix) == len(gone)
        for key in gone:
            self.model.drop(key)

    @rule(key=KEYS, by=st.sampled_from([1, -1, 0, 10**6, 2**63 - 1, -(2**63), 10**30]))
    def increment(self, key: str, by: int) -> None:
        row = self.model.live().get(key)
        start = row.value if row else "0"
        total = int(start) + by if WHOLE.fullmatch(start) else None
        if total is None or not -(2**63) <= total < 2**63:
            with pytest.raises(NotANumberError):
                self.call(self.keystore.increment, key, by)
            return
        assert self.call(self.keystore.increment, key, by) == total
        self.model.put(key, str(total), row.expires if row else self.model.expiry(key, None))

    @rule(key=KEYS, guess=st.none() | VALUES, value=VALUES, right=st.booleans(), ttl=TTLS)
    def compare_and_set(self, key: str, guess: str | None, value: str, right: bool, ttl: Any) -> None:
        row = self.model.live().get(key)
        held = row.value if row else None
        expected = held if right else guess
        assert self.call(self.keystore.compare_and_set, key, expected, value, ttl=ttl) == (held == expected)
        if held == expected:
            self.model.put(key, value, self.model.expiry(key, ttl))

    @rule(key=KEYS, ttl=TTLS)
    def touch(self, key: str, ttl: Any) -> None:
        row = self.model.live().get(key)
        assert self.call(self.keystore.touch, key, ttl) == (row is not None)
        if row is None:
            return
        expires = self.model.expiry(key, ttl)
        if ttl is None and namespace_of(key) not in self.model.lifetimes and row.expires is not None:
            # As long as it had when it last changed.
            expires = self.clock.wall_ms() + row.expires - row.updated
        self.model.put(key, row.value, expires)

    @rule(key=KEYS)
    def persist(self, key: str) -> None:
        row = self.model.live().get(key)
        assert self.call(self.keystore.persist, key) == (row is not None)
        if row is not None:
            self.model.put(key, row.value, None)

    @rule(namespace=st.sampled_from(["", "n", "n.m", "p.n"]), ttl=st.sampled_from([None, 1, "500ms"]))
    def namespace_ttl(self, namespace: str, ttl: Any) -> None:
        self.call(self.keystore.set_namespace_ttl, namespace, ttl)
        if ttl is not None:
            self.model.lifetimes[namespace] = 1_000 if ttl == 1 else 500
            self.model.revision += 1
        elif self.model.lifetimes.pop(namespace, None) is not None:
            self.model.revision += 1

    @rule(
        read=st.lists(KEYS, max_size=2),
        written=st.dictionaries(KEYS, st.none() | VALUES, max_size=3),
        disturbed=st.booleans(),
    )
    def transaction(self, read: list[str], written: dict[str, str | None], disturbed: bool) -> None:
        before = self.model.live()

        async def work() -> None:
            async with self.keystore.transaction() as tx:
                for key in read:
                    assert await tx.get(key) == (before[key].value if key in before else None)
                for key, value in written.items():
                    if value is None:
                        tx.delete(key)
                    else:
                        tx.set(key, value)
                    assert await tx.get(key) == value
                if disturbed and read:
                    await self.other.set(read[0], "disturbed", ttl="never")

        conflict = bool(disturbed and read)
        if conflict:
            with pytest.raises(RevisionConflictError):
                self.call(work)
        else:
            self.call(work)
        if disturbed and read:
            self.model.put(read[0], "disturbed", None)
        for key, value in written.items() if not conflict else ():
            if value is None:
                self.model.drop(key)
            else:
                self.model.put(key, value, self.model.expiry(key, None))

    @rule(key=KEYS, value=VALUES)
    def a_transaction_that_is_left_by_an_error_does_nothing(self, key: str, value: str) -> None:
        async def work() -> None:
            async with self.keystore.transaction() as tx:
                tx.set(key, value)
                raise KeyError

        with pytest.raises(KeyError):
            self.call(work)

    # Time

    @rule(seconds=st.sampled_from([0.001, 0.25, 0.5, 1, 2]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(limit=st.integers(1, 3))
    def sweep(self, limit: int) -> None:
        live = self.model.live()
        expired = sorted((row.expires or 0, key) for key, row in self.model.rows.items() if key not in live)
        keyspace = self.keystore._keyspace
        assert self.call(keyspace.sweep, limit, Fence("sweeper")) == len(expired[:limit])
        left = {key for key in self.model.rows if key in live}
        # Those that expired at one instant may go in any order: what stays expired is counted, not named.
        self.model.revision += len(expired[:limit])
        if len(expired) > limit:
            more = self.call(keyspace.sweep, 1_000, Fence("sweeper"))
            assert more == len(expired) - limit
            self.model.revision += more
        self.model.rows = {key: self.model.rows[key] for key in left}

    # Reading

    @rule(key=KEYS)
    def read_one(self, key: str) -> None:
        row = self.model.live().get(key)
        assert self.call(self.other.get, key) == (row.value if row else None)
        assert self.call(self.other.exists, key) == (row is not None)
        entry = self.call(self.other.entry, key)
        assert (entry is None) == (row is None)
        if row is not None:
            found = (entry.value, entry.created_at_ms, entry.updated_at_ms, entry.expires_at_ms, entry.revision)
            assert found == (row.value, row.created, row.updated, row.expires, row.revision)

    @rule(key=KEYS)
    def ttl(self, key: str) -> None:
        row, left = self.model.live().get(key), self.call(self.keystore.ttl, key)
        if row is None:
            assert left is None
        else:
            assert left == (INFINITE if row.expires is None else (row.expires - self.clock.wall_ms()) / 1_000)

    @rule(keys=st.lists(KEYS, max_size=4))
    def get_many(self, keys: list[str]) -> None:
        live = self.model.live()
        assert self.call(self.keystore.get_many, keys) == {k: live[k].value if k in live else None for k in keys}

    @precondition(lambda self: self.model.rows)
    @rule(prefix=PREFIXES)
    def lists(self, prefix: str) -> None:
        live = self.model.live(prefix)
        assert self.call(self.keystore.list_keys, prefix) == list(live)
        assert self.call(self.keystore.count, prefix) == len(live)

        async def scan() -> list[tuple[str, str]]:
            return [(entry.key, entry.value) async for entry in self.keystore.scan(prefix)]

        assert self.portal.call(scan) == [(key, row.value) for key, row in live.items()]

    @rule()
    def names(self) -> None:
        live = self.model.live()
        assert self.call(self.keystore.namespaces) == sorted({namespace_of(key) for key in live})
        assert self.call(self.keystore.projects) == sorted({project_of(key) for key in live} - {""})
        assert self.call(self.keystore.namespaces, "n") == sorted(
            {namespace_of(key) for key in live if key.startswith("n.m.")}
        )
        found = self.call(self.keystore.namespace_ttls)
        assert found == {name: ms / 1_000 for name, ms in self.model.lifetimes.items()}

    @invariant()
    def all_entries_are_the_models(self) -> None:
        if not hasattr(self, "keystore"):
            return
        live = self.model.live()
        assert self.call(self.keystore.get_many, list(live)) == {key: row.value for key, row in live.items()}
        assert self.call(self.keystore.count) == len(live)
        assert self.call(self.keystore._keyspace.position).revision == self.model.revision


@pytest.mark.slow
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_keystore_behaves_like_a_dictionary_with_expiry(engine: str) -> None:
    machine = type("Machine", (KeystoreMachine,), {"engine_name": engine})
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=30, deadline=None))
