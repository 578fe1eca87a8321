"""The sandbox of one run: a private folder, and the rules under which the run's command sees no more than its address.

The rules bind the command, not the run: that keeps lock and registry, and copies the settings, which the command cannot
see in their place, into the private folder. The kernel enforces them (`storage/landlock.py`); nothing here trusts the
command.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

from prontodb import tokens
from prontodb.encryption.keyring import Keyring
from prontodb.encryption.sources import KEY_BYTES, OTHER_PASSPHRASE, SANDBOX_KEY, VARIABLES, RunKey
from prontodb.engine.sqlite import ciphers
from prontodb.errors import ProntoError, UnavailableError, shown
from prontodb.log import event
from prontodb.model.layout import SANDBOX_ADDRESS_FILE, SANDBOX_TEMPORARY, SANDBOXES, Layout
from prontodb.registry import configuration
from prontodb.storage import landlock
from prontodb.storage.confined import is_kept_out, sandboxed
from prontodb.storage.files import make_root, open_root, read_bytes, resolved
from prontodb.storage.guard import Guard
from prontodb.storage.landlock import READ, WRITE, Ruleset
from prontodb.storage.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prontodb.model.address import Address
    from prontodb.storage.files import Folder

_PREFIX = "run-"
_CODE = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
"""The folder that Python finds this package in."""


class Wish:
    """What somebody asked for: a plain sandbox or a strict one, and paths that are allowed beside.

    `key_file`, the file with the key to this root's secrets, stays closed; `token` is what the command may do.
    """

    __slots__ = ("key_file", "read", "strict", "token", "write")

    def __init__(
        self,
        *,
        strict: bool = False,
        read: list[str] | None = None,
        write: list[str] | None = None,
        key_file: str | None = None,
        token: str | None = None,
    ) -> None:
        self.strict, self.read, self.write = strict, read or [], write or []
        self.key_file, self.token = key_file, token


class Sandbox:
    """One sandbox at one address, from before its command starts until after it has ended."""

    def __init__(self, layout: Layout, address: Address, wish: Wish) -> None:
        """Make the rules and the private folder; raises and leaves nothing when the kernel cannot keep the promise."""
        self._abi = landlock.check()
        root = resolved(layout.root)
        # Whatever sandbox is around us: its settings are copies of these.
        self._layout, self._keyed, self._key = Layout(root), layout, ""
        guard = Guard(root, key_file=wish.key_file)
        allowed = [(guard.check(path, "--allow-read"), READ) for path in wish.read]
        allowed += [(guard.check(path, "--allow-write"), WRITE) for path in wish.write]
        if wish.strict:
            allowed.append((guard.check(os.getcwd(), "the working folder"), WRITE))
        self._token = wish.token
        self._scratch: Scratch | None = None
        self._rules: Ruleset | None = None
        self._stamp: object = None
        self._reading, self._writing = os.pipe()
        try:
            around = _around(layout, root, address)
            self.folder = around or self._make_folder(address)
            # What a plain sandbox around us keeps from us it keeps from all that we start.
            if around is None or wish.strict:
                self._rules = Ruleset(self._abi)
                self._fill(guard, address, allowed, strict=wish.strict)
        except BaseException:
            self.close()
            raise

    def weaknesses(self) -> Iterator[str]:
        """Yield what the kernel does not refuse, here or at all, that its user may count on; a line for each."""
        if self._token is not None:
            yield (
                "the token is asked by ProntoDB alone: the kernel keeps the command to its address, and what the token "
                "leaves out of it can be read and written in its files all the same"
            )
        if self._abi < landlock.SIGNALS_ABI:
            yield (
                f"this kernel has Landlock ABI {self._abi}: the command can send signals to processes outside of the "
                f"sandbox, which ABI {landlock.SIGNALS_ABI} (Linux 6.12) refuses"
            )

    def environment(self) -> dict[str, str]:
        """Return what the command is told: of secrets, the key to the one that was laid out for it."""
        told = {"PRONTODB_SANDBOX": self.folder, "TMPDIR": f"{self.folder}/{SANDBOX_TEMPORARY}"}
        if self._scratch is None:
            return told  # the sandbox around us has told the rest
        return told | dict.fromkeys((*VARIABLES, OTHER_PASSPHRASE), "") | {SANDBOX_KEY: self._key}

    def _make_folder(self, address: Address) -> str:
        # In the root, which is closed to every sandbox: what lies beside it would be open to those that start later.
        with make_root(self._layout.root, SANDBOXES) as above:
            self._scratch = Scratch.make(above.path, _PREFIX)
        folder = self._scratch.folder
        folder.create(SANDBOX_ADDRESS_FILE, f"{address}\n".encode())
        folder.make(SANDBOX_TEMPORARY).close()
        self._lend_secret(folder, address)
        if self._token is not None:
            tokens.lend(folder, self._token)
        self._copy_settings(folder)
        return folder.path

    def _lend_secret(self, folder: Folder, address: Address) -> None:
        """Lay out what opens the address, if it is encrypted: sealed with a key that lives as long as the run."""
        with open_root(self._layout.root, *self._layout.address_parts(address)) as own:
            secret = ciphers.secret_in(self._keyed, own, address)
        if secret is None:
            return
        self._key = os.urandom(KEY_BYTES).hex()
        ciphers.keys_of(self._keyed).lend(secret, address, Keyring(folder.path, RunKey(self._key)))

    def _copy_settings(self, folder: Folder) -> None:
        stamp = configuration.stamp(self._layout)
        configuration.copy(self._layout, folder)
        self._stamp = stamp

    def _fill(self, guard: Guard, address: Address, allowed: list[tuple[str, int]], *, strict: bool) -> None:
        assert self._rules is not None
        python = (sys.prefix, sys.base_prefix, sys.exec_prefix, _CODE)
        if strict:
            guard.allow_system(self._rules, *python)
        else:
            guard.allow_beside(self._rules, *python, os.getcwd())
        own = self._layout.path(*self._layout.address_parts(address))
        # What the run says in the private folder can be read; the command writes in the part that is for it.
        allowed += [(own, WRITE), (self.folder, READ), (f"{self.folder}/{SANDBOX_TEMPORARY}", WRITE)]
        for path, rights in allowed:
            if not self._rules.allow(path, rights):
                raise UnavailableError(f"{shown(path)} went away while the sandbox was made; try again")

    def enter(self) -> None:
        """Put the rules in force: between fork and exec, in the child. Nothing else may run in between."""
        if self._rules is None:
            return
        try:
            self._rules.restrict()
        except OSError as error:
            os.write(self._writing, str(error.errno).encode())
            raise

    def failure(self) -> UnavailableError:
        """Return why `enter` raised in the child, which has not become the command."""
        os.set_blocking(self._reading, False)
        try:
            number = int(os.read(self._reading, 16))
        except (OSError, ValueError):
            number = 0
        reason = os.strerror(number) if number else "it could not start"
        if number == errno.E2BIG:
            reason = "too many sandboxes are nested (the kernel takes 16)"
        return UnavailableError(f"the kernel did not take the sandbox, and the command was not started: {reason}")

    def keep_up(self) -> None:
        """Copy the settings again if they have changed; what cannot be copied now stays as it was."""
        if self._scratch is None:
            return
        try:
            if configuration.stamp(self._layout) != self._stamp:
                self._copy_settings(self._scratch.folder)
                event("sandbox.settings", folder=self.folder)
        except ProntoError as error:
            event("sandbox.settings_kept", folder=self.folder, reason=str(error))

    def close(self) -> None:
        """Remove the private folder with all that the command left there; a second call does nothing."""
        rules, self._rules = self._rules, None
        if rules is not None:
            rules.close()
        if self._reading >= 0:
            os.close(self._reading)
            os.close(self._writing)
            self._reading = self._writing = -1
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            scratch.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _around(layout: Layout, root: str, address: Address) -> str | None:
    """Return the private folder of the sandbox that we are in, at this very address; None outside.

    The environment alone is not believed: the kernel must keep us out of the root.
    """
    if layout.sandbox is None or not is_kept_out(root):
        return None
    with open_root(layout.sandbox) as folder:
        of = read_bytes(folder, SANDBOX_ADDRESS_FILE)
    if of is None or of.decode("utf-8", "replace").strip() != str(address):
        raise sandboxed(Layout(root).path(*layout.address_parts(address)))
    return layout.sandbox
