"""Backups against snapshots of the source: random work, random backups, and each one restored row for row."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from prontodb.engine.sqlite import writing
from prontodb.engine.sqlite.opening import open_writer
from prontodb.engine.sqlite.upkeep import Pruning, Rule
from prontodb.model.address import Address
from prontodb.model.limits import Limits
from prontodb.model.operation import Fence
from tests.backups import Root, states_at
from tests.checking import keystore_faults
from tests.unit.stores import done

ADDRESSES = st.sampled_from(["a/x", "a/y", "b/x"])
KEYS = st.sampled_from(["a", "b", "c", "n.a", "n.b", "p.n.a", "ü", "n.\U0010ffff"])
VALUES = st.sampled_from(["", "0", "41", "text", "ä\x00\n", "x" * 3_000])
TTLS = st.sampled_from([None, None, 1, 3, "never"])
SCOPES = st.sampled_from([{}, {}, {}, {"user": "a"}, {"user": "a", "cursor": "x"}])
SWEEPER = Fence("sweeper")


class BackupMachine(RuleBasedStateMachine):
    """Works on three addresses, and keeps beside each backup what its scope held at that moment."""

    def __init__(self) -> None:
        super().__init__()
        self.above = Path(tempfile.mkdtemp(prefix="prontodb-machine-"))
        (self.above / "root").mkdir(mode=0o700)
        self.root = Root(self.above / "root")
        self.made: dict[str, dict[str, Any]] = {}

    def teardown(self) -> None:
        try:
            self.root.stores.close()
            if self.made:
                assert self.root.verify().problems == ()
            assert sorted(self.root.ids()) == sorted(self.made)
            for backup, states in self.made.items():
                self.compare(backup, states)
        finally:
            self.root.close()
            shutil.rmtree(self.above)

    def compare(self, backup: str, states: dict[str, Any]) -> None:
        """A backup restored into a root of its own is what there was."""
        into = self.above / "into"
        if states:
            assert self.root.restore(backup, into=str(into)).failed == ()
            found = states_at(into)
            for name in found:
                assert keystore_faults(str(into), Address.parse(name)) == []
            shutil.rmtree(into)
            assert found.keys() == states.keys()
            for name in found:
                for table in ("entries", "lifetimes"):
                    assert found[name][table] == states[name][table], (backup, name, table)
                # Rows of the journal that were pruned since the snapshot are there still in what it carries.
                length = len(states[name]["journal"])
                assert found[name]["journal"][len(found[name]["journal"]) - length :] == states[name]["journal"]

    def there(self, address: str) -> bool:
        return self.root.lifecycle.exists(Address.parse(address))

    # Work

    @rule(address=ADDRESSES, key=KEYS, value=VALUES, ttl=TTLS)
    def set(self, address: str, key: str, value: str, ttl: Any) -> None:
        done(self.root.at(address).set(key, value, ttl=ttl))

    @rule(address=ADDRESSES, values=st.dictionaries(KEYS, VALUES, min_size=1, max_size=5), ttl=TTLS)
    def set_many(self, address: str, values: dict[str, str], ttl: Any) -> None:
        done(self.root.at(address).set_many(values, ttl=ttl))

    @rule(address=ADDRESSES, keys=st.lists(KEYS, min_size=1, max_size=3, unique=True))
    def delete(self, address: str, keys: list[str]) -> None:
        done(self.root.at(address).delete_many(keys))

    @rule(address=ADDRESSES, key=KEYS, ttl=TTLS)
    def touch(self, address: str, key: str, ttl: Any) -> None:
        done(self.root.at(address).touch(key, ttl))

    @rule(address=ADDRESSES, namespace=st.sampled_from(["", "n", "p.n"]), ttl=st.sampled_from([None, 1, 5]))
    def namespace_ttl(self, address: str, namespace: str, ttl: Any) -> None:
        done(self.root.at(address).set_namespace_ttl(namespace, ttl))

    @rule(address=ADDRESSES, written=st.dictionaries(KEYS, st.none() | VALUES, min_size=1, max_size=4))
    def transaction(self, address: str, written: dict[str, str | None]) -> None:
        keystore = self.root.at(address)

        async def work() -> None:
            async with keystore.transaction() as tx:
                for key, value in written.items():
                    if value is None:
                        tx.delete(key)
                    else:
                        tx.set(key, value)

        done(work())

    @rule(old=ADDRESSES, new=ADDRESSES, key=KEYS)
    def copy(self, old: str, new: str, key: str) -> None:
        value = done(self.root.at(old).get(key))
        if value is not None:
            done(self.root.at(new).set(key, value))

    @rule(seconds=st.sampled_from([0.5, 1, 2]))
    def time_passes(self, seconds: float) -> None:
        self.root.clock.advance(seconds)

    def over_a_writer(self, address: str, work: Any) -> None:
        connection, target = open_writer(self.root.layout, Address.parse(address), Limits(), busy_timeout_ms=1_000)
        try:
            work(connection, target)
        finally:
            connection.close()

    @precondition(lambda self: self.there("a/x"))
    @rule()
    def sweep(self) -> None:
        now_ms = self.root.clock.wall_ms()
        self.over_a_writer("a/x", lambda c, target: writing.sweep(c, target, 100, SWEEPER, now_ms))

    @precondition(lambda self: self.there("a/x"))
    @rule(keep=st.integers(0, 3))
    def prune_journal(self, keep: int) -> None:
        """As a compaction that heeds no backup would: the next increment must notice."""
        now_ms = self.root.clock.wall_ms()
        chosen = Rule(before_ms=0, keep_records=keep, until_revision=None)
        self.over_a_writer("a/x", lambda c, target: Pruning(chosen).step(c, target, SWEEPER, now_ms))

    @rule(address=ADDRESSES)
    def delete_address(self, address: str) -> None:
        self.root.stores.close()
        self.root.lifecycle.delete(Address.parse(address))

    @precondition(lambda self: self.there("a/x") and not self.there("a/y"))
    @rule()
    def rename(self) -> None:
        self.root.stores.close()
        self.root.lifecycle.rename(Address("a", "x"), Address("a", "y"))

    # Backups

    @rule(full=st.sampled_from([True, False, False, False]), scope=SCOPES)
    def backup(self, full: bool, scope: dict[str, str]) -> None:
        prefix = "/".join(scope.values())
        states = {
            name: state for name, state in self.root.states().items() if prefix in ("", name, name.partition("/")[0])
        }
        if prefix and not states:
            return  # which may be refused
        report = self.root.backup(full=full, **scope)
        assert report.failed == ()
        if report.id is not None:
            self.made[report.id] = states
        elif report.parent is not None:
            # Nothing was made since nothing changed: but for what was pruned.
            assert {n: s["entries"] for n, s in states.items()} == {
                n: s["entries"] for n, s in self.made[report.parent].items()
            }

    @precondition(lambda self: self.made)
    @rule(address=ADDRESSES, values=st.dictionaries(KEYS, VALUES, min_size=1, max_size=2))
    def changed_and_backed_up(self, address: str, values: dict[str, str]) -> None:
        self.set_many(address, values, None)
        self.backup(False, {})

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        backup = data.draw(st.sampled_from(sorted(self.made)))
        states = self.made[backup]
        if not states:
            return
        name = data.draw(st.sampled_from(sorted(states)))
        self.root.stores.close()
        self.root.restore(backup, user=name.partition("/")[0], cursor=name.partition("/")[2])
        assert self.root.state(name)["entries"] == states[name]["entries"]

    @rule(address=ADDRESSES)
    def undo(self, address: str) -> None:
        wanted = Address.parse(address)
        if wanted in self.root.work.undoable():
            self.root.stores.close()
            self.root.work.undo_restore(wanted)


@pytest.mark.slow
def test_every_backup_is_what_there_was_at_its_moment() -> None:
    run_state_machine_as_test(BackupMachine, settings=settings(max_examples=12, stateful_step_count=25, deadline=None))
