"""The same for programs without an event loop: `with prontodb.blocking.open() as manager`, usable from every thread.

One loop runs in a thread of its own while the manager is open, and each call waits for its end there. Names, arguments,
results and errors are those of `prontodb.open` and its handles; where those are awaited, these return, and where those
are iterated with `async for`, these are with `for`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from threading import get_ident
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar, cast

from anyio.from_thread import start_blocking_portal

from prontodb import keystore, manager, transaction, watching
from prontodb.errors import ClosedError
from prontodb.model.address import DEFAULT_NAME
from prontodb.model.holder import EXCLUSIVE

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from anyio.from_thread import BlockingPortal

    from prontodb.cache import CacheReport
    from prontodb.model.address import Address
    from prontodb.model.entry import Entry
    from prontodb.model.operation import Change
    from prontodb.model.reports import CopyReport
    from prontodb.model.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")
Behind = TypeVar("Behind")

PAGE = 256
"""Entries or lines that one call into the loop brings back."""


class _Loop:
    """The event loop in its thread, and who asks it."""

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self._thread = portal.call(get_ident)
        self.running = True

    def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Run a coroutine there and wait for its end."""
        self._check()
        try:
            return self._portal.call(call)
        except RuntimeError:
            self._check()  # closed by another thread in this instant
            raise

    def within(self, opened: AbstractAsyncContextManager[T]) -> AbstractContextManager[T]:
        """Return an async context manager for use with `with`."""
        self._check()
        return self._portal.wrap_async_context_manager(opened)

    def _check(self) -> None:
        if not self.running:
            raise ClosedError("the manager is closed")
        if get_ident() == self._thread:
            raise ClosedError(
                "this is the event loop's own thread, which cannot wait for itself; use prontodb.open there"
            )


class _Front(Protocol[Behind]):
    """What stands before an object of the async side."""

    _loop: _Loop
    _behind: Behind


def _waiting(
    method: Callable[Concatenate[Behind, P], Awaitable[T]],
) -> Callable[Concatenate[_Front[Behind], P], T]:
    """Return a method that runs an async one to its end."""

    @wraps(method)
    def call(self: _Front[Behind], *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.run(partial(method, self._behind, *args, **kwargs))

    # To the type checker `wraps` returns something that is no method.
    return cast("Callable[Concatenate[_Front[Behind], P], T]", call)


def _iterated(loop: _Loop, found: AsyncIterator[T]) -> Iterator[T]:
    """Yield what an async iterator brings, page by page."""

    async def page() -> list[T]:
        taken: list[T] = []
        async for item in found:
            taken.append(item)
            if len(taken) == PAGE:
                break
        return taken

    while taken := loop.run(page):
        yield from taken


class Watch:
    """Changes as they happen; see `prontodb.Keystore.watch`."""

    def __init__(self, loop: _Loop, behind: watching.Watch) -> None:
        self._loop, self._behind = loop, behind

    start = _waiting(watching.Watch.start)

    @property
    def position(self) -> str | None:
        """Where a later watch can go on."""
        return self._behind.position

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> Change:
        """Wait for the next change; the end of the session ends the wait with `ClosedError`."""
        return self._loop.run(self._behind.__anext__)


class Transaction:
    """Collected, then applied all or nothing; see `prontodb.Keystore.transaction`."""

    def __init__(self, loop: _Loop, behind: transaction.Transaction) -> None:
        self._loop, self._behind = loop, behind

    get = _waiting(transaction.Transaction.get)
    exists = _waiting(transaction.Transaction.exists)

    def set(self, key: str, value: str, *, ttl: keystore.Ttl = None) -> None:
        """Collect a write; it is applied at the end of the block."""
        self._behind.set(key, value, ttl=ttl)

    def delete(self, key: str) -> None:
        """Collect a deletion; it is applied at the end of the block."""
        self._behind.delete(key)


class Keystore:
    """One address's keystore, for one session; see `prontodb.Keystore`. Any thread may use it."""

    def __init__(self, loop: _Loop, behind: keystore.Keystore) -> None:
        self._loop, self._behind = loop, behind

    get = _waiting(keystore.Keystore.get)
    entry = _waiting(keystore.Keystore.entry)
    exists = _waiting(keystore.Keystore.exists)
    get_many = _waiting(keystore.Keystore.get_many)
    list_keys = _waiting(keystore.Keystore.list_keys)
    count = _waiting(keystore.Keystore.count)
    ttl = _waiting(keystore.Keystore.ttl)
    namespaces = _waiting(keystore.Keystore.namespaces)
    projects = _waiting(keystore.Keystore.projects)
    namespace_ttls = _waiting(keystore.Keystore.namespace_ttls)
    set = _waiting(keystore.Keystore.set)
    set_many = _waiting(keystore.Keystore.set_many)
    delete = _waiting(keystore.Keystore.delete)
    delete_many = _waiting(keystore.Keystore.delete_many)
    clear = _waiting(keystore.Keystore.clear)
    compare_and_set = _waiting(keystore.Keystore.compare_and_set)
    increment = _waiting(keystore.Keystore.increment)
    touch = _waiting(keystore.Keystore.touch)
    persist = _waiting(keystore.Keystore.persist)
    set_namespace_ttl = _waiting(keystore.Keystore.set_namespace_ttl)
    wait_for = _waiting(keystore.Keystore.wait_for)

    @property
    def address(self) -> Address:
        """The address this handle belongs to."""
        return self._behind.address

    @property
    def session_id(self) -> str:
        """The name under which this handle's changes stand in the journal."""
        return self._behind.session_id

    @property
    def epoch(self) -> int | None:
        """The epoch of an exclusive session; None for others."""
        return self._behind.epoch

    @property
    def cache(self) -> CacheReport | None:
        """What the cache of an exclusive session did so far; None for sessions that have none."""
        return self._behind.cache

    @property
    def closed(self) -> bool:
        """True once the session has ended."""
        return self._behind.closed

    def __repr__(self) -> str:
        return f"<blocking {self._behind!r}>"

    def scan(self, prefix: str = "") -> Iterator[Entry]:
        """Yield the live entries whose keys begin with `prefix`, in byte order; see `prontodb.Keystore.scan`."""
        return _iterated(self._loop, self._behind.scan(prefix))

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Begin a transaction for a `with` block; see `prontodb.Keystore.transaction`."""
        collected = self._behind.transaction()
        self._loop.run(collected.__aenter__)
        try:
            yield Transaction(self._loop, collected)
        except BaseException as error:
            self._loop.run(partial(collected.__aexit__, type(error), error, error.__traceback__))
            raise
        self._loop.run(partial(collected.__aexit__, None, None, None))

    def watch(self, prefix: str = "", since: str | None = None) -> Watch:
        """Return an iterator over changes of keys that begin with `prefix`; see `prontodb.Keystore.watch`."""
        return Watch(self._loop, self._behind.watch(prefix, since))


class SessionManager:
    """All addresses of one root; see `prontodb.SessionManager`. Any thread may use it."""

    def __init__(self, loop: _Loop, behind: manager.SessionManager) -> None:
        self._loop, self._behind = loop, behind

    sessions = _waiting(manager.SessionManager.sessions)
    end_session = _waiting(manager.SessionManager.end_session)
    addresses = _waiting(manager.SessionManager.addresses)
    create = _waiting(manager.SessionManager.create)
    rename = _waiting(manager.SessionManager.rename)
    delete = _waiting(manager.SessionManager.delete)
    describe = _waiting(manager.SessionManager.describe)
    import_lines = _waiting(manager.SessionManager.import_lines)
    doctor = _waiting(manager.SessionManager.doctor)

    @property
    def root(self) -> str:
        """The absolute path of the root."""
        return self._behind.root

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._behind.settings

    @contextmanager
    def session(
        self,
        user: str = DEFAULT_NAME,
        cursor: str = DEFAULT_NAME,
        *,
        mode: str = EXCLUSIVE,
        wait: float | None = None,
        create: bool = True,
        labels: Mapping[str, str] | None = None,
    ) -> Iterator[Keystore]:
        """Open a session at an address for a `with` block; see `prontodb.SessionManager.session`."""
        opened = self._behind.session(user, cursor, mode=mode, wait=wait, create=create, labels=labels)
        with self._loop.within(opened) as handle:
            yield Keystore(self._loop, handle)

    def copy(
        self,
        source: Address | str | Keystore,
        target: Address | str | Keystore,
        *,
        keys: Iterable[str] | None = None,
        prefix: str = "",
        on_conflict: str = "fail",
    ) -> CopyReport:
        """Copy entries of one address to another; see `prontodb.SessionManager.copy`."""
        places = [place._behind if isinstance(place, Keystore) else place for place in (source, target)]
        call = partial(self._behind.copy, *places, keys=keys, prefix=prefix, on_conflict=on_conflict)
        return self._loop.run(call)

    def export(self, address: Address | str, prefix: str = "") -> Iterator[str]:
        """Yield an address's entries as JSON lines; see `prontodb.SessionManager.export`."""
        return _iterated(self._loop, self._behind.export(address, prefix))


@contextmanager
def open(root: str | os.PathLike[str] | None = None, *, settings: Settings | None = None) -> Iterator[SessionManager]:
    """Open a root for a `with` block and yield its manager; see `prontodb.open`. Starts a thread and ends it."""
    with start_blocking_portal("asyncio") as portal:
        loop = _Loop(portal)
        with portal.wrap_async_context_manager(manager.open_manager(root, settings=settings)) as behind:
            try:
                yield SessionManager(loop, behind)
            finally:
                loop.running = False
