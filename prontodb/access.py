"""Who asks, and what they may do: the rules of a root kept up to date, and the gate in front of each handle.

Every question is answered before anything is looked at, so that a denial tells nothing about what exists.
"""

from __future__ import annotations

from _thread import allocate_lock
from contextlib import contextmanager
from time import perf_counter

from prontodb.denials import denied
from prontodb.errors import CorruptError, InvalidInputError, NewerFormatError, ProntoError
from prontodb.log import event
from prontodb.model.access import ADMIN, EVERYWHERE, READ, RIGHTS, WRITE, Rules, check_principal
from prontodb.model.address import Address
from prontodb.model.operation import CHECK, Fence
from prontodb.registry import configuration, grants

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
    from typing import Protocol

    from prontodb.errors import DeniedError
    from prontodb.model.clock import Clock
    from prontodb.model.layout import Layout
    from prontodb.model.operation import Op
    from prontodb.tokens import Verified

    class Handle(Protocol):
        """What is asked of a keystore's handle."""

        _gate: Gate | None

        @property
        def address(self) -> Address: ...

        def _guarded_by(self, gate: Gate | None) -> None: ...


LOOK_S = 1.0
"""How old the rules may be that a handle goes by: what is taken away ends within about this time."""

_NOTHING: dict[str, tuple[str, ...]] = dict.fromkeys(RIGHTS, ())


class Access:
    """The access rules of one root, as they stand in its settings file now."""

    def __init__(self, layout: Layout, clock: Clock) -> None:
        """Read the rules; raises when there are any that cannot be read."""
        self.layout, self.clock = layout, clock
        # The stamp first: what changes meanwhile is then read once more, and not missed.
        self._stamp = configuration.stamp(layout)
        self.rules = grants.rules(layout)
        self.trouble: ProntoError | None = None
        """Why the rules cannot be read now; then nothing is allowed."""
        self.version = 0
        """Rises whenever the rules change."""
        self.looked_at = perf_counter()
        self._told: str | None = None
        self._looking = allocate_lock()  # of the interpreter itself: threading is too much for a command
        self._followed = 0
        self._handles: dict[Handle, Caller] = {}

    @property
    def is_open(self) -> bool:
        """True while no grant exists, and everybody may do everything."""
        return self.rules.are_open and self.trouble is None

    def fresh(self) -> Access:
        """Return itself, with rules that are at most LOOK_S old."""
        if perf_counter() - self.looked_at > LOOK_S:
            self.look()
        return self

    def look(self) -> None:
        """Read the rules again if the settings file has changed. Any thread may; handles follow in `watch`."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        self.looked_at = perf_counter()
        try:
            stamp = configuration.stamp(self.layout)
            if stamp == self._stamp and self.trouble is None:
                return
            rules, trouble = grants.rules(self.layout), None
        except (ProntoError, OSError) as error:
            told = error if isinstance(error, ProntoError) else CorruptError(f"the settings file: {error.strerror}")
            if str(told) != self._told:
                self._told = str(told)
                event("access.unreadable", reason=self._told)
            # A file that is no settings file at all does not say that there are rules; where there were, it closes.
            if self.is_open and isinstance(told, (CorruptError, NewerFormatError)):
                return
            rules, trouble, stamp = Rules(), told, None
        self._stamp = stamp
        self._told = None if trouble is None else self._told
        if (rules, trouble is None) == (self.rules, self.trouble is None):
            self.trouble = trouble  # what is wrong may be another thing by now
            return
        self.rules, self.trouble = rules, trouble
        self.version += 1
        event("access.changed", grants=len(rules.grants), readable=trouble is None)

    # Open handles

    @contextmanager
    def holding(self, keystore: Handle, caller: Caller, gate: Gate | None) -> Iterator[None]:
        """Put a handle behind a gate, and keep it behind the right one as the rules change, for the block."""
        if caller.token is None:
            # Opening may have taken its time, and the rules may have changed since the gate was made.
            gate = caller.gate(keystore.address)
        if gate is not None:
            keystore._guarded_by(gate)
        self._handles[keystore] = caller
        try:
            yield
        finally:
            del self._handles[keystore]

    def holds(self, keystore: Handle) -> bool:
        """True for a handle of a session that is open by these rules."""
        return keystore in self._handles

    async def watch(self, beside: Callable[[Callable[[], object]], Awaitable[object]]) -> None:
        """Look about once a second for changed rules and revoked tokens; runs until cancelled."""
        import anyio

        while True:
            await anyio.sleep(LOOK_S)
            self.look()
            if self._followed != self.version:
                self._followed = self.version
                for keystore, caller in self._handles.items():
                    if caller.token is None:
                        keystore._guarded_by(caller.gate(keystore.address))
            for keystore in [one for one, caller in self._handles.items() if caller.token is not None]:
                gate = keystore._gate
                if gate is not None:
                    try:
                        await beside(gate.look_at_token)
                    except (ProntoError, OSError) as error:
                        event("access.not_looked", address=keystore.address, reason=str(error))


class Caller:
    """One who asks: under a declared name, or with a token that proves what it may do. The token is a secret."""

    def __init__(self, access: Access, principal: str | None = None, token: str | None = None) -> None:
        self.access, self.token = access, token
        self.principal = None if principal is None else check_principal(principal)

    def __repr__(self) -> str:
        return f"<Caller {'with a token' if self.token is not None else self.principal}>"

    @property
    def is_open(self) -> bool:
        """True when nothing is to be asked: no grant exists, and no token is shown."""
        return self.token is None and self.access.fresh().is_open

    # Deciding

    def reach(self, place: object) -> _Reach:
        """Return what the caller may do at all of `place`, an address or a pattern of addresses."""
        access = self.access.fresh()
        if self.token is not None:
            return self._proven(place)
        if access.trouble is not None:
            return _Reach(_NOTHING, f"the access rules cannot be read: {access.trouble}")
        rules = access.rules  # one state of them, whoever reads them anew meanwhile
        return _Reach({right: rules.prefixes(self.principal, place, right) for right in RIGHTS})

    def _proven(self, place: object) -> _Reach:
        from prontodb import tokens

        assert self.token is not None
        try:
            verified = tokens.verify(self.access.layout, self.token, self.access.clock)
        except tokens.RefusedError as error:
            return _Reach(_NOTHING, str(error))
        return _Reach({right: verified.claims.prefixes(place, right) for right in RIGHTS}, _BEYOND, verified)

    def allow(self, right: str, place: object, text: str = "") -> None:
        """Raise `DeniedError` unless the caller has a right to all keys that begin with `text` at all of `place`."""
        reach = self.reach(place)
        if not text.startswith(reach.prefixes[right]):
            raise self._denied(reach, right, place, text or None, is_prefix=True)

    def may(self, right: str, place: object) -> bool:
        """True when the caller has a right to all of `place`; a denial that is said otherwise is made of it."""
        return "" in self.reach(place).prefixes[right]

    def seen(self) -> Callable[[object], bool]:
        """Return what tells of an address whether the caller has any right to anything there, and so may know of it."""
        access = self.access.fresh()
        if self.token is not None:
            verified = self._proven("").verified
            return lambda address: (
                verified is not None and any(verified.claims.prefixes(address, right) for right in RIGHTS)
            )
        if access.trouble is not None:
            return lambda _: False
        rules = access.rules
        return lambda address: rules.sees(self.principal, address)

    def allow_restore(self, scope: str, target: object = None, into: Layout | None = None) -> None:
        """Raise `DeniedError` unless the caller may bring back all of `scope`, or as `target`, or into another root."""
        if target is not None or into is not None:
            self.allow(READ, scope)
        if into is None:
            self.allow(ADMIN, target or scope)
            return
        # What is there is guarded by its own rules; a token is of one root alone.
        Caller(Access(into, self.access.clock), self.principal, self.token).allow(ADMIN, target or scope)

    def refuse_token(self, what: str, place: object) -> None:
        """Raise when a token is shown for what no token can do: it would become more than it is."""
        if self.token is not None:
            found = self._proven(place)
            reason = f"{what} takes a declared principal; a token is narrowed instead"
            raise self._denied(_Reach(_NOTHING, reason, found.verified), ADMIN, place)

    def _denied(
        self, reach: _Reach, right: str, place: object, key: str | None = None, *, is_prefix: bool = False
    ) -> DeniedError:
        principal = self.principal
        if self.token is not None:
            principal = None if reach.verified is None else reach.verified.claims.issuers
        return denied(
            right,
            place,
            key,
            is_prefix=is_prefix,
            principal=principal,
            by_token=self.token is not None,
            reason=reach.reason,
            root=self.access.layout.root,
        )

    # Handles

    def gate(self, address: object) -> Gate | None:
        """Return what stands before the handles of an address; None when nothing is to be asked."""
        return None if self.is_open else Gate(self, address)

    def fence(self, session: str, epoch: int | None = None, *, gate: Gate | None = None) -> Fence:
        """Return what a session writes under: the journal names on whose behalf, where anything is to be asked."""
        if gate is None:
            return Fence(session, epoch)
        verified = gate.verified
        if verified is not None:
            return Fence(session, epoch, f"{session} via {verified.claims.issuers}", verified.minted_for.epoch)
        return Fence(session, epoch, None if self.principal is None else f"{session} as {self.principal}")


class _Reach:
    """What one caller may do at one place: by right, what keys may begin with; and why no more."""

    __slots__ = ("prefixes", "reason", "verified")

    def __init__(
        self, prefixes: dict[str, tuple[str, ...]], reason: str = "", verified: Verified | None = None
    ) -> None:
        self.prefixes, self.reason, self.verified = prefixes, reason, verified


_BEYOND = "it was not minted for that, or it was cut down since ('prontodb token show' says what it allows)"


class Gate:
    """What one caller may do at one address, asked before every operation of a handle."""

    __slots__ = ("_access", "_address", "_caller", "_ends_at_ms", "_prefixes", "_reach", "_version")

    def __init__(self, caller: Caller, address: object) -> None:
        self._caller, self._access, self._address = caller, caller.access, address
        self._ends_at_ms: int | None = None
        self._compile()

    def _compile(self) -> None:
        self._version = self._access.version
        self._reach = self._caller.reach(self._address)
        self._prefixes = self._reach.prefixes
        if self._reach.verified is not None:
            self._ends_at_ms = self._reach.verified.claims.expires_at_ms

    @property
    def verified(self) -> Verified | None:
        """The token by which the handle was opened; None when it was by rules."""
        return self._reach.verified

    @property
    def may_create(self) -> bool:
        """True when the caller may make the address: by writing anything there, or as its administrator."""
        return "" in self._prefixes[WRITE] or "" in self._prefixes[ADMIN]

    def check(self, right: str, key: str, is_prefix: bool = False) -> None:
        """Raise `DeniedError` unless the caller has a right to a key, or with `is_prefix` to all that begin with it."""
        access = self._access
        if perf_counter() - access.looked_at > LOOK_S:
            access.look()
        if self._ends_at_ms is not None:
            if access.clock.wall_ms() >= self._ends_at_ms:
                self._end("it has expired")
        elif self._version != access.version and self._caller.token is None:
            self._compile()
        if not key.startswith(self._prefixes[right]):
            raise self._caller._denied(self._reach, right, self._address, key or None, is_prefix=is_prefix)

    def check_any(self, *rights: str) -> None:
        """Raise `DeniedError` unless the caller has one of `rights` to something at the address."""
        if not any(self._prefixes[right] for right in rights):
            raise self._caller._denied(self._reach, rights[0], self._address)

    def check_keys(self, rights: Iterable[str], keys: Sequence[str]) -> None:
        """Raise `DeniedError` unless the caller has all of `rights` to all of `keys`."""
        for right in rights:
            for key in keys:
                self.check(right, key)

    def check_ops(self, ops: Sequence[Op]) -> None:
        """Raise `DeniedError` unless all operations are allowed: what depends on what is there reads it."""
        for op in ops:
            if op.ttl_ms != CHECK:
                self.check(WRITE, op.key)
            if op.expect is not None:
                self.check(READ, op.key)

    # Tokens

    def look_at_token(self) -> None:
        """End what the token allows, for good, once it was revoked or its address is another keystore."""
        from prontodb import tokens

        verified = self._reach.verified
        if verified is None:
            return
        try:
            tokens.check_current(self._access.layout, verified.minted_for)
        except tokens.RefusedError as error:
            self._end(str(error))

    def _end(self, reason: str) -> None:
        # For good: a clock that is set back must not bring a token to life again.
        self._prefixes = _NOTHING
        self._reach = _Reach(_NOTHING, reason, self._reach.verified)


def scope_of(user: str | None, cursor: str | None = None) -> str:
    """Return the pattern of one user's addresses, of one of them, or of all."""
    if user is None:
        return EVERYWHERE
    named = Address(user) if cursor is None else Address(user, cursor)
    return f"{user}/*" if cursor is None else str(named)


def checked_token(token: object) -> str:
    """Return a token given by an application; whether it is one, its root says later."""
    if not isinstance(token, str):
        raise InvalidInputError(f"a token is text, not {type(token).__name__}")
    return token
