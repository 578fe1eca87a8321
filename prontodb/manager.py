"""The composition root: builds the parts of one root, hands them to each other, and closes them in the right order."""

from __future__ import annotations

import os
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from prontodb import copying, transfer
from prontodb.addresses import AddressBook
from prontodb.doctor import examine
from prontodb.engine.sqlite import cloning
from prontodb.engine.sqlite.engine import DESCRIPTORS_EACH, SqliteEngine
from prontodb.engine.sqlite.lifecycle import Lifecycle
from prontodb.errors import AddressBusyError, AddressNotFoundError, InvalidInputError, InvalidSettingsError
from prontodb.keystore import Keystore
from prontodb.log import event
from prontodb.model.address import DEFAULT_NAME, Address
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.operation import Fence
from prontodb.model.root import checked_root, root_from
from prontodb.model.settings import Settings
from prontodb.registry import configuration
from prontodb.registry.addresses import AddressRegistry
from prontodb.storage.files import check_file_system, make_root, raise_descriptor_limit, resolved
from prontodb.storage.lane import running_loop
from prontodb.turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from prontodb.addresses import AddressReport, AddressRow
    from prontodb.doctor import DoctorReport
    from prontodb.engine.sqlite.engine import SqliteKeyspace
    from prontodb.model.reports import CopyReport, ImportReport

SPARE_DESCRIPTORS = 64
"""Left to the application when the number of open keystores is fitted to the descriptor limit."""
ATTEMPTS = 5
"""How often a session makes its address again that another process deletes at the same time."""


class SessionManager:
    """All addresses of one root, for one event loop of one process. Made by `open_manager`."""

    def __init__(self, engine: SqliteEngine, book: AddressBook, lifecycle: Lifecycle, settings: Settings) -> None:
        self._engine, self._book, self._lifecycle, self._settings = engine, book, lifecycle, settings
        self._clock = engine._clock
        self._turns = Turns()
        self._sessions: dict[Address, int] = {}
        self._registered: set[Address] = set()

    @property
    def root(self) -> str:
        """The absolute path of the root."""
        return self._lifecycle.layout.root

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    # Sessions

    @asynccontextmanager
    async def session(
        self, user: str = DEFAULT_NAME, cursor: str = DEFAULT_NAME, *, create: bool = True
    ) -> AsyncIterator[Keystore]:
        """Open a session at an address and yield its keystore; leaving the block ends it.

        The address is made when it does not exist, unless `create` is False: then `AddressNotFoundError`. Any number of
        sessions, tasks and processes may be at one address; SQLite orders their writes.
        """
        address = Address(user, cursor)
        keyspace = await self._keyspace(address, create)
        fence = Fence(f"s-{os.getpid()}-{secrets.token_hex(6)}")
        keystore = Keystore(keyspace, address, fence, self._settings.limits, self._clock, self._turns)
        self._sessions[address] = self._sessions.get(address, 0) + 1
        event("session.opened", address=address, session=fence.session)
        try:
            yield keystore
        finally:
            keystore.close()
            self._sessions[address] -= 1
            if not self._sessions[address]:
                del self._sessions[address]
            event("session.closed", address=address, session=fence.session)

    async def _keyspace(self, address: Address, create: bool) -> SqliteKeyspace:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                keyspace = await self._engine.keyspace(address)
                break
            except AddressNotFoundError:
                # Made here and gone again: somebody else deletes it at this very moment.
                if not create or attempt == ATTEMPTS:
                    raise
                await self._engine.create(address)
                self._registered.add(address)
        if address not in self._registered:
            # A creation that was killed before its registry row, or a lost registry, heals here.
            self._registered.add(address)
            await self._engine.beside(lambda: self._book.register(address))
        return keyspace

    # Addresses

    async def addresses(self) -> list[AddressRow]:
        """Return every known address with its state and size, in order; heals the registry on the way."""
        return await self._engine.beside(self._book.list)

    async def create(self, address: Address | str) -> bool:
        """Make an empty keystore; False when it exists already. After a crash it is whole or not there."""
        return await self._engine.create(as_address(address))

    async def rename(self, old: Address | str, new: Address | str) -> None:
        """Give an address another name. Refused while a session of this process is at it."""
        source, target = as_address(old), as_address(new)
        self._refuse_sessions(source)
        await self._engine.release(source)
        await self._engine.beside(lambda: self._lifecycle.rename(source, target))

    async def delete(self, address: Address | str) -> bool:
        """Delete an address and all it holds; False when there is none. Refused while a session is at it.

        An address that is missing (known to the registry, without a folder) is forgotten.
        """
        wanted = as_address(address)
        self._refuse_sessions(wanted)
        return await self._engine.drop(wanted) or await self._engine.beside(lambda: self._book.forget(wanted))

    async def describe(self, address: Address | str) -> AddressReport:
        """Return the facts of one address: sizes, counts, revision, lifetimes."""
        wanted = as_address(address)
        return await self._engine.beside(lambda: self._book.describe(wanted))

    def _refuse_sessions(self, address: Address) -> None:
        sessions = self._sessions.get(address, 0)
        if sessions:
            raise AddressBusyError(address, f"{sessions} open session(s) of this process; leave their blocks first")

    # Across addresses

    async def copy(
        self,
        source: Address | str,
        target: Address | str,
        *,
        keys: Iterable[str] | None = None,
        prefix: str = "",
        on_conflict: str = "fail",
    ) -> CopyReport:
        """Copy entries of one address to another, with their expiry; the target is made when it does not exist.

        All of it, the given `keys`, or those that begin with `prefix`. `on_conflict`: 'fail' (nothing is copied when
        the target has one of the keys), 'keep' the target's, or 'replace' them. What fits one batch is copied in one
        step; a new target appears complete or not at all.
        """
        origin, destination = as_address(source), as_address(target)
        async with self.session(origin.user, origin.cursor, create=False) as original:
            if not await self._engine.beside(lambda: self._lifecycle.exists(destination)):
                return await self._copy_to_new(original, destination, keys, prefix, on_conflict)
            async with self.session(destination.user, destination.cursor) as copy:
                return await copying.copy_many(original, copy, keys=keys, prefix=prefix, on_conflict=on_conflict)

    async def _copy_to_new(
        self, original: Keystore, destination: Address, keys: Iterable[str] | None, prefix: str, on_conflict: str
    ) -> CopyReport:
        """Build the target beside its place, complete, then publish it by one rename."""
        wanted = copying.chosen(original, keys, prefix)
        copying.check_on_conflict(on_conflict)
        limits, clock = self._settings.limits, self._clock
        return await self._engine.beside(
            lambda: cloning.clone(self._lifecycle, original.address, destination, wanted, prefix, limits, clock)
        )

    # Export, import

    async def export(self, address: Address | str, prefix: str = "") -> AsyncIterator[str]:
        """Yield an address's entries as JSON lines; see `import_lines`."""
        wanted = as_address(address)
        async with self.session(wanted.user, wanted.cursor, create=False) as keystore:
            async for line in transfer.export_lines(keystore, prefix):
                yield line

    async def import_lines(
        self, address: Address | str, lines: Iterable[bytes | str], *, on_conflict: str = "fail"
    ) -> ImportReport:
        """Store exported lines at an address, made when it does not exist; all are checked before any is written."""
        wanted, limits, now_ms = as_address(address), self._settings.limits, self._clock.wall_ms()
        copying.check_on_conflict(on_conflict)
        # Before the session: a wrong import must not make an address. Beside, since it may take seconds.
        checked = await self._engine.beside(lambda: transfer.check_lines(lines, limits, now_ms))
        async with self.session(wanted.user, wanted.cursor) as keystore:
            return await transfer.store(keystore, checked, on_conflict=on_conflict)

    async def doctor(self, *, deep: bool = False, repair: bool = False) -> DoctorReport:
        """Examine the whole root; with `repair`, heal what can be healed safely."""
        layout, limits = self._lifecycle.layout, self._settings.limits
        return await self._engine.beside(lambda: examine(layout, limits, self._clock, deep=deep, repair=repair))


def as_address(address: object) -> Address:
    """Return an address given as one or as its text form `user/cursor`."""
    if isinstance(address, Address):
        return address
    if isinstance(address, str):
        return Address.parse(address)
    raise InvalidInputError(f"an address is Address(user, cursor) or 'user/cursor', not {type(address).__name__}")


def _as_path(root: object) -> str:
    path = os.fspath(root) if isinstance(root, os.PathLike) else root
    if not isinstance(path, str):
        raise InvalidInputError(f"root must be a path as text or a Path, not {type(path).__name__}")
    return path


@asynccontextmanager
async def open_manager(
    root: str | os.PathLike[str] | None = None, *, settings: Settings | None = None, clock: Clock | None = None
) -> AsyncIterator[SessionManager]:
    """Open a root and yield its manager; leaving the block closes everything and ends every thread.

    `root` is an absolute path, made when it does not exist; None takes what PRONTODB_HOME, XDG_DATA_HOME or HOME say.
    `settings` None reads `registry/global_config.json`. Raises `UnsupportedBackendError` outside asyncio.
    """
    running_loop()
    if settings is not None and not isinstance(settings, Settings):
        raise InvalidSettingsError(f"settings must be prontodb.Settings(...), not {type(settings).__name__}")
    path = root_from(os.environ) if root is None else checked_root(_as_path(root), "root")
    layout = Layout(resolved(path))
    clock = clock or Clock()
    descriptors = raise_descriptor_limit()
    make_root(layout.root).close()
    if settings is None:
        settings, warnings = configuration.load(layout)
        for warning in warnings:
            event("settings.warning", reason=warning)
    if not settings.unsafe_file_system:
        check_file_system(layout.root)
    registry = AddressRegistry(layout, wait_s=settings.wait_s, one_shot=False)
    lifecycle = Lifecycle(
        layout,
        clock,
        registry,
        wait_s=settings.wait_s,
        one_shot=False,
        unsafe_file_system=settings.unsafe_file_system,
    )
    spare = min(SPARE_DESCRIPTORS, descriptors // 2)
    most = max(1, min(settings.max_open_keystores, (descriptors - spare) // DESCRIPTORS_EACH))
    engine = SqliteEngine(lifecycle, settings, clock, max_open=most)
    event("manager.opened", root=layout.root, max_open_keystores=most, descriptor_limit=descriptors)
    try:
        yield SessionManager(
            engine, AddressBook(layout, lifecycle, registry, clock=clock, wait_s=settings.wait_s), lifecycle, settings
        )
    finally:
        with anyio.CancelScope(shield=True):
            await engine.close()
        event("manager.closed", root=layout.root)
