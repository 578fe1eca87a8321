"""What was lent for a time is there for that time, and not afterwards, however the wall clock stands meanwhile.

Judged by the monotonic clock, which every event was recorded with. The store reckons lifetimes in whole milliseconds of
the wall clock, somewhere between call and return: so a lifetime certainly lasts from the return of its write to `ttl`
after the call, and is certainly over `ttl` after the return. Values are unique: each tells which write it is of.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..history import DELETE, FAILED, GET, LEASE, LEND, OK, RENEW, Operation
from .moments import NEVER, over_ns, settled_ns
from .moves import Moves
from .reads import reads
from .tally import Tally, milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..aftermath import Aftermath
    from ..history import History
    from ..verdict import Verdict

CHECK = "expiry"
NEVER_LATE, NEVER_EARLY, NEVER_BY_CLOCK = 17, 18, 19
OWN_VALUES, ONE_REGISTER = 7, 10
CLOCK = "clock"
SLACK_NS = 2_000_000
"""Two roundings to whole milliseconds."""
SLEW = 1_000
"""A wall clock that is being adjusted runs wrong by less than a thousandth."""
LINGERS_NS = 1_000_000_000
"""A write that may take effect so long after its call is looked at for every read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One write of a lease: when it may have taken effect, and how long what it left lives."""

    operation: Operation
    over_ns: int
    """By then it has happened, or never will."""
    ttl_ns: int
    """0 for a deletion."""
    is_certain: bool
    """It was acknowledged, and has done what it says."""
    is_clocked: bool
    """The wall clock stood elsewhere meanwhile: nobody knows when this ends."""

    @property
    def called_ns(self) -> int:
        """When it was called."""
        return self.operation.called_ns

    @property
    def is_loan(self) -> bool:
        """True when it sets a value."""
        return self.operation.op == LEND

    @property
    def lives_until_ns(self) -> int:
        """Until when what it left is certainly there; 0: nobody knows."""
        return 0 if self.is_clocked or not self.ttl_ns else self.called_ns + self.ttl_ns - _slack(self.ttl_ns)

    @property
    def is_gone_from_ns(self) -> int:
        """From when on what it left is certainly over."""
        if self.is_clocked or self.over_ns == NEVER:
            return NEVER
        return self.over_ns + self.ttl_ns + _slack(self.ttl_ns)


class Lease:
    """All writes of one key at one address, so that what may have been the last one before a read is soon found."""

    def __init__(self, writes: list[Write]) -> None:
        self.writes = sorted(writes, key=lambda write: write.called_ns)
        self._calls = [write.called_ns for write in self.writes]
        self._lingering = [write for write in self.writes if write.over_ns - write.called_ns > LINGERS_NS]

    def last_before(self, moment_ns: int, *, is_loan: bool = False) -> Write | None:
        """Return the last write that was certainly done by then; the last loan, when asked for."""
        for index in range(bisect_left(self._calls, moment_ns) - 1, -1, -1):
            write = self.writes[index]
            if write.is_certain and write.over_ns <= moment_ns and (write.is_loan or not is_loan):
                return write
        return None

    def possibly_after(self, base: Write, until_ns: int) -> Iterator[Write]:
        """Yield `base`, and each write that may have taken effect after it, and was called before `until_ns`."""
        first = bisect_left(self._calls, base.called_ns - LINGERS_NS)
        recent = self.writes[first : bisect_left(self._calls, until_ns)]
        older = [write for write in self._lingering if write.called_ns < base.called_ns - LINGERS_NS]
        yield from (write for write in (*older, *recent) if write.over_ns >= base.called_ns)


def check(history: History, aftermath: Aftermath) -> Verdict:
    """Check each read of a lease against the writes of the same key."""
    return _Judge(history).judge(aftermath)


class _Judge:
    def __init__(self, history: History) -> None:
        self._history, self._moves, self._tally = history, Moves(history), Tally(CHECK)
        self._clocks = [
            (fault.at_ns, NEVER if fault.until_ns is None else fault.until_ns) for fault in history.faults_of(CLOCK)
        ]
        self._leases = self._read_writes()
        self._lent = {
            write.operation.argument[0]: write
            for lease in self._leases.values()
            for write in lease.writes
            if write.is_loan
        }

    def judge(self, aftermath: Aftermath) -> Verdict:
        told = [*reads(self._history, LEASE), *self._read_at_last(aftermath)]
        for read, key, value in told:
            self._check_origin(read, key, value)
            lease = self._leases.get((read.address, key))
            if lease is None or self._is_clocked(read.called_ns, over_ns(read)):
                continue
            self._check_late(lease, read, key, value)
            self._check_early(lease, read, key, value)
        return self._tally.verdict()

    def _read_writes(self) -> dict[tuple[str, str], Lease]:
        writes = [write for write in self._history.of(LEND, RENEW, DELETE, family=LEASE) if _may_have_done(write)]
        settled = settled_ns(self._history, writes)
        by_key: defaultdict[tuple[str, str], list[Write]] = defaultdict(list)
        for operation in writes:
            until_ns = settled[operation.process, operation.number]
            write = Write(
                operation=operation,
                over_ns=until_ns,
                ttl_ns=_ttl_ns(operation),
                is_certain=operation.outcome == OK,
                is_clocked=self._is_clocked(operation.called_ns, until_ns),
            )
            by_key[operation.address, operation.key].append(write)
        return {place: Lease(each) for place, each in by_key.items()}

    def _read_at_last(self, aftermath: Aftermath) -> Iterator[tuple[Operation, str, str | None]]:
        """What lay there after the end, as reads; nothing when nobody wrote down when that was looked at."""
        when = aftermath.facts.get("read_ns")
        if not isinstance(when, tuple | list):
            return
        began_ns, ended_ns = when
        for number, (address, key) in enumerate(self._leases):
            if address in aftermath.contents:
                value, _ = aftermath.contents[address].get(key, (None, 0))
                read = Operation(
                    process="aftermath",
                    number=number,
                    op=GET,
                    address=address,
                    session="",
                    key=key,
                    argument=None,
                    called_ns=began_ns,
                    returned_ns=ended_ns,
                    outcome=OK,
                    result=value,
                )
                yield read, key, value

    def _is_clocked(self, from_ns: int, until_ns: int) -> bool:
        return any(at_ns <= until_ns and from_ns <= end_ns for at_ns, end_ns in self._clocks)

    def _check_origin(self, read: Operation, key: str, value: str | None) -> None:
        """What is found was lent under this key at this address, unless it was carried here from elsewhere."""
        lent = None if value is None else self._lent.get(value)
        if value is None or (lent and _is_at(lent, read, key)) or self._moves.between(read.address, 0, over_ns(read)):
            return
        text = f"{read.process} read {key} at {read.address} and was told '{value}', which "
        if lent is None:
            self._tally.violate(ONE_REGISTER, f"{text}nobody lent, or whose lending had failed", read)
        else:
            other = f"{lent.operation.process} lent under {lent.operation.key} at {lent.operation.address}"
            self._tally.violate(OWN_VALUES, f"{text}{other}", lent.operation, read)

    def _check_late(self, lease: Lease, read: Operation, key: str, value: str | None) -> None:
        """A value that was lent here must not be returned once its time, and all that it was renewed for, is over."""
        lent = None if value is None else self._lent.get(value)
        if lent is None or not lent.is_certain or not _is_at(lent, read, key):
            return
        if self._moves.between(read.address, lent.called_ns, over_ns(read)):
            return
        gone_ns, renewal = _gone_from(lent, lease, read)
        if gone_ns == NEVER:
            return
        self._tally.count(NEVER_LATE)
        if read.called_ns > gone_ns:
            renewed = f", and renewed by {renewal.process}" if renewal else ""
            late = milliseconds(read.called_ns - gone_ns)
            self._tally.violate(
                NEVER_LATE,
                f"{read.process} read {key} at {read.address} and was told '{value}', lent for "
                f"{milliseconds(lent.ttl_ns)} by {lent.operation.process}{renewed}: {late} after its end",
                lent.operation,
                *([renewal] if renewal else []),
                read,
            )

    def _check_early(self, lease: Lease, read: Operation, key: str, value: str | None) -> None:
        """A read finds something while all that may have been the last write before it still lives."""
        base, until_ns = lease.last_before(read.called_ns), over_ns(read)
        if base is None or self._moves.between(read.address, base.called_ns, until_ns):
            return
        lives_until_ns = min(write.lives_until_ns for write in lease.possibly_after(base, until_ns))
        promise = self._promise(base, read)
        if until_ns >= lives_until_ns or promise is None:
            return
        self._tally.count(promise)
        if value is None:
            left = milliseconds(lives_until_ns - until_ns)
            why = " after the wall clock was set right again" if promise == NEVER_BY_CLOCK else ""
            what = "renewed it" if base.operation.op == RENEW else f"lent it as '{base.operation.argument[0]}'"
            self._tally.violate(
                promise,
                f"{read.process} found nothing under {key} at {read.address}{why}, though {base.operation.process} had "
                f"{what}, and it had at least {left} to live",
                base.operation,
                read,
            )
        else:
            self._check_replaced(lease, read, key, value, promise)

    def _check_replaced(self, lease: Lease, read: Operation, key: str, value: str, promise: int) -> None:
        """What is found is not what a later write had replaced before the read began."""
        found, base = self._lent.get(value), lease.last_before(read.called_ns, is_loan=True)
        if found is None or base is None or found.over_ns >= base.called_ns or not _is_at(found, read, key):
            return
        self._tally.violate(
            promise,
            f"{read.process} read {key} at {read.address} and was told '{value}', though "
            f"{base.operation.process} had lent it as '{base.operation.argument[0]}' since",
            found.operation,
            base.operation,
            read,
        )

    def _promise(self, base: Write, read: Operation) -> int | None:
        """Which promise keeps a lease alive: another one when the clock was away meanwhile, and is back for good."""
        if not self._is_clocked(base.called_ns, read.called_ns):
            return NEVER_EARLY
        return NEVER_BY_CLOCK if all(read.called_ns > end_ns for _, end_ns in self._clocks) else None


def _gone_from(lent: Write, lease: Lease, read: Operation) -> tuple[int, Operation | None]:
    """Return from when on what was lent is certainly over, and the acknowledged renewal that this is reckoned from.

    A renewal that nobody knows the outcome of adds its whole time, whenever it came.
    """
    gone_ns, more_ns, renewal = lent.is_gone_from_ns, 0, None
    for write in lease.possibly_after(lent, over_ns(read)):
        if write.operation.op != RENEW or gone_ns == NEVER:
            continue
        if write.called_ns > gone_ns + more_ns:
            break
        if not write.is_certain and not write.is_clocked:
            more_ns += write.ttl_ns
        elif write.is_gone_from_ns > gone_ns:
            gone_ns, renewal = write.is_gone_from_ns, write.operation
    return (NEVER if gone_ns == NEVER else gone_ns + more_ns), renewal


def _is_at(write: Write, read: Operation, key: str) -> bool:
    """False for a value that was lent elsewhere and carried here: its renewals are not known."""
    return (write.operation.address, write.operation.key) == (read.address, key)


def _may_have_done(write: Operation) -> bool:
    """False for what certainly changed nothing: a renewal or deletion that found no key says so."""
    return write.outcome != FAILED and not (write.outcome == OK and write.op != LEND and write.result is False)


def _ttl_ns(write: Operation) -> int:
    if write.op == DELETE:
        return 0
    return int((write.argument[1] if write.op == LEND else write.argument) * 1_000_000)


def _slack(ttl_ns: int) -> int:
    return SLACK_NS + ttl_ns // SLEW
