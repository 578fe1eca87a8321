"""Copying entries between addresses: what is kept, what is refused, and that nothing is half done."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from prontodb.copying import FIRST_READ, copy_key, copy_many
from prontodb.direct import OneShot
from prontodb.errors import (
    BusyError,
    ClosedError,
    ConflictError,
    FencedError,
    InvalidInputError,
    InvalidKeyError,
    RevisionConflictError,
)
from prontodb.keystore import Keystore
from prontodb.model.address import Address
from prontodb.model.limits import Limits
from prontodb.model.reports import CopyReport
from tests.checking import keystore_faults
from tests.unit.stores import Stores, done, expiries, values

THREE_A_BATCH = Limits(max_batch_ops=3, max_page=2, wait_s=0)


@pytest.fixture
def stores(root: Path) -> Iterator[Stores]:
    found = Stores(str(root))
    yield found
    found.close()
    for user in sorted(os.listdir(root / "addresses")):
        for cursor in sorted(os.listdir(root / "addresses" / user)):
            assert keystore_faults(str(root), Address(user, cursor)) == []


def filled(stores: Stores, count: int, address: str = "a/source", limits: Limits | None = None) -> Keystore:
    keystore = stores.at(address, limits=limits)
    done(keystore.set_many({f"k{number:03}": str(number) for number in range(count)}))
    return keystore


# One key


def test_a_copy_keeps_the_value_and_the_moment_of_expiry(stores: Stores) -> None:
    source, target = stores.at("a/source"), stores.at("b/target")
    done(source.set("key", "välue\n", ttl=60))
    stores.clock.advance(20)
    assert done(copy_key(source, "key", target, "other")) is True
    entry, original = done(target.entry("other")), done(source.entry("key"))
    assert entry is not None
    assert original is not None
    assert (entry.value, entry.expires_at_ms) == ("välue\n", original.expires_at_ms)
    stores.clock.advance(40)
    assert done(target.get("other")) is None


def test_a_copy_without_expiry_does_not_take_the_default_lifetime_of_its_new_namespace(
    stores: Stores,
) -> None:
    source, target = stores.at("a/source"), stores.at("b/target")
    done(target.set_namespace_ttl("cache", 5))
    done(source.set("cache.key", "kept"))
    done(copy_key(source, "cache.key", target, "cache.key"))
    done(source.set("cache.second", "kept"))
    done(copy_many(source, target, keys=["cache.second"]))
    assert expiries(target) == {"cache.key": None, "cache.second": None}


def test_copying_an_absent_or_expired_key_says_so_and_makes_no_address(stores: Stores, root: Path) -> None:
    source, target = stores.at("a/source"), stores.at("b/target")
    done(source.set("old", "value", ttl=1))
    stores.clock.advance(2)
    assert done(copy_key(source, "old", target, "old")) is False
    assert done(copy_key(source, "never", target, "never")) is False
    assert done(copy_many(source, target, keys=["old", "never"])) == CopyReport(absent=2)
    assert done(copy_many(source, target)) == CopyReport()
    assert not (root / "addresses" / "b").exists()


def test_a_copy_overwrites_only_when_told(stores: Stores) -> None:
    source, target = stores.at("a/source"), stores.at("b/target")
    done(source.set("key", "new"))
    done(target.set("key", "old"))
    with pytest.raises(RevisionConflictError):
        done(copy_key(source, "key", target, "key"))
    assert values(target) == {"key": "old"}
    assert done(copy_key(source, "key", target, "key", overwrite=True)) is True
    assert values(target) == {"key": "new"}


def test_an_expired_entry_in_the_target_is_no_conflict(stores: Stores) -> None:
    source, target = stores.at("a/source"), stores.at("b/target")
    done(target.set("key", "old", ttl=1))
    stores.clock.advance(2)
    done(source.set("key", "new"))
    assert done(copy_key(source, "key", target, "key")) is True
    assert values(target) == {"key": "new"}


def test_within_one_address_a_key_is_copied_to_another_but_not_onto_itself(stores: Stores) -> None:
    keystore = filled(stores, 1)
    assert done(copy_key(keystore, "k000", keystore, "twin")) is True
    assert values(keystore) == {"k000": "0", "twin": "0"}
    for overwrite in (False, True):
        with pytest.raises(InvalidInputError, match="onto itself"):
            done(copy_key(keystore, "k000", keystore, "k000", overwrite=overwrite))


def test_a_new_key_that_is_none_is_refused_before_anything_is_read(stores: Stores) -> None:
    source, target = stores.at("a/source"), stores.at("b/target")
    done(source.set("key", "value"))
    with pytest.raises(InvalidKeyError):
        done(copy_key(source, "absent", target, "line\nend"))


def test_the_handles_of_the_command_line_can_copy(root: Path) -> None:
    with OneShot(str(root), Address("a")) as source, OneShot(str(root), Address("b")) as target:
        done(source.set("key", "value"))
        assert done(copy_key(source, "key", target, "key")) is True
        assert done(copy_many(source, target, on_conflict="replace")) == CopyReport(copied=1, batches=1)
        assert done(target.get("key")) == "value"


# Many keys


def test_a_prefix_is_literal_and_copies_only_what_begins_with_it(stores: Stores) -> None:
    source, target = stores.at("a/source"), stores.at("b/target")
    done(source.set_many({"app.a": "1", "app%": "2", "apple": "3", "b": "4"}))
    assert done(copy_many(source, target, prefix="app.")) == CopyReport(copied=1, batches=1)
    assert values(target) == {"app.a": "1"}
    done(copy_many(source, target, prefix="app%"))
    assert values(target) == {"app.a": "1", "app%": "2"}


def test_named_keys_are_copied_once_each_and_missing_ones_counted(stores: Stores) -> None:
    source, target = filled(stores, 3), stores.at("b/target")
    report = done(copy_many(source, target, keys=["k002", "k000", "k002", "none"]))
    assert report == CopyReport(copied=2, absent=1, batches=1)
    assert values(target) == {"k000": "0", "k002": "2"}


def test_more_named_keys_than_one_read_takes_are_all_copied(stores: Stores) -> None:
    count = FIRST_READ * 6
    source, target = filled(stores, count), stores.at("b/target")
    report = done(copy_many(source, target, keys=[f"k{number:03}" for number in range(count + 5)]))
    assert report == CopyReport(copied=count, absent=5, batches=1)
    assert values(target) == values(source)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"keys": ["k000"], "prefix": "k"}, "not both"),
        ({"keys": "k000"}, "several keys"),
        ({"keys": 7}, "several keys"),
        ({"keys": ["k000", 7]}, "must be text"),
        ({"prefix": 7}, "must be text"),
        ({"on_conflict": "merge"}, "'fail', 'keep' or 'replace'"),
        ({"on_conflict": None}, "'fail', 'keep' or 'replace'"),
    ],
)
def test_options_that_make_no_sense_are_refused(stores: Stores, options: dict[str, object], reason: str) -> None:
    source, target = filled(stores, 1), stores.at("b/target")
    with pytest.raises(InvalidInputError, match=reason):
        done(copy_many(source, target, **options))  # type: ignore[arg-type]


def test_many_keys_are_not_copied_within_one_address(stores: Stores) -> None:
    source = filled(stores, 1)
    with pytest.raises(InvalidInputError, match="both a/source"):
        done(copy_many(source, stores.at("a/source"), on_conflict="replace"))


def test_a_closed_handle_copies_nothing(stores: Stores) -> None:
    source, target = filled(stores, 1), stores.at("b/target")
    target.close()
    with pytest.raises(ClosedError):
        done(copy_many(source, target))
    source.close()
    with pytest.raises(ClosedError):
        done(copy_many(source, stores.at("c/target")))


# Conflicts


@pytest.mark.parametrize("limits", [Limits(), THREE_A_BATCH], ids=["one batch", "many batches"])
@pytest.mark.parametrize("taken", ["k000", "k009"])
@pytest.mark.parametrize("named", [False, True])
def test_a_conflict_anywhere_fails_before_anything_is_written(
    stores: Stores, limits: Limits, taken: str, *, named: bool
) -> None:
    source, target = filled(stores, 10), stores.at("b/target", limits=limits)
    done(target.set_many({taken: "mine", "other": "mine"}))
    before = done(target._keyspace.position())
    with pytest.raises(RevisionConflictError) as caught:
        done(copy_many(source, target, keys=[f"k{number:03}" for number in range(10)] if named else None))
    assert caught.value.key == taken
    assert done(target._keyspace.position()) == before
    assert values(target) == {taken: "mine", "other": "mine"}


@pytest.mark.parametrize(("limits", "batches"), [(Limits(), 1), (THREE_A_BATCH, 4)])
def test_keep_leaves_what_the_target_has(stores: Stores, limits: Limits, batches: int) -> None:
    source, target = filled(stores, 10), stores.at("b/target", limits=limits)
    done(target.set_many({"k003": "mine", "z": "mine"}))
    assert done(copy_many(source, target, on_conflict="keep")) == CopyReport(copied=9, kept=1, batches=batches)
    assert values(target) == values(source) | {"k003": "mine", "z": "mine"}


def test_keep_of_what_is_all_there_writes_nothing(stores: Stores) -> None:
    source, target = filled(stores, 10), filled(stores, 10, "b/target", limits=None)
    before = done(target._keyspace.position())
    assert done(copy_many(source, target, on_conflict="keep")) == CopyReport(kept=10)
    assert done(target._keyspace.position()) == before


@pytest.mark.parametrize(("limits", "batches"), [(Limits(), 1), (THREE_A_BATCH, 4)])
def test_replace_writes_over_what_the_target_has(stores: Stores, limits: Limits, batches: int) -> None:
    source, target = filled(stores, 10), stores.at("b/target", limits=limits)
    done(target.set_many({"k003": "mine", "z": "mine"}))
    assert done(copy_many(source, target, on_conflict="replace")) == CopyReport(copied=10, batches=batches)
    assert values(target) == values(source) | {"z": "mine"}


# Batches


def test_what_fits_one_batch_is_one_commit(stores: Stores) -> None:
    writes: list[int] = []
    source = filled(stores, 10)
    target = stores.at("b/target", limits=Limits(max_batch_ops=10), before_apply=writes.append)
    assert done(copy_many(source, target)) == CopyReport(copied=10, batches=1)
    assert writes == [1]


def test_batches_respect_the_limit_in_bytes_of_utf_8(stores: Stores) -> None:
    source = stores.at("a/source")
    done(source.set_many({f"k{number}": "ä" * 40 for number in range(4)}))  # 82 bytes each, 42 characters
    target = stores.at("b/target", limits=Limits(max_batch_bytes=170))
    assert done(copy_many(source, target)) == CopyReport(copied=4, batches=2)
    assert values(target) == values(source)


def test_progress_counts_what_is_written_so_far(stores: Stores) -> None:
    told: list[int] = []
    source, target = filled(stores, 8), stores.at("b/target", limits=THREE_A_BATCH)
    done(copy_many(source, target, progress=told.append))
    assert told == [3, 6, 8]


def test_a_key_set_by_somebody_else_between_look_and_write_is_never_written_over(stores: Stores) -> None:
    somebody = stores.at("b/target")

    def step_in(write: int) -> None:
        if write == 2:
            done(somebody.set("k004", "mine"))

    source, target = filled(stores, 8), stores.at("b/target", limits=THREE_A_BATCH, before_apply=step_in)
    with pytest.raises(
        ConflictError, match=r"'k004' .* stays; 3 entries were written at b/target before that"
    ) as caught:
        done(copy_many(source, target))
    assert not isinstance(caught.value, RevisionConflictError)  # that one says that nothing was written
    assert values(somebody) == {"k000": "0", "k001": "1", "k002": "2", "k004": "mine"}


def test_the_same_in_a_single_batch_writes_nothing(stores: Stores) -> None:
    somebody = stores.at("b/target")

    def step_in(_: int) -> None:
        done(somebody.set("k004", "mine"))

    source, target = filled(stores, 8), stores.at("b/target", before_apply=step_in)
    with pytest.raises(RevisionConflictError):
        done(copy_many(source, target))
    assert values(somebody) == {"k004": "mine"}


def test_keep_looks_again_when_a_key_comes_up_in_between(stores: Stores) -> None:
    somebody = stores.at("b/target")

    def step_in(write: int) -> None:
        if write == 1:
            done(somebody.set("k004", "mine"))

    source, target = filled(stores, 8), stores.at("b/target", before_apply=step_in)
    assert done(copy_many(source, target, on_conflict="keep")) == CopyReport(copied=7, kept=1, batches=1)
    assert values(somebody) == values(source) | {"k004": "mine"}


def test_keep_gives_up_at_its_deadline(stores: Stores) -> None:
    somebody = stores.at("b/target")

    def step_in(write: int) -> None:
        done(somebody.set(f"k00{write}", "mine"))
        stores.clock.advance(3)

    source, target = filled(stores, 8), stores.at("b/target", before_apply=step_in)
    with pytest.raises(BusyError):
        done(copy_many(source, target, on_conflict="keep"))
    assert values(somebody) == {"k001": "mine", "k002": "mine"}


def test_an_error_between_batches_says_how_much_was_written(stores: Stores) -> None:
    def fault(write: int) -> None:
        if write == 3:
            raise FencedError("ended")

    source, target = filled(stores, 8), stores.at("b/target", limits=THREE_A_BATCH, before_apply=fault)
    with pytest.raises(FencedError) as caught:
        done(copy_many(source, target))
    assert caught.value.__notes__ == ["6 entries were written at b/target before that"]
    assert len(values(stores.at("b/target"))) == 6


def test_an_entry_that_expires_on_the_way_is_not_written(stores: Stores) -> None:
    source = stores.at("a/source")
    done(source.set_many({f"k{number}": "x" for number in range(5)}, ttl=10))
    done(source.set("z", "stays"))
    target = stores.at("b/target", limits=THREE_A_BATCH)
    report = done(copy_many(source, target, progress=lambda _: stores.clock.advance(11)))
    assert report == CopyReport(copied=4, expired=2, batches=2)
    assert values(target) == {"z": "stays"}
