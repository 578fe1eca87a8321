"""What addresses may use: rules by pattern, read from the section "quotas" of the settings file. Pure."""

from __future__ import annotations

from prontodb.errors import InvalidInputError, InvalidSettingsError, shown
from prontodb.model.limits import Limits
from prontodb.model.pattern import Pattern
from prontodb.model.settings import RULE, Range, told
from prontodb.model.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from prontodb.model.address import Address

MAX_RULES = 1_000
"""Each opening of an address looks at all of them."""

ENTRIES, BYTES, RATE, SOFT = "max_entries", "max_keystore_bytes", "writes_per_second", "soft"
ADDRESSES = "addresses"

_RANGES = {
    ENTRIES: RULE[ENTRIES],
    BYTES: RULE[BYTES],
    RATE: Range(RATE, 1, 10**6, "changes in any second, by all processes together", optional=True),
    SOFT: Range(SOFT, 0, 1, "the part of a quota from which on it is told of", fractions=True),
}


class Quota(Value):
    """One rule: what the addresses that match `addresses` may use. What is not given is left to other rules.

    None takes a limit away that a less exact rule or the root's settings would set.
    Raises `InvalidSettingsError`, naming the field, what was given and what is allowed.
    """

    __slots__ = ("addresses", "given")

    addresses: Pattern
    given: tuple[tuple[str, int | float | None], ...]

    def __init__(self, addresses: Pattern | str, /, **limits: int | float | None) -> None:
        if not isinstance(addresses, Pattern):
            try:
                addresses = Pattern.parse(addresses)
            except InvalidInputError as error:
                raise InvalidSettingsError(f"field {ADDRESSES}: {error}") from None
        for name, value in limits.items():
            if name not in _RANGES:
                raise InvalidSettingsError(f"field {shown(name)} does not exist; allowed: {', '.join(_RANGES)}")
            try:
                _RANGES[name].check(value)
            except InvalidSettingsError as error:
                raise InvalidSettingsError(str(error).replace("setting", "field", 1)) from None
        if not limits:
            raise InvalidSettingsError(f"no limit is given; allowed: {', '.join(_RANGES)}")
        self._fill(addresses, tuple(sorted(limits.items())))

    def as_json(self) -> dict[str, object]:
        """Return the rule as it stands in the settings file."""
        return {ADDRESSES: str(self.addresses), **dict(self.given)}

    def __str__(self) -> str:
        limits = " ".join(f"{name}={'none' if value is None else value}" for name, value in self.given)
        return f"{self.addresses} {limits}"


def parse(section: object) -> tuple[Quota, ...]:
    """Return the rules in the section; `InvalidSettingsError` names the rule and the field that is wrong."""
    if not isinstance(section, list):
        raise InvalidSettingsError(f"quotas is {told(section)}; allowed: a list of rules")
    rules = []
    for number, fields in enumerate(section[: MAX_RULES + 1]):
        if not isinstance(fields, dict):
            raise InvalidSettingsError(f"quotas[{number}] is {told(fields)}; allowed: an object with {ADDRESSES!r}")
        if ADDRESSES not in fields:
            raise InvalidSettingsError(f"quotas[{number}]: field {ADDRESSES} is missing, such as 'agent1/*'")
        try:
            rules.append(Quota(fields[ADDRESSES], **{name: fields[name] for name in fields if name != ADDRESSES}))
        except InvalidSettingsError as error:
            raise InvalidSettingsError(f"quotas[{number}]: {error}") from None
    check(rules)
    return tuple(rules)


def check(rules: Sequence[object]) -> None:
    """Raise when these cannot be the rules of one root: too many, or two for the same pattern."""
    if len(rules) > MAX_RULES:
        raise InvalidSettingsError(f"quotas has more than {MAX_RULES:,} rules; allowed: at most so many")
    seen: set[Pattern] = set()
    for rule in rules:
        if not isinstance(rule, Quota):
            raise InvalidSettingsError(f"quotas must hold prontodb.Quota(...), not {type(rule).__name__}")
        if rule.addresses in seen:
            raise InvalidSettingsError(f"quotas has two rules for {rule.addresses}; put their limits into one")
        seen.add(rule.addresses)


def applied(limits: Limits, address: Address) -> Limits:
    """Return the limits of one address: for each, the most exact rule that sets it, else the root's settings."""
    found: dict[str, Any] = {}
    for rule in sorted((rule for rule in limits.quotas if rule.addresses.matches(address)), key=_weight):
        found.update(rule.given)
    return _with(limits, {**found, "quotas": ()})


def unhurried(limits: Limits) -> Limits:
    """Return limits without a rate: an address that is built beside its place and put in whole is one act."""
    return limits if limits.writes_per_second is None else _with(limits, {RATE: None})


def _with(limits: Limits, changes: dict[str, Any]) -> Limits:
    return Limits(**{name: changes.get(name, getattr(limits, name)) for name in Limits.__slots__})


def _weight(rule: Quota) -> tuple[int, int, int, int]:
    return rule.addresses.weight
