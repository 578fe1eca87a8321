"""When something was certainly over: what the recorded moments prove, and no more."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from typing import TYPE_CHECKING

from ..history import OK, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..history import History, Operation

NEVER = 2**63  # later than any moment of the clock


def over_ns(operation: Operation) -> int:
    """Return when an operation had certainly had all of its effect; `NEVER` when it does not know itself."""
    return operation.returned_ns if operation.is_known and operation.returned_ns is not None else NEVER


def buried_ns(history: History) -> dict[str, int]:
    """Return for each process the first event of the same agent's next life: it was certainly dead by then."""
    first: dict[str, int] = {}
    for operation in history.operations:
        first.setdefault(operation.process, operation.called_ns)
    lives: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for process in first:
        agent, _, life = process.rpartition("-")
        if agent and life.isdecimal():
            lives[agent].append((int(life), process))
    return {
        process: first[follower]
        for each in lives.values()
        for (_, process), (_, follower) in zip(sorted(each), sorted(each)[1:], strict=False)
    }


def settled_ns(history: History, writes: Iterable[Operation]) -> dict[tuple[str, int], int]:
    """Return, by process and number, when each write had happened or never would.

    One whose outcome is unknown is settled once the same session had a later write acknowledged, since its writes are
    done one after the other; or once its process was dead.
    """
    buried = buried_ns(history)
    queues: defaultdict[tuple[str, str, str], list[Operation]] = defaultdict(list)
    for write in writes:
        queues[write.process, write.session, write.address].append(write)
    settled: dict[tuple[str, int], int] = {}
    for queue in queues.values():
        queue.sort(key=lambda write: write.called_ns)
        done = [write for write in queue if write.outcome == OK]
        calls = [write.called_ns for write in done]
        for write in queue:
            moment = over_ns(write)
            if moment == NEVER:
                moment = buried.get(write.process, NEVER)
            if write.outcome == UNKNOWN and write.returned_ns is not None:
                later = bisect_right(calls, write.returned_ns)
                moment = min([moment, *(over_ns(each) for each in done[later : later + 1])])
            settled[write.process, write.number] = moment
    return settled
