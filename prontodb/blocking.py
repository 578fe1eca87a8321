"""The same for programs without an event loop: `with prontodb.blocking.open() as manager`, usable from every thread.

One loop runs in a thread of its own while the manager is open, and each call waits for its end there. Names, arguments,
results and errors are those of `prontodb.open` and its handles; where those are awaited, these return, and where those
are iterated with `async for`, these are with `for`.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, contextmanager, suppress
from functools import partial, wraps
from threading import Thread, get_ident
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

import anyio
from anyio.from_thread import BlockingPortal

from prontodb import composition, guarding, keystore, manager, transaction, watching
from prontodb.errors import ClosedError
from prontodb.model.address import DEFAULT_NAME
from prontodb.model.holder import EXCLUSIVE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from prontodb.cache import CacheReport
    from prontodb.encryption.sources import KeySource
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
    """An event loop in a thread of its own, and who asks it."""

    def __init__(self) -> None:
        started: Future[BlockingPortal] = Future()
        self._pid, self.running = os.getpid(), True
        # A daemon: an interpreter that ends with the manager open must not wait for it.
        self._thread = Thread(target=_serve, args=(started,), name="prontodb", daemon=True)
        self._thread.start()
        self._portal = started.result()

    def stop(self) -> None:
        """End the loop and its thread; in the child of a fork there is neither."""
        if self.is_here:
            self._portal.call(self._portal.stop)
            self._thread.join()

    def in_one_task(self, opened: AbstractAsyncContextManager[T]) -> AbstractContextManager[T]:
        """Return an async context manager, which owns a task group, for use with `with`."""
        return self._portal.wrap_async_context_manager(opened)

    def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Run a coroutine there and wait for its end; an interrupt of this thread cancels it."""
        self._check()
        try:
            future = self._portal.start_task_soon(call)
        except RuntimeError:
            self._check()  # closed by another thread in this instant
            raise
        try:
            return future.result()
        except CancelledError:
            raise ClosedError("the manager was closed before this ended") from None
        except BaseException:
            future.cancel()  # after Ctrl-C; nothing otherwise, since it has ended
            raise

    @contextmanager
    def within(self, opened: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """Use an async context manager with `with`; an interrupt while it is entered leaves it again."""
        entered: list[T] = []
        abandoned = False

        async def enter() -> None:
            entered.append(await opened.__aenter__())
            if abandoned:
                await opened.__aexit__(None, None, None)

        async def abandon() -> None:
            nonlocal abandoned
            abandoned = True
            if entered:
                await opened.__aexit__(None, None, None)

        try:
            self.run(enter)
        except BaseException:
            if self.running and self.is_here:
                self._portal.call(abandon)
            raise
        try:
            yield entered[0]
        except BaseException as error:
            self._leave(opened, error)
            raise
        self._leave(opened, None)

    def _leave(self, opened: AbstractAsyncContextManager[Any], error: BaseException | None) -> None:
        """Leave a block; a manager that was closed before has done it already, and a forked child has no part in it."""
        if not self.running or not self.is_here:
            return
        kind, trace = (None, None) if error is None else (type(error), error.__traceback__)
        try:
            self._portal.call(partial(opened.__aexit__, kind, error, trace))
        except (RuntimeError, CancelledError):
            if self.running:
                raise

    @property
    def is_here(self) -> bool:
        """False in the child of a fork, whose threads have stayed with its parent."""
        return os.getpid() == self._pid

    def _check(self) -> None:
        if not self.is_here:
            raise ClosedError("this manager was opened in another process; open one here (spawn, do not fork)")
        if not self.running:
            raise ClosedError("the manager is closed")
        if get_ident() == self._thread.ident:
            raise ClosedError(
                "this is the event loop's own thread, which cannot wait for itself; use prontodb.open there"
            )


def _serve(started: Future[BlockingPortal]) -> None:
    async def until_stopped() -> None:
        async with BlockingPortal() as portal:
            started.set_result(portal)
            await portal.sleep_until_stopped()

    try:
        anyio.run(until_stopped, backend="asyncio")
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)


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

    try:
        while taken := loop.run(page):
            yield from taken
    finally:
        closing = getattr(found, "aclose", None)
        if closing is not None and loop.running and loop.is_here:
            # An interrupt may have left it at work still; asyncio closes it then, and the interrupt goes on.
            with suppress(RuntimeError, ClosedError):
                loop.run(closing)


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
        """The epoch against which the store checks each write of this session; None when it only reads."""
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


class AccessBook:
    """The access rules and tokens of one root; see `prontodb.SessionManager.access`."""

    def __init__(self, loop: _Loop, behind: guarding.AccessBook) -> None:
        self._loop, self._behind = loop, behind

    list = _waiting(guarding.AccessBook.list)
    add = _waiting(guarding.AccessBook.add)
    remove = _waiting(guarding.AccessBook.remove)
    mint = _waiting(guarding.AccessBook.mint)
    revoke = _waiting(guarding.AccessBook.revoke)


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
    encrypt = _waiting(manager.SessionManager.encrypt)
    decrypt = _waiting(manager.SessionManager.decrypt)
    rekey = _waiting(manager.SessionManager.rekey)
    import_lines = _waiting(manager.SessionManager.import_lines)
    doctor = _waiting(manager.SessionManager.doctor)
    keep_history = _waiting(manager.SessionManager.keep_history)
    # `progress` is called on the event loop's thread: it must be quick, and may not call the manager.
    sweep = _waiting(manager.SessionManager.sweep)
    backup = _waiting(manager.SessionManager.backup)
    backups = _waiting(manager.SessionManager.backups)
    verify = _waiting(manager.SessionManager.verify)
    prune = _waiting(manager.SessionManager.prune)
    verify_audit = _waiting(manager.SessionManager.verify_audit)
    audit = _waiting(manager.SessionManager.audit)
    compact = _waiting(manager.SessionManager.compact)
    reap = _waiting(manager.SessionManager.reap)
    restore = _waiting(manager.SessionManager.restore)
    undo_restore = _waiting(manager.SessionManager.undo_restore)
    migrate = _waiting(manager.SessionManager.migrate)
    run_job = _waiting(manager.SessionManager.run_job)
    jobs = _waiting(manager.SessionManager.jobs)
    job_runs = _waiting(manager.SessionManager.job_runs)
    pause_jobs = _waiting(manager.SessionManager.pause_jobs)
    resume_jobs = _waiting(manager.SessionManager.resume_jobs)

    @property
    def root(self) -> str:
        """The absolute path of the root."""
        return self._behind.root

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._behind.settings

    @property
    def access(self) -> AccessBook:
        """The access rules and tokens of the root: who may do what where."""
        return AccessBook(self._loop, self._behind.access)

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
        token: str | None = None,
    ) -> Iterator[Keystore]:
        """Open a session at an address for a `with` block; see `prontodb.SessionManager.session`."""
        opened = self._behind.session(user, cursor, mode=mode, wait=wait, create=create, labels=labels, token=token)
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
def open(
    root: str | os.PathLike[str] | None = None,
    *,
    settings: Settings | None = None,
    keys: KeySource | None = None,
    jobs: bool = False,
    principal: str | None = None,
    token: str | None = None,
) -> Iterator[SessionManager]:
    """Open a root for a `with` block and yield its manager; see `prontodb.open`. Starts a thread and ends it."""
    loop = _Loop()
    try:
        with ExitStack() as stack:
            manager = composition.open_manager(
                root, settings=settings, keys=keys, jobs=jobs, principal=principal, token=token
            )
            opened = loop.in_one_task(manager)
            behind = stack.enter_context(opened)
            try:
                yield SessionManager(loop, behind)
            finally:
                loop.running = False
                if not loop.is_here:
                    stack.pop_all()
    finally:
        loop.stop()
