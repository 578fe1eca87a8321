"""The record in a lock file: read back as written, and nothing but what we write."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prontodb.model.holder import MODES, Holder, Process, decode, is_for, is_session_id, new_session_id

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
COUNT = st.integers(0, 2**53 - 1)
PROCESSES = st.builds(Process, COUNT, st.none() | COUNT, st.none() | TEXT, TEXT, st.none() | TEXT, TEXT)
LABELS = st.dictionaries(TEXT, TEXT, max_size=3).map(lambda labels: tuple(sorted(labels.items())))
SESSION = st.just("s-00112233445566778899")
SESSIONS = st.builds(Holder, PROCESSES, TEXT, COUNT, SESSION, st.sampled_from(MODES), st.none() | COUNT, LABELS)
OTHERS = st.builds(Holder, PROCESSES, TEXT, COUNT)
ONE = Holder(Process(7, 99, "b", "h", "n", "agent.py"), "session", 0, "s-00112233445566778899", "exclusive", 3)


@given(SESSIONS | OTHERS)
def test_a_record_is_read_back_as_it_was_written(holder: Holder) -> None:
    assert decode(holder.encode()) == holder


@given(st.binary(max_size=200))
def test_garbage_names_nobody(data: bytes) -> None:
    assert decode(data) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pid", "7"),
        ("pid", -1),
        ("pid", True),
        ("since", None),
        ("since", 1.5),
        ("host", None),
        ("program", 7),
        ("started", "x"),
        ("boot", 1),
        ("session", "s-short"),
        ("session", "../../etc"),
        ("mode", "owner"),
        ("mode", None),
        ("epoch", -1),
        ("labels", []),
        ("labels", {"a": 1}),
        ("host", "x" * 2_000),
    ],
)
def test_a_record_with_a_field_that_is_not_ours_names_nobody(field: str, value: object) -> None:
    fields = json.loads(ONE.encode())
    assert decode(json.dumps(fields).encode()) == ONE
    assert decode(json.dumps(fields | {field: value}).encode()) is None


def test_a_mode_without_a_session_and_a_record_without_end_name_nobody() -> None:
    plain = json.loads(Holder(ONE.process, "set", 0).encode())
    assert decode(json.dumps(plain | {"mode": "shared"}).encode()) is None
    assert decode(ONE.encode() + b" " * 40_000) is None


def test_a_holder_is_described_in_one_line_whatever_it_is_called() -> None:
    assert str(ONE) == ("exclusive session s-00112233445566778899 of pid 7 'agent.py' on h since 1970-01-01T00:00:00Z")
    evil = Holder(Process(7, program="a\n\x1b[2J", host="b\nc"), "set\nme", 0)
    assert str(evil).isprintable()
    assert "(set\\nme)" in str(evil)


def test_an_id_tells_for_which_address_of_which_root_it_is() -> None:
    ids = {new_session_id("/root", "agent1/prod") for _ in range(100)}
    assert len(ids) == 100
    for session in ids:
        assert is_session_id(session)
        assert is_for(session, "/root", "agent1/prod")
        assert not is_for(session, "/root", "agent1/test")
        assert not is_for(session, "/other", "agent1/prod")


@pytest.mark.parametrize(
    "text", ["", "s-", "s-0011223344556677889", "S-00112233445566778899", "s-0011223344556677889g", 7]
)
def test_what_is_no_id(text: object) -> None:
    assert not is_session_id(text)
