"""Which backups may go: a pure function of what they are, the time and the policy (D32).

- Nothing goes while something contradicts: a manifest that cannot be read, a clock before the newest backup, a name
  given twice, a chain that closes on itself.
- Slots are filled with sound backups alone: good ones that build, all the way down, on good ones that are there.
- Whatever a kept backup needs is kept. So is the newest good one of each scope, and the last good state of an address
  that could not be backed up since, together with the backup that says so: else the next pass would forget why.
- A damaged backup stays as long as an older good one of its scope does; in a scope without a sound one, all stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.errors import InvalidSettingsError, InvalidTtlError, shown
from prontodb.model.entry import moment
from prontodb.model.settings import MAX_WARNINGS, told
from prontodb.model.ttl import MAX_TTL_MS, ttl_ms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SETTING = "backups.retention"
MAX_KEPT = 100_000
"""The most that one rule can keep."""

# How the moments of one slot look alike; the names of the rules are those of the policy's fields.
_SLOTS = (("hourly", "%Y-%m-%d %H:00"), ("daily", "%Y-%m-%d"), ("weekly", "%G-W%V"), ("monthly", "%Y-%m"))
_CIRCLE = -2
_COUNTS = ("keep_last", *(rule for rule, _ in _SLOTS))
_FIELDS = (*_COUNTS, "within")
_COUNT = f"a whole number from 0 to {MAX_KEPT:,}"
_DURATION = "a number of seconds, or text like '48h', at most 100 years; 0 for none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How many backups of each scope stay: the newest of each of the last n hours, days, ... that have one; 0 is none.

    Raises `InvalidSettingsError`, naming the setting, what was given and what is allowed.
    """

    keep_last: int = 3
    hourly: int = 24
    daily: int = 7
    weekly: int = 5
    monthly: int = 12
    within_s: float = 0

    def __post_init__(self) -> None:
        for name in _COUNTS:
            _check(name, getattr(self, name), MAX_KEPT, _COUNT, whole=True)
        _check("within", self.within_s, MAX_TTL_MS // 1_000, _DURATION)
        if not any((self.keep_last, self.hourly, self.daily, self.weekly, self.monthly, self.within_s)):
            raise InvalidSettingsError(
                f"setting {SETTING} keeps nothing; allowed: at least one of {', '.join(_FIELDS)} above 0"
            )

    @classmethod
    def parse(cls, fields: object) -> tuple[Policy, list[str]]:
        """Return the policy in a JSON object, and a warning for each field that is none; what is left out is default.

        No value is converted but `within`: a duration as text, or seconds.
        """
        if not isinstance(fields, dict):
            raise InvalidSettingsError(f"setting {SETTING} is {told(fields)}; allowed: a JSON object")
        given = {name: value for name, value in fields.items() if name in _COUNTS}
        if "within" in fields:
            given["within_s"] = _seconds(fields["within"])
        unknown = [name for name in fields if name not in _FIELDS]
        warnings = [_unknown(name) for name in unknown[:MAX_WARNINGS]]
        if len(unknown) > MAX_WARNINGS:
            warnings.append(f"{len(unknown) - MAX_WARNINGS:,} more fields of {SETTING} are unknown and ignored")
        return cls(**given), warnings


def _check(name: str, value: object, highest: int, allowed: str, *, whole: bool = False) -> None:
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    # NaN compares false with everything, so it is outside.
    if not (number and 0 <= value <= highest):  # type: ignore[operator]
        raise InvalidSettingsError(f"setting {SETTING}.{name} is {told(value)}; allowed: {allowed}")


def _seconds(value: object) -> float:
    if value == 0 and not isinstance(value, bool):
        return 0
    try:
        return ttl_ms(value) / 1_000
    except InvalidTtlError:
        raise InvalidSettingsError(f"setting {SETTING}.within is {told(value)}; allowed: {_DURATION}") from None


def _unknown(name: object) -> str:
    import difflib

    near = difflib.get_close_matches(str(name)[:64], _FIELDS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_FIELDS)};"
    return f"setting {shown(f'{SETTING}.{name}')} does not exist; {hint} it is ignored"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What retention must know of one backup."""

    id: str
    scope: str
    """The series it belongs to: "" for all addresses, `user` for all of one user, `user/cursor` for one address."""
    created_at_ms: int
    parent: str | None
    """The id of the backup that it builds on."""
    good: bool
    """It was never seen damaged."""
    holds: frozenset[str]
    """The addresses of which it holds a state of its own."""
    failed: frozenset[str]
    """The addresses that could not be backed up in it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What may go and what stays; together all backups that were asked about."""

    remove: tuple[str, ...]
    """Ids, children before their parents: whoever is stopped in between leaves no backup without its parent."""
    keep: dict[str, tuple[str, ...]]
    """The reasons for each id that stays, the newest backup first."""
    refused: str | None
    """Why nothing may be removed."""


def to_remove(backups: Sequence[Kept], unreadable: int, now_ms: int, policy: Policy) -> Verdict:
    """Return which of all backups may be removed; `unreadable` is how many more there are whose manifest is not."""
    newest_first = sorted(backups, key=lambda backup: (backup.created_at_ms, backup.id), reverse=True)
    by_id = {backup.id: backup for backup in newest_first}
    depths = _depths(by_id)
    refused = _contradiction(newest_first, unreadable, now_ms) or _twins_or_circle(newest_first, depths)
    if refused is not None:
        return Verdict((), {backup.id: (refused,) for backup in newest_first}, refused)

    sound = _sound(by_id, depths)
    chosen = _Chosen(newest_first, sound)
    scopes: dict[str, list[Kept]] = {}
    for backup in newest_first:
        scopes.setdefault(backup.scope, []).append(backup)
    for scope, series in scopes.items():
        _choose_of_scope(chosen, scope or "all addresses", series, sound, now_ms, policy)
    _choose_last_states(chosen, newest_first, sound)
    chosen.close()

    # From the oldest on: what is left when it stops halfway is the younger half.
    gone = [backup for backup in reversed(newest_first) if backup.id not in chosen.reasons]
    gone.sort(key=lambda backup: -depths[backup.id])
    keep = {backup.id: chosen.told(backup.id) for backup in newest_first if backup.id in chosen.reasons}
    return Verdict(tuple(backup.id for backup in gone), keep, None)


def _contradiction(newest_first: Sequence[Kept], unreadable: int, now_ms: int) -> str | None:
    if unreadable > 0:
        return "a manifest cannot be read" if unreadable == 1 else f"{unreadable:,} manifests cannot be read"
    if newest_first and now_ms < newest_first[0].created_at_ms:
        early_s = (newest_first[0].created_at_ms - now_ms) / 1_000
        return f"the clock is {early_s:,.3f} s before the newest backup, {newest_first[0].id}"
    return None


def _twins_or_circle(newest_first: Sequence[Kept], depths: Mapping[str | None, int]) -> str | None:
    seen: set[str] = set()
    for backup in newest_first:
        if backup.id in seen:
            return f"two backups have the id {backup.id}"
        if depths[backup.id] == _CIRCLE:
            return f"the chain of {backup.id} never ends"
        seen.add(backup.id)
    return None


def _depths(by_id: Mapping[str, Kept]) -> dict[str | None, int]:
    """Return on how many others each backup builds; _CIRCLE where the chain never ends."""
    depths: dict[str | None, int] = {}
    for start in by_id:
        way, at = [], by_id.get(start)
        while at is not None and at.id not in depths:
            depths[at.id] = _CIRCLE
            way.append(at)
            at = None if at.parent is None else by_id.get(at.parent)
        depth = -1 if at is None else depths[at.id]
        if depth == _CIRCLE:
            continue
        for backup in reversed(way):
            depth += 1
            depths[backup.id] = depth
    return depths


def _sound(by_id: Mapping[str, Kept], depths: Mapping[str | None, int]) -> set[str]:
    """Return the ids of those that can be restored: good, and so is all they build on."""
    sound: set[str] = set()
    for name in sorted(by_id, key=depths.__getitem__):
        backup = by_id[name]
        if backup.good and (backup.parent is None or backup.parent in sound):
            sound.add(name)
    return sound


class _Chosen:
    """The backups that stay, with the reasons, and what follows from one that stays."""

    __slots__ = ("_by_id", "_pending", "_suspects", "rank", "reasons")

    def __init__(self, newest_first: Sequence[Kept], sound: set[str]) -> None:
        self._by_id = {backup.id: backup for backup in newest_first}
        self.rank = {backup.id: rank for rank, backup in enumerate(newest_first)}
        # Rule to names, in the order of choice; a dictionary is a set that keeps its order.
        self.reasons: dict[str, dict[str, dict[str, None]]] = {}
        self._pending: list[Kept] = []
        self._suspects: dict[str, list[Kept]] = {}
        for backup in reversed(newest_first):
            if backup.id not in sound:
                self._suspects.setdefault(backup.scope, []).append(backup)

    def keep(self, backup: Kept, rule: str, name: str = "") -> None:
        """Let a backup stay for this reason too."""
        if backup.id not in self.reasons:
            self.reasons[backup.id] = {}
            self._pending.append(backup)
        self.reasons[backup.id].setdefault(rule, {})[name] = None

    def close(self) -> None:
        """Let everything stay that follows from what stays. Each backup is taken up once, and suspected once."""
        while self._pending:
            backup = self._pending.pop()
            parent = None if backup.parent is None else self._by_id.get(backup.parent)
            if parent is not None:
                self.keep(parent, "needed by", backup.id)
            suspects = self._suspects.get(backup.scope)
            # Somebody may want to look at damage that is younger than what is still there to compare it with.
            while suspects and backup.good and self.rank[suspects[-1].id] < self.rank[backup.id]:
                self.keep(suspects.pop(), "not sound, newer than", backup.id)

    def told(self, name: str) -> tuple[str, ...]:
        """Return the reasons of one that stays, each in a few words."""
        return tuple(_reason(rule, list(names)) for rule, names in self.reasons[name].items())


def _reason(rule: str, names: list[str]) -> str:
    more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    return f"{rule} {names[0]}{more}".rstrip()


def _choose_of_scope(
    chosen: _Chosen, name: str, series: Sequence[Kept], sound: set[str], now_ms: int, policy: Policy
) -> None:
    """Choose what the policy keeps of one scope, its newest backup first."""
    filling = [backup for backup in series if backup.id in sound]
    for number, backup in enumerate(filling[: policy.keep_last], 1):
        chosen.keep(backup, "last", str(number))
    for rule, form in _SLOTS:
        slots: set[str] = set()
        for backup in filling:
            if len(slots) == getattr(policy, rule):
                break
            slot = moment(backup.created_at_ms).strftime(form)
            if slot not in slots:
                slots.add(slot)
                chosen.keep(backup, rule, slot)
    for backup in series:
        # Everything that is younger, damaged or not.
        if now_ms - backup.created_at_ms >= policy.within_s * 1_000:
            break
        chosen.keep(backup, "within")
    if filling:
        chosen.keep(filling[0], "newest good of", name)
    newest_good = next((backup for backup in series if backup.good), None)
    if newest_good is not None:
        chosen.keep(newest_good, "newest good of", name)
    if not filling:
        for backup in series:
            chosen.keep(backup, "no sound one of", name)


def _choose_last_states(chosen: _Chosen, newest_first: Sequence[Kept], sound: set[str]) -> None:
    """Choose the newest good state of each address that could not be backed up since, and the last failure."""
    failure: dict[str, Kept] = {}
    for backup in newest_first:
        for address in sorted(backup.failed.difference(failure)):
            failure[address] = backup
    for trusted in ({backup.id for backup in newest_first if backup.good}, sound):
        sought = set(failure)
        for backup in newest_first:
            if not sought:
                break
            if backup.id not in trusted:
                continue
            held = backup.holds & sought
            sought -= held
            for address in sorted(held):
                if chosen.rank[failure[address].id] < chosen.rank[backup.id]:
                    chosen.keep(backup, "newest good of", address)
                    chosen.keep(failure[address], "last failure of", address)
