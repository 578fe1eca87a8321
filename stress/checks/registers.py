"""Each register behaves as if one operation happened at a time: linearizable, key by key, to the very end.

A well-kept checker for Python was looked for and not found; those that are (Knossos, Porcupine) need another runtime.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING

from ..history import CAS, DELETE, FAILED, GET, OK, REGISTER, SET
from ..verdict import Verdict, Violation
from .linearize import Answer, in_order, linearize
from .settled import left_out, unsettled
from .shrink import MOST_QUESTIONS, shrink
from .steps import State, Step, steps_of
from .zones import suspects

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..aftermath import Aftermath
    from ..history import History, Operation

CHECK = "registers"
LINEARIZABLE = 10
"""The promise: for each key the history of concurrent processes is linearizable."""
MOST_CONFIGURATIONS = 100_000
"""A search over all of one key gives up after so many; one with an answer takes little more than it has steps."""
MOST_SUSPECTS = 100
"""So many contradictions at sight are looked into; the first that is proven ends the search on that key."""
MOST_FOR_A_PART = 5_000
"""A search of a few steps alone gives up after so many configurations."""
MOST_QUESTIONS_OF_ALL = 24
"""How often a contradiction that no few steps show is made smaller; each question is a search of thousands."""
WINDOWS = (8, 16, 32, 64, 128)
"""How many steps before the one that could not be are tried, to show a contradiction by them alone."""


def check(history: History, aftermath: Aftermath) -> Verdict:
    """Judge each register alone; of each, one violation is told: whatever follows may follow from it."""
    registers: dict[tuple[str, str], list[Operation]] = defaultdict(list)
    for operation in history.of(GET, SET, DELETE, CAS, family=REGISTER):
        registers[operation.address, operation.key].append(operation)
    skipped = unsettled(history)
    checked = undecided = 0
    violations: list[Violation] = []
    for (address, key), operations in registers.items():
        if address in skipped:
            continue
        steps = steps_of(operations, _ending(aftermath, address, key))
        checked += sum(step.is_certain for step in steps)
        proof = contradiction(steps)
        if proof is None:
            undecided += 1
        elif proof:
            text = _sentence(f"{key} at {address}", proof, operations)
            stretch = _shown(proof, steps, operations)
            violations.append(Violation(check=CHECK, promise=LINEARIZABLE, text=text, stretch=stretch))
    return Verdict(
        check=CHECK,
        checked={LINEARIZABLE: checked},
        violations=tuple(violations),
        undecided=undecided,
        notes=left_out(skipped, {address for address, _ in registers}),
    )


def contradiction(steps: Sequence[Step]) -> list[Step] | None:
    """Return the fewest steps that no order explains, whatever the others did; none when there is an order of all.

    None: given up.
    """
    for suspected in islice(suspects(steps), MOST_SUSPECTS):
        if is_impossible(steps, suspected):
            return _fewest(steps, suspected)
    result = linearize(steps, most=MOST_CONFIGURATIONS)
    if result.answer is Answer.ORDER:
        return []
    if result.answer is Answer.UNDECIDED:
        parts = _windows(steps, result.furthest)
    else:
        parts = [*_windows(steps, result.furthest), set(steps)]
    for part in parts:
        if len(part) == len(steps):
            return _fewest(steps, part, MOST_QUESTIONS_OF_ALL)
        if is_impossible(steps, part):
            return _fewest(steps, part)
    return None


def _ending(aftermath: Aftermath, address: str, key: str) -> list[State]:
    """Return the state at the end; nothing where the address could not be read, which is another checker's matter."""
    if address not in aftermath.contents:
        return []
    value, _ = aftermath.contents[address].get(key, (None, 0))
    return [value]


def _windows(steps: Sequence[Step], furthest: int) -> list[set[Step]]:
    """Return the step that could not be, with more and more of those that returned before it, and all beside it.

    Those of unknown outcome are in each of them: left out, they could happen more than once.
    """
    order = in_order(steps)
    stuck = order[furthest]
    beside = {step for step in steps if stuck.called <= step.returned and step.called <= stuck.returned}
    beside |= {step for step in steps if not step.is_certain}
    return [beside | set(order[max(0, furthest - size) : furthest + 1]) for size in WINDOWS]


def _fewest(steps: Sequence[Step], failing: Iterable[Step], questions: int = MOST_QUESTIONS) -> list[Step]:
    # Reads come first, and so are left out first: a write says more.
    things = sorted(failing, key=lambda step: (step.is_write, step.called, step.returned))
    return shrink(things, lambda part: is_impossible(steps, part), questions)


def is_impossible(steps: Sequence[Step], part: Iterable[Step]) -> bool:
    """Return whether no order explains this part, whatever the steps left out were.

    Those that had returned before the part began are only its beginning; the others may have happened at any moment
    from their calls to their returns, however often.
    """
    chosen = set(part)
    if not any(step.is_certain for step in chosen):
        return False
    begins = min(step.called for step in chosen if step.is_certain)
    ends = max(step.returned for step in chosen if step.is_certain)
    before: set[State] = set()
    meanwhile: list[Step] = []
    for step in steps:
        if step.is_write and (step not in chosen or not step.is_certain):
            if step.called < begins:
                before.add(step.gives)
            if begins <= step.returned and step.called <= ends and step not in chosen:
                meanwhile.append(step)
    if before and not any(step.is_write and step.is_certain and step.returned < begins for step in steps):
        before.add(None)  # perhaps nothing was written yet
    result = linearize(
        chosen,
        before=frozenset(before),
        meanwhile=meanwhile,
        most=MOST_FOR_A_PART,
    )
    return result.answer is Answer.NO_ORDER


def _shown(proof: Iterable[Step], steps: Iterable[Step], operations: Iterable[Operation]) -> tuple[Operation, ...]:
    """Return the operations of a proof, with those that make it plain.

    These are who wrote what was seen, who saw what never said that it was done, and where something was not there, the
    last who had written before.
    """
    shown = set(proof)
    values = {step.value for step in shown if step.need == "is"} - {None}
    shown |= {step for step in steps if step.gives in values}
    shown |= {step.seen_by for step in shown if step.seen_by}
    if any(step.value is None for step in shown) and not any(step.is_write for step in shown):
        begins = min(step.called for step in shown)
        earlier = [step for step in steps if step.is_write and step.returned < begins]
        shown.update(sorted(earlier, key=lambda step: step.returned)[-1:])
    found = {id(step.operation): step.operation for step in shown if step.operation}
    found |= {id(operation): operation for operation in _refused(operations, values)}
    return tuple(sorted(found.values(), key=lambda operation: (operation.called_ns, operation.process)))


def _refused(operations: Iterable[Operation], values: set[State]) -> Iterator[Operation]:
    """Yield the writes of these values that said they did nothing."""
    for operation in operations:
        did_nothing = operation.outcome == FAILED or (operation.outcome == OK and operation.result is False)
        if did_nothing and operation.op in (SET, CAS):
            value = operation.argument if operation.op == SET else operation.argument[1]
            if value in values:
                yield operation


def _sentence(name: str, proof: list[Step], operations: Iterable[Operation]) -> str:
    asking = [step for step in proof if step.need != "any"] or proof
    witness = max(asking, key=lambda step: step.called)
    if len(proof) > 1 or witness.need != "is" or witness.value is None:
        why = "which no order of what was done before and meanwhile explains"
    elif any(_refused(operations, {witness.value})):
        why = "whose write said that it did nothing"
    else:
        why = "which nobody wrote there"
    return f"{name}: {_saw(witness)}, {why}"


def _saw(step: Step) -> str:
    value = "nothing" if step.value is None else step.value
    if step.operation is None:
        return f"at the end there was {value}"
    if step.operation.op == GET:
        return f"a read returned {value}"
    if step.operation.op == CAS:
        return f"a compare-and-set {'found' if step.need == 'is' else 'did not find'} {value}"
    if step.operation.op == DELETE:
        return f"a delete found {'nothing' if step.need == 'is' else 'a value'}"
    return f"{step.gives} was written"
