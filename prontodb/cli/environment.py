"""Where a command acts: root, address, key and settings, from its options and the environment."""

from __future__ import annotations

import os

from prontodb.cli.secrets import LazyKeys
from prontodb.errors import InvalidAddressError, InvalidInputError, shown
from prontodb.model.address import DEFAULT_NAME, Address, check_name
from prontodb.model.key import check_key
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from prontodb.model.path import key_of, namespace_scope
from prontodb.model.root import checked_root, root_from, sandbox_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from prontodb.access import Caller
    from prontodb.cli.parsing import Args
    from prontodb.direct import OneShot
    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.model.operation import Fence
    from prontodb.model.settings import Settings
    from prontodb.session.book import SessionBook
    from prontodb.session.hold import Holding
    from prontodb.work import Work


EVERYWHERE = "*/*"
"""The pattern of all addresses; `model.access` is not for commands without rules."""


def root(args: Args) -> str:
    """Return the root: `--root`, else what the environment says; nothing is made."""
    given = args.text("--root")
    path = root_from(os.environ) if given is None else checked_root(given, "--root")
    try:
        os.fsencode(path).decode()
    except UnicodeError:
        raise InvalidInputError(f"root {shown(path)} is not valid UTF-8, or this locale cannot spell it") from None
    # The user named the root, so a link to it may be followed: here, once. SQLite follows none.
    return os.path.realpath(path)


def layout(args: Args) -> Layout:
    """Return the layout of the root, with what a sandboxed run around us lays out for its command."""
    path = root(args)
    if not os.environ.get("PRONTODB_SANDBOX"):
        return Layout(path)
    from prontodb.storage.confined import SANDBOX
    from prontodb.storage.files import resolved

    found = sandbox_from(os.environ, resolved(path))
    SANDBOX[:] = [] if found is None else [found]
    return Layout(path, sandbox=found)


def address(args: Args) -> Address:
    """Return the address to act on: options, else PRONTODB_USER and PRONTODB_CURSOR, else the default."""
    return Address(_name(args, "--user", "PRONTODB_USER"), _name(args, "--cursor", "PRONTODB_CURSOR"))


def _name(args: Args, option: str, variable: str) -> str:
    given = args.text(option)
    if given is not None:
        return given
    # An empty variable is unset.
    name = os.environ.get(variable) or DEFAULT_NAME
    try:
        Address(name)
    except InvalidAddressError as error:
        raise InvalidAddressError(f"{error} (from {variable})") from None
    return name


def principal(args: Args) -> str | None:
    """Return who asks: `--principal`, else PRONTODB_PRINCIPAL; None when neither says so."""
    given = args.text("--principal")
    if given is not None:
        return check_name(given, "principal")
    name = os.environ.get("PRONTODB_PRINCIPAL")
    if not name:
        return None
    try:
        return check_name(name, "principal")
    except InvalidAddressError as error:
        raise InvalidAddressError(f"{error} (from PRONTODB_PRINCIPAL)") from None


def token(args: Args) -> str | None:
    """Return the token shown: that in `--token-file`, else PRONTODB_TOKEN; None when there is neither."""
    path = args.text("--token-file")
    if path is None:
        return os.environ.get("PRONTODB_TOKEN") or None
    from prontodb.cli.tokens import read_token

    return read_token(path)


class Place:
    """The root a command acts on, with its settings; what reads them is imported only where there are any.

    `caller` is who is asked about before anything is done; None where no access rule and no token is in force.
    """

    __slots__ = ("_settings", "caller", "layout", "limits", "principal", "token")

    def __init__(self, args: Args) -> None:
        plain = layout(args)
        self.layout = Layout(plain.root, LazyKeys(plain, self), plain.sandbox)
        self.principal, self.token = principal(args), token(args)
        if self.layout.sandbox is not None:
            from prontodb import tokens

            # What the run around us was given holds for all in it, whatever they leave out.
            self.token = self.token or tokens.lent(self.layout)
        self.caller: Caller | None = None
        self._settings: Settings | None = None
        self.limits = Limits()
        if _has_settings(self.layout):
            from prontodb.cli.output import note
            from prontodb.registry import configuration

            self._settings, warnings = configuration.load(self.layout)
            self.limits = self._settings.limits
            for warning in warnings:
                note(warning)
            self.caller = self._caller()
        elif self.token is not None:
            self.caller = self._caller()

    def _caller(self) -> Caller | None:
        from prontodb.registry import grants

        if self.token is None and grants.rules(self.layout).are_open:
            return None
        from prontodb.access import Access, Caller
        from prontodb.model.clock import Clock

        return Caller(Access(self.layout, Clock()), self.principal, self.token)

    def allow(self, right: str, place: object = EVERYWHERE, prefix: str = "") -> None:
        """Raise `DeniedError` unless the caller has a right to all keys that begin with `prefix` at all of `place`."""
        if place == EVERYWHERE:
            self.check_is_outside()
        if self.caller is not None:
            self.caller.allow(right, place, prefix)

    def check_is_outside(self) -> None:
        """Raise `SandboxedError` inside of a sandbox, for what is of the whole root."""
        from prontodb.storage.confined import check_is_outside

        check_is_outside(self.layout.root)

    def allow_scope(self, right: str, user: str | None, cursor: str | None) -> None:
        """`allow` for all addresses, those of one user, or one."""
        if user is None:
            self.check_is_outside()
        if self.caller is not None:
            from prontodb.access import scope_of

            self.caller.allow(right, scope_of(user, cursor))

    def seen(self) -> Callable[[object], bool]:
        """Return what tells of an address whether the caller may know of it."""
        return (lambda _: True) if self.caller is None else self.caller.seen()

    @property
    def encrypts_new(self) -> bool:
        """True when the settings say that addresses that are made are to be encrypted."""
        return self._settings is not None and self._settings.encrypt_new

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        from prontodb.model.settings import Settings

        return self._settings or Settings()

    def one_shot(self, address: Address, *, create: bool = True) -> OneShot:
        """Return the keystore of an address, for one operation."""
        from prontodb.direct import OneShot

        fence = self.fence(address) if os.environ.get("PRONTODB_SESSION") else None
        if self._settings is None:
            return OneShot(
                self.layout.root, address, create=create, fence=fence, keys=self.layout.keys, caller=self.caller
            )
        return OneShot(
            self.layout.root,
            address,
            limits=self.limits,
            durability=self._settings.durability,
            create=create,
            unsafe_file_system=self._settings.unsafe_file_system,
            fence=fence,
            keys=self.layout.keys,
            caller=self.caller,
        )

    def fence(self, address: Address) -> Fence | None:
        """Return what to write under when a `prontodb run` around us holds the address; None when none does."""
        from prontodb.session.door import attachment

        around = attachment(os.environ.get("PRONTODB_SESSION"))
        return None if around is None else around.fence_for(self.layout.root, address)

    def holding(self) -> Holding:
        """Return what holds addresses here for this process."""
        from prontodb import direct
        from prontodb.model.clock import Clock
        from prontodb.registry.sessions import SessionRegistry
        from prontodb.session.door import Door
        from prontodb.session.hold import Holding

        clock, unsafe = Clock(), self.settings.unsafe_file_system
        door = Door(direct.lifecycle(self.layout, Limits(wait_s=0), clock, unsafe_file_system=unsafe), clock)
        # It describes only: nobody waits long for it.
        registry = SessionRegistry(self.layout, wait_s=min(self.limits.wait_s, 0.5), one_shot=True)
        return Holding(self.layout, door, registry, clock, self.limits)

    def sessions(self) -> SessionBook:
        """Return the sessions of all processes here."""
        from prontodb.model.clock import Clock
        from prontodb.registry.sessions import SessionRegistry
        from prontodb.session.book import SessionBook

        registry = SessionRegistry(self.layout, wait_s=self.limits.wait_s, one_shot=True)
        return SessionBook(self.lifecycle(), registry, Clock(), self.limits)

    def lifecycle(self) -> Lifecycle:
        """Return what creates, renames and deletes addresses here."""
        from prontodb import direct
        from prontodb.model.clock import Clock

        return direct.lifecycle(self.layout, self.limits, Clock(), unsafe_file_system=self.settings.unsafe_file_system)

    def work(self) -> Work:
        """Return the long works that can be done here."""
        from prontodb.model.clock import Clock
        from prontodb.registry.jobs import JobRegistry
        from prontodb.work import Work

        registry = JobRegistry(self.layout, wait_s=min(self.limits.wait_s, 0.5), one_shot=True)
        return Work(self.layout, self.settings, Clock(), self.lifecycle(), registry)

    def key(self, args: Args, path: str) -> str:
        """Return the key that a path names under this command's options."""
        if args.flag("--raw"):
            if args.text("--project") is not None or args.text("--namespace") is not None:
                raise args.usage_error("--raw takes the key as it is; leave -p and -n out")
            return check_key(path, self.limits.max_key_bytes)
        key = key_of(
            path,
            project=args.text("--project"),
            namespace=args.text("--namespace"),
            delimiter=_delimiter(args),
        )
        return check_key(key, self.limits.max_key_bytes)


def scope(args: Args, text: str | None) -> str | None:
    """Return the namespace that a scope, or `-p` and `-n`, name; None when neither is given."""
    project, namespace = args.text("--project"), args.text("--namespace")
    if project is None and namespace is None:
        return None if text is None else namespace_of_scope(args, text)
    if text is not None:
        raise args.usage_error("give the scope once: as a word, or with -p and -n")
    # A key below them, taken apart again, says which namespace they mean.
    return key_of("x", project=project, namespace=namespace, delimiter=_delimiter(args)).rpartition(".")[0]


def namespace_of_scope(args: Args, text: str) -> str:
    """Return the namespace a scope names; the empty text is the default one, as `default` is."""
    return namespace_scope(text, delimiter=_delimiter(args)) if text else ""


def _delimiter(args: Args) -> str:
    given = args.text("--ns-delim")
    return "." if given is None else given


def _has_settings(layout: Layout) -> bool:
    try:
        os.lstat(layout.settings_path())
    except FileNotFoundError:
        return layout.sandbox is not None and not os.path.isdir(layout.sandbox)
    except OSError:
        return True  # whoever reads it says what is in the way
    return True
