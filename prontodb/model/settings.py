"""The settings of one root: each with its default, its allowed range and its meaning; checked when built.

A `Value` and not a dataclass: a one-shot `get` reads the settings too
(`ops/decisions/0002-light-read-path.md`).
"""

from __future__ import annotations

from prontodb.errors import InvalidSettingsError, shown
from prontodb.model.key import MAX_KEY_BYTES
from prontodb.model.limits import MIB, Limits
from prontodb.model.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from prontodb.model.quotas import Quota

FULL = "full"
RELAXED = "relaxed"
LANES = {FULL: 8, RELAXED: 2}
"""Lanes when `lanes` is None: with full durability a lane mostly waits for the disk, so more of them pay."""

MAX_WARNINGS = 20
"""Unknown fields that are named one by one; the rest are counted."""

_LIMITS = Limits()
_TIB = 1024 * 1024 * MIB


class _Rule:
    """What one setting may be: `allowed` says it in words; a bool is never a number."""

    __slots__ = ("allowed", "meaning", "name", "optional")

    def __init__(self, name: str, allowed: str, meaning: str, *, optional: bool = False) -> None:
        self.name, self.meaning, self.optional = name, meaning, optional
        self.allowed = f"{allowed}, or null for no limit" if optional else allowed

    def check(self, value: object) -> None:
        """Raise `InvalidSettingsError` when the setting cannot be `value`."""
        if not (self.optional and value is None) and not self.accepts(value):
            raise InvalidSettingsError(f"setting {self.name} is {told(value)}; allowed: {self.allowed}")

    def accepts(self, value: object) -> bool:
        """Return whether the setting can be `value`; each kind of rule below says it for itself."""
        raise NotImplementedError


class _Choice(_Rule):
    __slots__ = ("choices",)

    def __init__(self, name: str, choices: tuple[str, ...], meaning: str) -> None:
        self.choices = choices
        super().__init__(name, " or ".join(f"'{choice}'" for choice in choices), meaning)

    def accepts(self, value: object) -> bool:
        return isinstance(value, str) and value in self.choices


class _Switch(_Rule):
    __slots__ = ()

    def __init__(self, name: str, meaning: str) -> None:
        super().__init__(name, "true or false", meaning)

    def accepts(self, value: object) -> bool:
        return isinstance(value, bool)


class Range(_Rule):
    __slots__ = ("fractions", "highest", "lowest")

    def __init__(
        self,
        name: str,
        lowest: int,
        highest: int,
        meaning: str,
        *,
        fractions: bool = False,
        optional: bool = False,
    ) -> None:
        self.lowest, self.highest, self.fractions = lowest, highest, fractions
        number = "a number" if fractions else "a whole number"
        super().__init__(name, f"{number} from {lowest:,} to {highest:,}", meaning, optional=optional)

    def accepts(self, value: object) -> bool:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        # NaN compares false with everything, so it is outside every range.
        return (self.fractions or isinstance(value, int)) and self.lowest <= value <= self.highest


def told(value: object) -> str:
    """Return a wrong value for a message: short, on one line, whatever it is."""
    if isinstance(value, str):
        return shown(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63):
        return str(value)
    # A number of any length, or a list of anything: its kind says enough.
    return "a number beyond 64 bits" if isinstance(value, int) else f"a {type(value).__name__}"


_RULES: tuple[_Rule, ...] = (
    _Choice(
        "durability",
        (FULL, RELAXED),
        "'full': acknowledged writes survive a power cut; 'relaxed': the last may not, nothing is damaged",
    ),
    Range("max_key_bytes", 16, MAX_KEY_BYTES, "longest key, in bytes of UTF-8; it can be lowered only"),
    # SQLite refuses a row of 1,000,000,000 bytes; half of that leaves room for key and copies.
    Range("max_value_bytes", 1, 512 * MIB, "longest value, in bytes of UTF-8"),
    Range("max_batch_ops", 1, 100_000, "operations in one batch or transaction"),
    Range("max_batch_bytes", 1, 1024 * MIB, "keys and values of one batch; at least one longest key and value"),
    Range("max_page", 1, 100_000, "entries or keys read in one step of a scan"),
    Range("wait_s", 0, 3_600, "seconds to wait for locks and other sessions; 0 tries once", fractions=True),
    Range("max_entries", 1, 10**12, "entries of one address", optional=True),
    Range("max_keystore_bytes", 65_536, 16 * _TIB, "size of one address's keystore file in bytes", optional=True),
    Range("max_open_keystores", 1, 10_000, "keystores that one process keeps open at once"),
    Range("lanes", 1, 64, "threads that write", optional=True),
    Range("cache_bytes", 0, _TIB, "memory for recent entries of one exclusive session; 0 for no cache"),
    Range("journal_days", 0, 36_500, "days that changes stay in the journal; never less than a backup has yet to see"),
    Range("journal_records", 0, 10**12, "changes that stay in the journal of one address, however young"),
    Range("undo_days", 0, 36_500, "days that a restore can be undone; the old contents take room until then"),
    _Switch("encrypt_new", "encrypt every address that is made from now on; needs a key (see 'prontodb help secret')"),
    _Switch(
        "inline_reads",
        "read small things on the event loop's own thread, which is faster than asking another",
    ),
    _Switch(
        "unsafe_file_system",
        "allow a network file system; right only when one machine alone ever uses the root",
    ),
)
RULE = {rule.name: rule for rule in _RULES}
# The one optional setting whose null is no missing limit.
RULE["lanes"].allowed = f"a whole number from 1 to 64, or null for {LANES[FULL]} (full) or {LANES[RELAXED]} (relaxed)"


class Settings(Value):
    """All settings of one root, passed down once. Sizes in bytes; `wait_s` in seconds; None is no limit.

    Raises `InvalidSettingsError`, naming the setting, what was given and what is allowed.
    """

    __slots__ = (
        "durability",
        "max_key_bytes",
        "max_value_bytes",
        "max_batch_ops",
        "max_batch_bytes",
        "max_page",
        "wait_s",
        "max_entries",
        "max_keystore_bytes",
        "max_open_keystores",
        "lanes",
        "cache_bytes",
        "journal_days",
        "journal_records",
        "undo_days",
        "encrypt_new",
        "inline_reads",
        "unsafe_file_system",
        "quotas",
    )

    durability: str
    max_key_bytes: int
    max_value_bytes: int
    max_batch_ops: int
    max_batch_bytes: int
    max_page: int
    wait_s: float
    max_entries: int | None
    max_keystore_bytes: int | None
    max_open_keystores: int
    lanes: int | None
    cache_bytes: int
    journal_days: int
    journal_records: int
    undo_days: int
    encrypt_new: bool
    inline_reads: bool
    unsafe_file_system: bool
    quotas: tuple[Quota, ...]
    """What some addresses may use; a section of its own in the settings file."""

    def __init__(
        self,
        *,
        durability: str = FULL,
        max_key_bytes: int = _LIMITS.max_key_bytes,
        max_value_bytes: int = _LIMITS.max_value_bytes,
        max_batch_ops: int = _LIMITS.max_batch_ops,
        max_batch_bytes: int = _LIMITS.max_batch_bytes,
        max_page: int = _LIMITS.max_page,
        wait_s: float = _LIMITS.wait_s,
        max_entries: int | None = _LIMITS.max_entries,
        max_keystore_bytes: int | None = _LIMITS.max_keystore_bytes,
        max_open_keystores: int = 256,
        lanes: int | None = None,
        cache_bytes: int = 16 * MIB,
        journal_days: int = 30,
        journal_records: int = 1_000_000,
        undo_days: int = 7,
        encrypt_new: bool = False,
        inline_reads: bool = True,
        unsafe_file_system: bool = False,
        quotas: Iterable[Quota] = (),
    ) -> None:
        self._fill(
            durability,
            max_key_bytes,
            max_value_bytes,
            max_batch_ops,
            max_batch_bytes,
            max_page,
            wait_s,
            max_entries,
            max_keystore_bytes,
            max_open_keystores,
            lanes,
            cache_bytes,
            journal_days,
            journal_records,
            undo_days,
            encrypt_new,
            inline_reads,
            unsafe_file_system,
            tuple(quotas),
        )
        if self.quotas:
            from prontodb.model.quotas import check

            check(self.quotas)
        for rule in _RULES:
            rule.check(getattr(self, rule.name))
        largest = max_key_bytes + max_value_bytes
        if max_batch_bytes < largest:
            raise InvalidSettingsError(
                f"setting max_batch_bytes is {max_batch_bytes}; allowed: at least {largest} "
                "(max_key_bytes + max_value_bytes), so that every entry fits a batch"
            )

    @property
    def limits(self) -> Limits:
        """What one call may ask for."""
        return Limits(**{name: getattr(self, name) for name in Limits.__slots__ if name in self.__slots__})

    @property
    def lane_count(self) -> int:
        """How many lanes write: `lanes`, or what suits the durability."""
        return LANES[self.durability] if self.lanes is None else self.lanes

    def replace(self, **changes: Any) -> Settings:
        """Return these settings with `changes`; an unknown name is refused."""
        for name in changes:
            if name not in self.__slots__:
                raise InvalidSettingsError(_unknown(name))
        return Settings(**{name: changes.get(name, getattr(self, name)) for name in self.__slots__})

    def changed(self) -> dict[str, object]:
        """Return the settings that differ from their defaults, as they stand in the settings file."""
        default = Settings()
        pairs = ((name, getattr(self, name)) for name in RULE)
        return {name: value for name, value in pairs if value != getattr(default, name)}

    def describe(self) -> list[tuple[str, object, object, str]]:
        """Return a row per setting: name, value, default, meaning with the allowed range."""
        default = Settings()
        return [
            (
                rule.name,
                getattr(self, rule.name),
                getattr(default, rule.name),
                f"{rule.meaning} ({rule.allowed})",
            )
            for rule in _RULES
        ]

    @classmethod
    def from_json(cls, fields: object) -> tuple[Settings, list[str]]:
        """Return the settings in a JSON object, and a warning for each field that is no setting.

        No value is converted: a field of another type or out of range raises `InvalidSettingsError`.
        """
        if not isinstance(fields, dict):
            raise InvalidSettingsError(f"the settings must be a JSON object, not {told(fields)}")
        settings = cls(**{name: value for name, value in fields.items() if name in RULE})
        unknown = [name for name in fields if name not in RULE]
        warnings = [f"{_unknown(name)} it is ignored" for name in unknown[:MAX_WARNINGS]]
        if len(unknown) > MAX_WARNINGS:
            warnings.append(f"{len(unknown) - MAX_WARNINGS:,} more settings are unknown and ignored")
        return settings, warnings


def _unknown(name: object) -> str:
    import difflib

    near = difflib.get_close_matches(str(name)[:64], RULE, n=1)
    hint = f"did you mean {near[0]}?" if near else "'prontodb settings show' lists all;"
    return f"setting {shown(name)} does not exist; {hint}"
