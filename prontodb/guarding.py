"""What a manager asks before it does anything; and its access rules and tokens themselves."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

from prontodb import tokens
from prontodb.errors import InvalidInputError
from prontodb.model.access import ADMIN, EVERYWHERE, READ, Grant
from prontodb.model.address import as_address
from prontodb.registry import grants
from prontodb.storage.confined import check_is_outside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prontodb.access import Access, Caller, Gate
    from prontodb.engine.sqlite.engine import SqliteEngine
    from prontodb.keystore import Keystore
    from prontodb.model.address import Address
    from prontodb.model.layout import Layout
    from prontodb.model.limits import Limits

    T = TypeVar("T")


class Guard:
    """Asks for whoever opened a manager. A token is verified on a side thread, since that reads files."""

    def __init__(self, caller: Caller, engine: SqliteEngine) -> None:
        self.caller, self._engine = caller, engine

    @property
    def access(self) -> Access:
        """The rules of the root."""
        return self.caller.access

    async def allow(self, right: str, place: object = EVERYWHERE, prefix: str = "") -> None:
        """Raise `DeniedError` unless the caller has a right to all keys that begin with `prefix` at all of `place`."""
        if place == EVERYWHERE:
            await self._beside(lambda: check_is_outside(self.access.layout.root))
        if not self.caller.is_open:
            await self._beside(lambda: self.caller.allow(right, place, prefix))

    async def allow_restore(self, scope: str, target: Address | None, into: Layout | None) -> None:
        """See `Caller.allow_restore`; another root has rules of its own."""
        await self._beside(lambda: check_is_outside(self.access.layout.root))
        if into is not None or not self.caller.is_open:
            await self._beside(lambda: self.caller.allow_restore(scope, target, into))

    async def gate(self, address: Address, caller: Caller | None = None) -> Gate | None:
        """Return what stands before the handles of an address; None when nothing is to be asked."""
        asker = caller or self.caller
        return None if asker.is_open else await self._beside(lambda: asker.gate(address))

    def check_handle(self, keystore: Keystore) -> None:
        """Refuse the handle of a session that has ended (`ClosedError`), or that another manager opened."""
        keystore._check_open()
        if not self.access.holds(keystore):
            raise InvalidInputError(
                f"the handle of {keystore.address} is of another manager, whose root and rules are its own; give one "
                "of this manager's sessions, or the address"
            )

    async def seen(self) -> Callable[[object], bool]:
        """Return what tells of an address whether the caller may know of it."""
        return (lambda _: True) if self.caller.is_open else await self._beside(self.caller.seen)

    async def _beside(self, work: Callable[[], T]) -> T:
        return await self._engine.beside(work, brief=True)


class AccessBook:
    """The access rules and tokens of one root: `manager.access`."""

    def __init__(self, guard: Guard, engine: SqliteEngine, limits: Limits) -> None:
        self._guard, self._caller, self._engine, self._limits = guard, guard.caller, engine, limits
        self._layout, self._clock = guard.access.layout, guard.access.clock

    async def list(self) -> list[Grant]:
        """Return the access rules, in their order; none means that everything is open to everybody."""
        return list(self._guard.access.fresh().rules.grants)

    async def add(self, principal: str, addresses: str, rights: str | Iterable[str], *, prefix: str = "") -> bool:
        """Give a principal rights at the addresses of a pattern; False when it has just that already.

        Takes admin on all those addresses. The first grant must give admin on all addresses (`ConflictError`).
        """
        return await self._change(grants.add, Grant(principal, addresses, prefix, _several(rights)))

    async def remove(
        self, principal: str, addresses: str, rights: str | Iterable[str], *, prefix: str = "", last: bool = False
    ) -> bool:
        """Take away a grant, given as `list()` has it. With the last one, which needs `last`, everything is open."""
        remove = partial(grants.remove, last=last)
        return await self._change(remove, Grant(principal, addresses, prefix, _several(rights)))

    async def _change(self, change: Callable[..., bool], grant: Grant) -> bool:
        await self._refuse_token("changing the access rules", grant.addresses)
        work = partial(change, self._layout, grant, principal=self._caller.principal, wait_s=self._limits.wait_s)
        changed = await self._engine.beside(work)
        self._guard.access.look()
        return changed

    async def _refuse_token(self, what: str, place: object) -> None:
        if self._caller.token is not None:
            await self._engine.beside(lambda: self._caller.refuse_token(what, place), brief=True)

    async def mint(
        self,
        address: Address | str,
        *,
        prefix: str = "",
        rights: str | Iterable[str] = READ,
        expires: float | str = tokens.DEFAULT_LIFETIME,
        by: str | None = None,
    ) -> str:
        """Return a token for an address: whoever holds it may do there what `rights` say, under `prefix`, for a time.

        `expires` in seconds, or text like '15m'. `by` names who issues it, the declared principal by default. Takes
        admin there, declared and not by a token. `prontodb.tokens.narrow` makes a lesser one of it.
        """
        wanted, issuer = as_address(address), by or self._caller.principal
        if issuer is None:
            raise InvalidInputError(
                "a token names who issues it: give by=NAME, or open the manager with principal=NAME"
            )
        await self._refuse_token("minting a token", wanted)
        await self._guard.allow(ADMIN, wanted)
        mint = partial(
            tokens.mint,
            prefix=prefix,
            rights=_several(rights),
            expires=expires,
            by=issuer,
            limits=self._limits,
            clock=self._clock,
        )
        return await self._engine.beside(lambda: mint(self._layout, wanted))

    async def revoke(self, address: Address | str) -> int:
        """End all tokens of an address, those cut down from them and what is open by them; return their new epoch.

        Writing with one ends at once, reading within about a second. Takes admin there.
        """
        wanted = as_address(address)
        await self._guard.allow(ADMIN, wanted)
        work = partial(tokens.revoke, self._layout, wanted, limits=self._limits, clock=self._clock)
        return await self._engine.beside(work)


def _several(rights: str | Iterable[str]) -> object:
    return rights if isinstance(rights, str) or not hasattr(rights, "__iter__") else list(rights)
