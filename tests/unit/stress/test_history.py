"""What is written down is read back: whole, torn, without a return, and of several processes in one order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stress.history import FAILED, GET, OK, OPENED, SET, Fault, History, Recorder, read_history
from tests.unit.stress.made import Made

HOME = "agent000/prod"


def recorded(folder: Path, process: str, *events: tuple[Any, ...]) -> Path:
    """Write calls `(at_ns, key)` and returns `(number, at_ns, result)` of one process."""
    path = folder / f"{process}.jsonl"
    recorder = Recorder(path)
    for event in events:
        if len(event) == 2:
            recorder.call(event[0], GET, HOME, "s-1", event[1], None)
        else:
            recorder.returned(event[0], event[1], OK, event[2], "")
    recorder.close()
    return path


def test_a_call_and_its_return_are_read_back_as_they_were(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "agent007-2.jsonl")
    argument = {"ledger.1": 'quote " and line\nfeed and ü', "n": [1, None, True]}
    number = recorder.call(10, SET, HOME, "s-1", "ledger.1", argument)
    recorder.returned(number, 25, FAILED, {"sum": 3}, "BusyError")
    recorder.close()
    (found,) = read_history(tmp_path)
    assert (found.process, found.agent, found.number, found.op) == ("agent007-2", "agent007", 1, SET)
    assert (found.address, found.session, found.key, found.family) == (HOME, "s-1", "ledger.1", "ledger")
    assert (found.argument, found.called_ns, found.returned_ns) == (argument, 10, 25)
    assert (found.outcome, found.result, found.error) == (FAILED, {"sum": 3}, "BusyError")
    assert found.is_known


def test_each_call_has_a_number_of_its_own_and_returns_may_come_in_any_order(tmp_path: Path) -> None:
    recorded(tmp_path, "agent000-1", (1, "a"), (2, "b"), (2, 3, "of b"), (1, 4, "of a"))
    assert [(one.number, one.key, one.result) for one in read_history(tmp_path)] == [(1, "a", "of a"), (2, "b", "of b")]


def test_a_call_is_on_disk_before_anything_else_happens(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "agent000-1.jsonl")
    recorder.call(1, GET, HOME, "s-1", "a", None)
    (found,) = read_history(tmp_path)  # as if it had been killed here: nothing was closed
    recorder.close()
    assert (found.outcome, found.returned_ns, found.is_known) == (OPENED, None, False)


@pytest.mark.parametrize("cut", [1, 2, 10, -1])
def test_half_a_last_line_did_not_happen(cut: int, tmp_path: Path) -> None:
    path = recorded(tmp_path, "agent000-1", (1, "a"), (1, 2, "x"), (3, "b"), (2, 4, "y"))
    *whole, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole) + last[:cut].rstrip(b"\n").removesuffix(b"]"))
    first, second = read_history(tmp_path)
    assert (first.outcome, first.result) == (OK, "x")
    assert (second.key, second.outcome, second.returned_ns) == ("b", OPENED, None)


def test_half_a_call_is_no_operation(tmp_path: Path) -> None:
    path = recorded(tmp_path, "agent000-1", (1, "a"), (1, 2, "x"), (3, "b"))
    path.write_bytes(path.read_bytes()[:-5])
    assert [one.key for one in read_history(tmp_path)] == ["a"]


def test_a_character_cut_in_two_is_half_a_line(tmp_path: Path) -> None:
    path = recorded(tmp_path, "agent000-1", (1, "a"))
    path.write_bytes(path.read_bytes() + b'["c",2,5,"get","\xc3')
    assert [one.key for one in read_history(tmp_path)] == ["a"]


def test_several_processes_are_read_in_the_order_of_their_calls(tmp_path: Path) -> None:
    recorded(tmp_path, "agent000-1", (5, "e"), (9, "i"))
    recorded(tmp_path, "agent000-2", (1, "a"), (7, "g"))
    recorded(tmp_path, "faults-1", (5, "f"), (6, "ff"))
    (tmp_path / "agent003-1.jsonl").touch()
    (tmp_path / "agent003-1.err").write_text("no history")
    found = read_history(tmp_path)
    assert [one.key for one in found] == ["a", "e", "f", "ff", "g", "i"]
    assert [one.process for one in found if one.called_ns == 5] == ["agent000-1", "faults-1"]


def test_a_folder_without_histories_is_an_empty_one(tmp_path: Path) -> None:
    assert read_history(tmp_path) == []


def test_a_history_is_asked_by_kinds_and_by_family() -> None:
    made = Made()
    made.did("a01-1", "get", "register.1", at=1)
    made.did("a01-1", "set", "register.1", at=2)
    made.did("a01-1", "get", "ledger.1", at=3)
    assert [one.called_ns // 1_000_000 for one in made.history.of("get")] == [1, 3]
    assert [one.called_ns // 1_000_000 for one in made.history.of("get", "set", family="register")] == [1, 2]
    kill, stop = Fault(name="kill", target="", at_ns=1), Fault(name="stop", target="", at_ns=2)
    assert History(faults=[kill, stop]).faults_of("stop", "clock") == [stop]
