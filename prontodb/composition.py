"""The composition root: builds the parts of one root, hands them to each other, and closes them in the right order."""

from __future__ import annotations

import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from warnings import warn

import anyio

from prontodb.access import Access, Caller, checked_token
from prontodb.addresses import AddressBook
from prontodb.audit.denied import DeniedLog
from prontodb.encryption.keyring import keyring_of
from prontodb.engine.sqlite.engine import SqliteEngine
from prontodb.engine.sqlite.lifecycle import Lifecycle
from prontodb.errors import InvalidSettingsError
from prontodb.guarding import Guard
from prontodb.jobs.book import JobBook
from prontodb.log import event
from prontodb.manager import SessionManager, as_path
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.root import checked_root, root_from, sandbox_from
from prontodb.model.settings import Settings
from prontodb.registry import configuration
from prontodb.registry.addresses import AddressRegistry
from prontodb.registry.jobs import JobRegistry
from prontodb.registry.sessions import SessionRegistry
from prontodb.session.book import SessionBook
from prontodb.session.door import Door, attachment
from prontodb.session.live import CLOSE_S, LiveSessions
from prontodb.storage.confined import SANDBOX, is_kept_out, sandboxed
from prontodb.storage.files import check_file_system, make_root, resolved
from prontodb.storage.lane import running_loop
from prontodb.storage.process import leave_no_core, raise_descriptor_limit
from prontodb.tokens import lent
from prontodb.turns import Turns
from prontodb.upkeep import Upkeep
from prontodb.work import Work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskStatus

    from prontodb.encryption.keyring import Keyring
    from prontodb.encryption.sources import KeySource

SPARE_DESCRIPTORS = 64
"""Left to the application when the number of open keystores is fitted to the descriptor limit."""
INDEX_WAIT_S = 0.5
"""How long an index that others are writing to is waited for; what is not noted now is noted later."""


def _built(
    layout: Layout, settings: Settings, clock: Clock, descriptors: int, caller: Caller
) -> tuple[SessionManager, LiveSessions, SqliteEngine, Upkeep]:
    """Build the parts of one root and hand them to each other."""
    index_wait_s = min(settings.wait_s, INDEX_WAIT_S)
    registry = AddressRegistry(layout, wait_s=index_wait_s, one_shot=False)
    roll = SessionRegistry(layout, wait_s=index_wait_s, one_shot=False)
    # Whoever needs a lock tries again on the event loop: a thread that waited would keep others waiting too.
    lifecycle = Lifecycle(
        layout, clock, registry, wait_s=0, one_shot=False, unsafe_file_system=settings.unsafe_file_system
    )
    spare = min(SPARE_DESCRIPTORS, descriptors // 2)
    engine = SqliteEngine(lifecycle, settings, clock, max_descriptors=descriptors - spare)
    live = LiveSessions(
        engine,
        Door(lifecycle, clock),
        roll,
        settings,
        clock,
        Turns(),
        attachment(os.environ.get("PRONTODB_SESSION")),
        layout.root,
    )
    sessions = SessionBook(lifecycle, roll, clock, settings.limits)
    notebook = JobRegistry(layout, wait_s=index_wait_s, one_shot=False)
    # A restore may wait for a lock: it keeps its own thread busy, and is rare.
    patient = Lifecycle(
        layout,
        clock,
        registry,
        wait_s=settings.wait_s,
        one_shot=False,
        unsafe_file_system=settings.unsafe_file_system,
    )
    work = Work(layout, settings, clock, patient, notebook)
    upkeep = Upkeep(layout, work, engine, live, sessions, notebook, clock)
    manager = SessionManager(
        engine,
        AddressBook(layout, lifecycle, registry, clock=clock, wait_s=settings.wait_s, limits=settings.limits),
        lifecycle,
        settings,
        live,
        sessions,
        upkeep,
        JobBook(layout, notebook, clock),
        Guard(caller, engine),
    )
    return manager, live, engine, upkeep


def _layout(root: str) -> Layout:
    """Return the layout of a root, with what a sandboxed run around us lays out for its command."""
    path = resolved(root)
    sandbox = sandbox_from(os.environ, path)
    SANDBOX[:] = [] if sandbox is None else [sandbox]
    return Layout(path, sandbox=sandbox)


@asynccontextmanager
async def open_manager(
    root: str | os.PathLike[str] | None = None,
    *,
    settings: Settings | None = None,
    keys: KeySource | None = None,
    keep_core_files: bool = False,
    clock: Clock | None = None,
    jobs: bool = False,
    end_on_sigterm: bool = False,
    principal: str | None = None,
    token: str | None = None,
) -> AsyncIterator[SessionManager]:
    """Open a root and yield its manager; leaving the block ends its sessions, closes everything and ends every thread.

    `root` is an absolute path, made when it does not exist; None: as PRONTODB_HOME, XDG_DATA_HOME or HOME say.
    `settings` None reads `registry/global_config.json`. `keys` brings the key that opens encrypted addresses:
    `prontodb.KeyFile(path)`, `KeyCommand`, `SystemKeyring` or `Passphrase`; None asks the environment. With a key this
    process leaves no core file from then on (soft RLIMIT_CORE 0, logged), unless `keep_core_files`. With `jobs`, the
    scheduled jobs of the root run while the block does, unless another process runs them; this one takes over when that
    ends. With `end_on_sigterm`, SIGTERM cancels the block and ends the program with exit code 143; without it SIGTERM
    is the application's affair. `principal` is the name for which access rules are asked, None what PRONTODB_PRINCIPAL
    says. `token` stands in its place: this manager does what it allows and no more; None: that in PRONTODB_TOKEN. Enter
    and leave the block in one task: it owns a task group. Raises `UnsupportedBackendError` outside asyncio.
    """
    running_loop()
    if settings is not None and not isinstance(settings, Settings):
        raise InvalidSettingsError(f"settings must be prontodb.Settings(...), not {type(settings).__name__}")
    layout = _layout(root_from(os.environ) if root is None else checked_root(as_path(root), "root"))
    clock = clock or Clock()
    descriptors = raise_descriptor_limit()
    make_root(layout.root).close()
    if jobs and is_kept_out(layout.root):
        raise sandboxed(layout.root)  # no job can be done from inside of a sandbox
    settings = _settings(layout, settings)
    layout = Layout(layout.root, _keyring(layout, settings, keys, keep_core_files), layout.sandbox)
    caller = _caller(layout, clock, principal, token)
    manager, live, engine, upkeep = _built(layout, settings, clock, descriptors, caller)
    # Made before anything runs: a wrong schedule is refused here and now.
    runner = upkeep.runner() if jobs else None
    event("manager.opened", root=layout.root, max_open_keystores=engine.max_open, descriptor_limit=descriptors)
    error: BaseException | None = None
    terminated: list[int] = []
    denied = DeniedLog(layout, clock)
    denied.listen()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(live.watch)
            tasks.start_soon(caller.access.watch, lambda look: engine.beside(look, brief=True))
            tasks.start_soon(upkeep.keep_own)
            if runner is not None:
                tasks.start_soon(runner.run)
            if end_on_sigterm:
                terminated = await tasks.start(_cancel_on_sigterm, tasks.cancel_scope)
            try:
                yield manager
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as raised:  # noqa: BLE001 - raised again below: the task group would wrap it
                error = raised
            finally:
                tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await _close(live, engine)
        denied.stop()
        event("manager.closed", root=layout.root)
    if error is None and terminated:
        raise SystemExit(128 + signal.SIGTERM)
    if error is not None:
        raise error


async def _close(live: LiveSessions, engine: SqliteEngine) -> None:
    try:
        left = await live.close()
        if left:
            event("sessions.left", sessions=left)
            warn(f"not ended in {CLOSE_S:g} s: {', '.join(left)}", ResourceWarning, stacklevel=5)
    finally:
        await engine.close()


def _settings(layout: Layout, given: Settings | None) -> Settings:
    """Return the settings in force, when the root may lie where it does."""
    settings = given
    if settings is None:
        settings, warnings = configuration.load(layout)
        for warning in warnings:
            event("settings.warning", reason=warning)
    if not settings.unsafe_file_system:
        check_file_system(layout.root)
    return settings


def _caller(layout: Layout, clock: Clock, principal: str | None, token: str | None) -> Caller:
    """Return who asks, as told or as the environment says; an empty variable is unset."""
    if principal is None:
        principal = os.environ.get("PRONTODB_PRINCIPAL") or None
    if token is None:
        # What a sandboxed run around us was given holds for all in it, whatever they leave out.
        token = os.environ.get("PRONTODB_TOKEN") or lent(layout)
    return Caller(Access(layout, clock), principal, None if token is None else checked_token(token))


def _keyring(layout: Layout, settings: Settings, keys: KeySource | None, keep_core_files: bool) -> Keyring:
    found = keyring_of(layout, os.environ, source=keys, encrypts_new=settings.encrypt_new, wait_s=settings.wait_s)
    if found.source is not None and not keep_core_files and leave_no_core():
        event("process.leaves_no_core", root=layout.root)
    return found


async def _cancel_on_sigterm(scope: anyio.CancelScope, *, task_status: TaskStatus[list[int]]) -> None:
    """Cancel `scope` when SIGTERM comes; the list handed to the starter holds it from then on."""
    terminated: list[int] = []
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        task_status.started(terminated)
        async for number in signals:
            terminated.append(number)
            scope.cancel()
            return
