"""What opens encrypted addresses: the keyring of a command, made when a secret is asked for, and the passphrase."""

from __future__ import annotations

import os

from prontodb.errors import SecretError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from prontodb.encryption.keyring import Keyring
    from prontodb.model.layout import Layout
    from prontodb.model.limits import Limits

    class Rooted(Protocol):
        """What we use of the place that a command acts on; its settings are read after its keyring is made."""

        limits: Limits

        @property
        def encrypts_new(self) -> bool: ...


class LazyKeys:
    """The keyring of a root, made when somebody asks for a secret: most commands never do."""

    __slots__ = ("_keyring", "_layout", "_place")

    def __init__(self, layout: Layout, place: Rooted) -> None:
        self._layout, self._place = layout, place
        self._keyring: Keyring | None = None

    @property
    def encrypts_new(self) -> bool:
        """True when addresses that are made are to be encrypted."""
        return self._place.encrypts_new or bool(os.environ.get("PRONTODB_ENCRYPT") and self.keyring.encrypts_new)

    @property
    def keyring(self) -> Keyring:
        """The keyring itself."""
        if self._keyring is None:
            from prontodb.encryption.keyring import keyring_of
            from prontodb.encryption.sources import Passphrase
            from prontodb.storage.process import leave_no_core

            leave_no_core()  # it would hold secrets and values
            self._keyring = keyring_of(
                self._layout,
                os.environ,
                encrypts_new=self._place.encrypts_new,
                asked=Passphrase(ask_passphrase),
                wait_s=self._place.limits.wait_s,
            )
        return self._keyring

    def __getattr__(self, name: str) -> Any:
        return getattr(self.keyring, name)


def ask_passphrase(prompt: str = "passphrase: ") -> str:
    """Ask for a passphrase on the terminal; `SecretError` where there is none."""
    import sys

    if sys.stdin is None or not sys.stdin.isatty():
        raise SecretError("this is encrypted with a passphrase; set PRONTODB_PASSPHRASE, or run it on a terminal")
    import getpass

    return getpass.getpass(prompt)
