"""Values: immutable, compared by content, fit for dictionaries, pickled whole; all of the model's types are such."""

import pickle

import pytest

from prontodb.model.address import Address
from prontodb.model.entry import Entry
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from prontodb.model.operation import Change, Changes, Fence, Op, Position, Receipt
from prontodb.model.value import Value

ENTRY = Entry("key", "value", 1, 2, None, 3)
SAMPLES: list[tuple[Value, Value]] = [
    (Address("a", "b"), Address("a", "c")),
    (ENTRY, Entry("key", "value", 1, 2, 9, 3)),
    (Layout("/a"), Layout("/b")),
    (Limits(), Limits(wait_s=1)),
    (Op("k", "v"), Op("k", None)),
    (Fence("s"), Fence("s", 1)),
    (Receipt(1, 1), Receipt(1, 2)),
    (Change("k", ENTRY, 3), Change("k", None, 3)),
    (Position("ab", 1), Position("ab", 2)),
    (Changes((Change("k", None, 1),), Position("ab", 1)), Changes((), Position("ab", 1))),
]
each = pytest.mark.parametrize(("value", "other"), SAMPLES, ids=lambda value: type(value).__name__)


@each
def test_a_value_cannot_be_changed(value: Value, other: Value) -> None:
    name = type(value).__slots__[0]
    for wanted in (name, "new"):
        with pytest.raises(AttributeError, match=type(value).__name__):
            setattr(value, wanted, "x")
        with pytest.raises(AttributeError, match=type(value).__name__):
            delattr(value, wanted)
    assert not hasattr(value, "__dict__")


@each
def test_a_value_survives_pickling_and_equals_its_copy(value: Value, other: Value) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(value, protocol))
        assert type(copy) is type(value)
        assert copy == value
        assert hash(copy) == hash(value)
    assert value != other
    assert len({value, copy, other}) == 2


@each
def test_a_value_says_what_it_is(value: Value, other: Value) -> None:
    text = repr(value)
    assert text.startswith(f"{type(value).__name__}(")
    assert all(f"{name}=" in text for name in type(value).__slots__)


def test_values_of_two_types_are_never_equal() -> None:
    assert Receipt(1, 2) != (1, 2)
    assert Fence("a", 1) != Position("a", 1)


def test_filling_takes_exactly_the_slots() -> None:
    class Pair(Value):
        __slots__ = ("one", "two")

    with pytest.raises(ValueError, match="shorter"):
        Pair()._fill(1)
