"""One tree of errors; the family says what the caller can do.

ProntoError
├── InvalidInputError        correct the call
│   ├── InvalidAddressError, InvalidKeyError, InvalidPathError, InvalidValueError
│   ├── InvalidTtlError, InvalidSettingsError, InvalidImportError, InvalidSourceError, InvalidTokenError
│   ├── LimitError           smaller, or raise the named limit
│   ├── NotANumberError      increment of something that is no whole number
│   └── UnsupportedBackendError
├── NotFoundError            create it
│   └── AddressNotFoundError, SessionNotFoundError, BackupNotFoundError
├── ConflictError            read again, then decide
│   ├── AddressExistsError
│   └── RevisionConflictError
├── BusyError                wait, or ask the holder
│   ├── AddressBusyError
│   └── WaitTimeoutError
├── FencedError              stop: somebody else holds the address now
├── DeniedError              ask for the right
│   └── SandboxedError       leave it to somebody outside of the sandbox
├── SecretError              bring the secret
├── CorruptError             restore
├── NewerFormatError         use a newer ProntoDB
├── StorageFullError         make room
│   └── QuotaExceededError
├── CompactedError           start again from a scan
├── OutcomeUnknownError      read, then decide
└── UnavailableError         mend the environment
    ├── ClosedError, AddressGoneError, ReadOnlyError, StoppedError
    ├── UnsafePathError      somebody else's, a link, or open to others
    └── UnsafeFileSystemError
"""

from __future__ import annotations

_SHOWN_CHARACTERS = 80
_SHOWN_END = 50  # of those: the end of a path is the name of the file


def shown(text: object) -> str:
    """Return `text` quoted for a message: control characters escaped, long texts cut in the middle."""
    whole = text if isinstance(text, str) else repr(text)
    cut = whole
    if len(whole) > _SHOWN_CHARACTERS:
        cut = f"{whole[: _SHOWN_CHARACTERS - _SHOWN_END]}…{whole[-_SHOWN_END:]}"
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
    return f"'{escaped}'"


def told(error: BaseException) -> str:
    """Return what an error says in one line, with its notes: how much was done, and whether that is known."""
    return "; ".join((str(error), *getattr(error, "__notes__", ())))


class ProntoError(Exception):
    """Base of everything that ProntoDB raises on purpose."""

    def __reduce__(self) -> tuple[object, ...]:
        # Messages are built from data: the constructor cannot be called with the message, as pickle would.
        return _rebuild, (type(self), self.args, self.__dict__)

    def copy(self) -> ProntoError:
        """Return the same error again, for another caller: one exception raised twice mixes its tracebacks."""
        return _rebuild(type(self), self.args, dict(self.__dict__))


def _rebuild(kind: type[ProntoError], arguments: tuple[object, ...], facts: dict[str, object]) -> ProntoError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(facts)
    return error


class InvalidInputError(ProntoError, ValueError):
    """What was given cannot be used; nothing was done. Correct the call."""


class InvalidAddressError(InvalidInputError):
    """A user or cursor that cannot name a folder of its own."""


class InvalidKeyError(InvalidInputError):
    """A key outside the grammar: UTF-8, 1 to 1,024 bytes, no control characters."""


class InvalidPathError(InvalidInputError):
    """A path of the command line that names no key."""


class InvalidValueError(InvalidInputError):
    """A value that is not text, or that UTF-8 cannot hold."""


class InvalidTtlError(InvalidInputError):
    """A lifetime that is not a positive duration of at most 100 years."""


class InvalidSettingsError(InvalidInputError):
    """A setting that does not exist, or whose value is out of range."""


class InvalidImportError(InvalidInputError):
    """A line of an import that is not an exported entry."""


class InvalidSourceError(InvalidInputError):
    """What a migration was to read is no database of the old program, or a damaged one; nothing was imported."""


class LimitError(InvalidInputError):
    """A named limit was passed; `limit`, `allowed` and `given` say which and by how much."""

    def __init__(self, limit: str, allowed: int, given: int) -> None:
        self.limit, self.allowed, self.given = limit, allowed, given
        super().__init__(f"{limit} is {allowed:,}, but {given:,} were given; see 'prontodb settings show'")


class NotANumberError(InvalidInputError):
    """The stored value is not a whole number that can be raised."""


class UnsupportedBackendError(InvalidInputError):
    """ProntoDB runs on asyncio alone (aiosqlite awaits asyncio futures)."""


class NotFoundError(ProntoError):
    """What was named does not exist."""


class AddressNotFoundError(NotFoundError):
    """No keystore lies at this address."""

    def __init__(self, address: object) -> None:
        self.address = address
        super().__init__(f"address {address} does not exist; 'prontodb address create {address}' makes it")


class SessionNotFoundError(NotFoundError):
    """No live session has this id."""

    def __init__(self, session: str) -> None:
        self.session = session
        super().__init__(f"session {shown(session)} has ended or never was; 'prontodb session list' shows who is there")


class BackupNotFoundError(NotFoundError):
    """There is no such backup here, or it was pruned at this moment."""

    def __init__(self, backup: str) -> None:
        self.backup = backup
        super().__init__(f"backup {shown(backup)} is not here (any more); 'prontodb backup list' shows all")


class ConflictError(ProntoError):
    """What was expected is no longer so; nothing was written."""


class AddressExistsError(ConflictError):
    """The address is taken, or one that differs only in case is."""


class RevisionConflictError(ConflictError):
    """An operation expected another revision of `key`; `expected` 0 means absent."""

    def __init__(self, key: str, expected: int, found: int) -> None:
        self.key, self.expected, self.found = key, expected, found
        want = f"at revision {expected}" if expected else "absent"
        have = f"at revision {found}" if found else "absent"
        super().__init__(f"key {shown(key)} was expected {want} and is {have}; nothing was written")


class BusyError(ProntoError):
    """Somebody else holds what is needed, and the deadline passed. Wait and try again.

    `holder` is the `Holder` that the lock file names, where there is one.
    """

    def __init__(self, message: str, holder: object = None) -> None:
        self.holder = holder
        super().__init__(message)


class AddressBusyError(BusyError):
    """An address is held: `holders` are those who hold it, as far as they are known; the message says the way out."""

    def __init__(self, address: object, reason: str, holders: tuple[object, ...] = ()) -> None:
        self.address, self.holders = address, holders
        super().__init__(f"address {address} is busy: {reason}", holders[0] if holders else None)


class WaitTimeoutError(BusyError, TimeoutError):
    """What was waited for did not come in the time given."""


class FencedError(ProntoError):
    """This session was ended by somebody else; the write was refused. Stop, or open a new session."""


class DeniedError(ProntoError):
    """An access rule, or a token, refuses this; nothing was done, and nothing was looked at.

    `principal` is who asked: a declared name, a token's chain of issuers, or None. `address` is an address or pattern
    as text, None for what is of no address. `key` is a key, or with `is_prefix` what keys begin with; None: all.
    """

    def __init__(
        self,
        right: str,
        address: object = None,
        key: str | None = None,
        *,
        is_prefix: bool = False,
        principal: str | None = None,
        by_token: bool = False,
        reason: str = "",
    ) -> None:
        self.right, self.key, self.is_prefix = right, key, is_prefix
        self.address = None if address is None else str(address)
        self.principal, self.by_token, self.reason = principal, by_token, reason
        if by_token:
            who = f"the token of {principal}" if principal else "the token"
        else:
            who = "a caller without a principal" if principal is None else f"principal {shown(principal)}"
        what = "this root" if address is None else "all addresses" if self.address == "*/*" else self.address
        if key:
            what = f"{'keys that begin with' if is_prefix else 'key'} {shown(key)} at {what}"
        why = reason or "no access rule allows it ('prontodb access explain' says more)"
        super().__init__(f"{who} may not {_VERBS.get(right, right)} {what}: {why}")


_VERBS = {"admin": "administer", "write": "write to"}


class InvalidTokenError(InvalidInputError):
    """A text that is no token, or a caveat that would widen one. Never shows the token."""


class SandboxedError(DeniedError):
    """The kernel refuses this to a command in a sandbox: it is not of the address that the sandbox is for.

    No rule was asked, so there is no `right`, and nobody in particular who asked.
    """

    def __init__(self, message: str) -> None:
        self.right, self.key, self.is_prefix, self.address = "", None, False, None
        self.principal, self.by_token, self.reason = None, False, message
        super(DeniedError, self).__init__(message)


class SecretError(ProntoError):
    """A secret is needed that was not given, or the one given is wrong."""


class CorruptError(ProntoError):
    """Stored data is damaged or is not ours; it was left untouched. Restore it from a backup."""


class NewerFormatError(ProntoError):
    """Written by a newer ProntoDB; left untouched."""

    def __init__(self, what: str, found: int, supported: int) -> None:
        self.found, self.supported = found, supported
        super().__init__(f"{what} has format {found}; this ProntoDB knows formats up to {supported}: use a newer one")


class StorageFullError(ProntoError):
    """The disk, a disk quota or a file size limit is full; the write was refused, what is stored stays readable."""


RAISE = "raise it ('prontodb settings show' has the setting and the rules in quotas)"


class QuotaExceededError(StorageFullError):
    """The address has reached its own quota; deleting always works.

    `quota` and `allowed` say which; `retry_after_s` how long to wait where waiting helps, else None.
    """

    def __init__(self, quota: str, allowed: int, retry_after_s: float | None = None, *, given: int = 0) -> None:
        self.quota, self.allowed, self.retry_after_s = quota, allowed, retry_after_s
        reached = f"{quota} of {allowed:,} is reached at this address"
        if given > allowed:
            message = (
                f"{quota} is {allowed:,} at this address, which {given:,} changes at once can never keep; split them"
            )
        elif retry_after_s is not None:
            message = f"{reached}; try again in {retry_after_s:g} s"
        elif quota == "max_keystore_bytes":
            # An address may be full of its own history, and a deletion adds a record to that.
            message = (
                f"{reached}; delete something, have its journal pruned ('prontodb jobs once compact', as far as the "
                f"settings journal_days and journal_records allow) or {RAISE}"
            )
        else:
            message = f"{reached}; delete something or {RAISE}"
        super().__init__(message)


REFUSALS = (DeniedError, SecretError, FencedError, QuotaExceededError, CorruptError)
"""What the log of denied and refused calls is for: rights, secrets, lost sessions, quotas, damage; no conflicts, misses
and waits."""


class CompactedError(ProntoError):
    """The changes asked for are no longer kept, or the keystore was replaced: start again from a scan."""


class OutcomeUnknownError(ProntoError):
    """The write may or may not have happened: read before writing again."""


UNKNOWN_NOTE = "ProntoDB: outcome unknown"
"""How the note on a cancelled write begins that may or may not have been committed."""


COMMITTED_NOTE = "ProntoDB: the write was committed"
"""How the note on a cancelled write begins whose commit was under way and has come to its end."""


def outcome_is_unknown(error: BaseException) -> bool:
    """True when a write that ended with this error may or may not have happened."""
    notes = getattr(error, "__notes__", ())
    return isinstance(error, OutcomeUnknownError) or any(note.startswith(UNKNOWN_NOTE) for note in notes)


def was_committed(error: BaseException) -> bool:
    """True when a write that ended with this error was made all the same: cancelled while its commit was under way.

    False and not `outcome_is_unknown`: nothing was written.
    """
    return any(note.startswith(COMMITTED_NOTE) for note in getattr(error, "__notes__", ()))


class UnavailableError(ProntoError):
    """The keystore cannot be used now, for a reason outside it."""


class ClosedError(UnavailableError):
    """The handle or its manager is closed, or belongs to another process (after a fork)."""


class AddressGoneError(UnavailableError):
    """The folder of an open address was renamed, removed or replaced; nothing was written."""


class StoppedError(UnavailableError):
    """A long work was stopped in the middle; what it had begun was taken back."""


class ReadOnlyError(UnavailableError):
    """The file system or the folder cannot be written; reading works."""


class UnsafePathError(UnavailableError):
    """A path below the root is a link, a device, not ours, or open to others; it was not followed."""


class UnsafeFileSystemError(UnavailableError):
    """The root lies on a file system where SQLite's locks are not safe."""
