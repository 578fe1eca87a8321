"""Is there an order that explains what a register answered? A search, with a limit.

The search of Wing and Gong [1993, "Testing and verifying concurrent objects"]: choose, again and again, one of the
operations that nothing undone must come before, and turn back where none fits. As Lowe has it [2017, "Testing for
linearizability"], no pair of what was done and the state it left is tried twice. What was done is written as the first
undone operation in the order of returns, and the few behind it that were done already: short, however long the history
is, and at a quiet moment nothing but a number. Keys are judged one by one, since a history is linearizable when it is
for each object [Herlihy and Wing 1990].

Three things keep it short on histories of thousands:
- What fits and changes nothing is done at once: doing it later can be no better.
- A value that only one operation wrote is not left before all who saw it are done: it does not come again.
- What may have happened, or not, is done only right before an operation that would not fit otherwise.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate
from typing import TypeAlias

from .steps import Need, Special, State, Step


class Answer(Enum):
    """What the search found."""

    ORDER = "there is an order"
    NO_ORDER = "there is none"
    UNDECIDED = "given up"


@dataclass(frozen=True, slots=True)
class Result:
    """The answer, and how far the search came."""

    answer: Answer
    furthest: int
    """How many steps, in the order of their returns, were done at most before the first that could not be."""


_Configuration: TypeAlias = tuple[int, frozenset[int], State, frozenset[int]]
"""The first certain step not done, those behind it that are, the state, and the uncertain ones that were used."""
_NONE: frozenset[int] = frozenset()


def linearize(
    steps: Iterable[Step],
    *,
    before: frozenset[State] = frozenset(),
    meanwhile: Iterable[Step] = (),
    most: int,
) -> Result:
    """Look for an order of all certain steps, and any of the others, that begins with an absent key.

    `before` and `meanwhile` stand for writes left out: the key begins with any value of `before`, if there are some,
    and each of `meanwhile` may happen from its call to its return, however often and whatever it needs. After `most`
    configurations the search gives up.
    """
    search = _Search(list(steps), before, list(meanwhile))
    stack: list[_Configuration] = [(0, _NONE, Special.BEFORE if before else None, _NONE)]
    tried = set(stack)
    furthest = 0
    while stack:
        configuration = stack.pop()
        furthest = max(furthest, configuration[0])
        if furthest == search.count:
            return Result(Answer.ORDER, furthest)
        fresh = [following for following in search.after(configuration) if following not in tried]
        tried.update(fresh)
        stack += reversed(fresh)
        if len(tried) > most:
            return Result(Answer.UNDECIDED, furthest)
    return Result(Answer.NO_ORDER, furthest)


def in_order(steps: Iterable[Step]) -> list[Step]:
    """Return the certain steps in the order of their returns."""
    return sorted((step for step in steps if step.is_certain), key=lambda step: (step.returned, step.called))


class _Search:
    def __init__(self, steps: list[Step], before: frozenset[State], meanwhile: list[Step]) -> None:
        self._steps = in_order(steps)
        self.count = len(self._steps)
        self._candidates = list(_candidates(self._steps))
        self._loose: dict[State, frozenset[State]] = {Special.BEFORE: before}
        self._seers: dict[State, list[int]] = defaultdict(list)
        for index, step in enumerate(self._steps):
            if step.need == "is":
                self._seers[step.value].append(index)
        self._maybe = sorted((step for step in steps if not step.is_certain), key=lambda step: step.called)
        self._once = _written_once([*steps, *meanwhile])
        self._writer = {step.gives: index for index, step in enumerate(self._steps) if step.gives in self._once}
        asked_for = {step.value for step in steps if step.need != "any"}

        def given(step: Step) -> State:
            return step.gives if step.gives in asked_for else Special.OTHER

        self._given = [given(step) for step in self._maybe]
        self._giving: dict[State, list[int]] = defaultdict(list)
        for helper, state in enumerate(self._given):
            self._giving[state].append(helper)
        self._meanwhile = [(step.called, step.returned, given(step)) for step in meanwhile]
        self._wrote = list(accumulate((step.called if step.is_write else 0 for step in self._steps), max, initial=0))

    def after(self, configuration: _Configuration) -> list[_Configuration]:
        """Return what may come next, the best hope first."""
        first, ahead, state, used = configuration
        waiting = [index for index in self._candidates[first] if index not in ahead]
        for index in waiting:
            step = self._steps[index]
            if not step.is_write and step.fits(state, self._loose):
                return [self._done(first, ahead, index, state, used)]
        found: list[_Configuration] = []
        for index in self._best_first(waiting, first, ahead, state):
            if not self._is_still_seen(state, first, ahead, index):
                step = self._steps[index]
                if step.fits(state, self._loose):
                    found.append(self._done(first, ahead, index, step.gives, used))
                else:
                    found += self._helped(configuration, index)
        return found

    def _best_first(self, waiting: list[int], first: int, ahead: frozenset[int], state: State) -> list[int]:
        """Sort writes: what needs this very state comes first, then what the most urgent step waits for.

        What must be done soonest may want a value, whose writer wants another one, and so on: the root is urgent.
        """
        root = first
        for _ in waiting:
            writer = self._writer.get(self._steps[root].value, first) if self._steps[root].need == "is" else first
            if writer <= first or writer in ahead or self._steps[root].fits(state, self._loose):
                break
            root = writer
        urgent = self._steps[root]

        def rank(index: int) -> int:
            step = self._steps[index]
            if step.need == "is" and step.fits(state, self._loose):
                return 0
            if index == root:
                return 1
            return 2 if urgent.fits(step.gives, self._loose) else 3

        return sorted(waiting, key=rank)

    def _helped(self, configuration: _Configuration, index: int) -> Iterator[_Configuration]:
        """Yield how a step that does not fit would fit, after something that may have happened."""
        first, ahead, state, used = configuration
        step = self._steps[index]
        helps = [(helped, used) for helped in self._loose_states(first, ahead)]
        helps += ((self._given[helper], used | {helper}) for helper in self._helpers(step, state, first, used))
        for helped, now_used in helps:
            if step.fits(helped, self._loose):
                yield self._done(first, ahead, index, step.gives if step.is_write else helped, now_used)

    def _loose_states(self, first: int, ahead: frozenset[int]) -> Iterable[State]:
        """Return what the writes left out may have made of the state since the last write that was done."""
        if not self._meanwhile:
            return ()
        until = self._steps[first].returned
        since = max(
            [self._wrote[first], *(self._steps[index].called for index in ahead if self._steps[index].is_write)]
        )
        return dict.fromkeys(
            given for called, returned, given in self._meanwhile if called <= until and since <= returned
        )

    def _helpers(self, unfit: Step, state: State, first: int, used: frozenset[int]) -> Iterator[int]:
        """Yield uncertain steps that may happen now; of those that do the same, the one that was called first."""
        tried: set[tuple[Need, State, State]] = set()
        for helper in self._giving[unfit.value] if unfit.need == "is" else range(len(self._maybe)):
            step = self._maybe[helper]
            if step.called > self._steps[first].returned:
                break
            kind = (step.need, step.value, self._given[helper])
            if helper not in used and kind not in tried and step.fits(state, self._loose):
                tried.add(kind)
                yield helper

    def _done(
        self, first: int, ahead: frozenset[int], index: int, state: State, used: frozenset[int]
    ) -> _Configuration:
        ahead |= {index}
        while first in ahead:
            ahead -= {first}
            first += 1
        return first, ahead, state, used

    def _is_still_seen(self, state: State, first: int, ahead: frozenset[int], but: int) -> bool:
        """Return whether a state that cannot come again has others than `but` who saw it, and are not done."""
        if state not in self._once:
            return False
        seers = self._seers[state]
        return any(index not in ahead and index != but for index in seers[bisect_left(seers, first) :])


def _written_once(steps: list[Step]) -> set[State]:
    """Return the values that, once left, never come again."""
    writes = Counter(step.gives for step in steps if isinstance(step.gives, str))
    return {value for value, times in writes.items() if times == 1}


def _candidates(steps: list[Step]) -> Iterator[list[int]]:
    """Yield for each step those that may be done while it is the first undone one: called before it returned."""
    calls = sorted(range(len(steps)), key=lambda index: steps[index].called)
    running: list[int] = []
    begun = 0
    for first, step in enumerate(steps):
        while begun < len(calls) and steps[calls[begun]].called <= step.returned:
            if calls[begun] >= first:
                insort(running, calls[begun])
            begun += 1
        yield running.copy()
        if running and running[0] == first:
            del running[0]
