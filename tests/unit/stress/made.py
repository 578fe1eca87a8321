"""Small histories by hand, in milliseconds, and what a checker says of them."""

from typing import Any

from stress.aftermath import Aftermath
from stress.history import OK, OPENED, Fault, History, Operation
from stress.promises import PROMISES
from stress.verdict import Check, Verdict, Violation

MS = 1_000_000
HOME = "team/one"


class Made:
    """A history that grows by one line for each operation. A call lasts a millisecond unless `until` says else."""

    def __init__(self) -> None:
        self.history = History(began_ns=0)

    def did(
        self,
        process: str,
        op: str,
        key: str = "",
        argument: Any = None,
        result: Any = None,
        *,
        at: int,
        until: int | None = None,
        outcome: str = OK,
        address: str = HOME,
        session: str = "",
        error: str = "",
    ) -> Operation:
        ended = at + 1 if until is None else until
        operation = Operation(
            process=process,
            number=len(self.history.operations) + 1,
            op=op,
            address=address,
            session=session,
            key=key,
            argument=argument,
            called_ns=at * MS,
            returned_ns=None if outcome == OPENED else ended * MS,
            outcome=outcome,
            result=result,
            error=error,
        )
        self.history.operations.append(operation)
        self.history.operations.sort(key=lambda each: each.called_ns)
        return operation

    def opened(
        self, process: str, session: str, *, at: int, until: int | None = None, epoch: int | None = None, **more: Any
    ) -> Operation:
        mode = more.pop("mode", "exclusive")
        result = {"session": session, "epoch": epoch}
        return self.did(process, "open", "", {"mode": mode}, result, at=at, until=until, **more)

    def closed(self, process: str, session: str, *, at: int, **more: Any) -> Operation:
        return self.did(process, "close", at=at, session=session, **more)

    def fault(self, name: str, target: str = "", *, at: int, until: int | None = None) -> None:
        ended = None if until is None else until * MS
        self.history.faults.append(Fault(name=name, target=target, at_ns=at * MS, until_ns=ended))


def judge(check: Check, made: Made, aftermath: Aftermath | None = None) -> Verdict:
    """Ask a checker; whatever it counts is a promise that has words."""
    verdict = check(made.history, aftermath or Aftermath())
    assert {*verdict.checked, *(violation.promise for violation in verdict.violations)} <= PROMISES.keys()
    assert all(violation.check == verdict.check for violation in verdict.violations)
    assert all(times > 0 for times in verdict.checked.values())
    return verdict


def only(verdict: Verdict) -> Violation:
    """The one violation there is."""
    assert len(verdict.violations) == 1, verdict.violations
    return verdict.violations[0]


def clean(verdict: Verdict) -> dict[int, int]:
    """What was put to the test without finding anything."""
    assert verdict.violations == ()
    return verdict.checked
