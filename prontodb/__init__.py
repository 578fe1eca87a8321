"""ProntoDB: an isolated, durable keystore for every AI agent.

The public face. Names are imported when they are first used, so that a one-shot command pays only for what it needs.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from prontodb import blocking as blocking
    from prontodb import errors as errors
    from prontodb import tokens as tokens
    from prontodb.composition import open_manager as open
    from prontodb.encryption.sources import KeyCommand as KeyCommand
    from prontodb.encryption.sources import KeyFile as KeyFile
    from prontodb.encryption.sources import Passphrase as Passphrase
    from prontodb.encryption.sources import SystemKeyring as SystemKeyring
    from prontodb.keystore import Keystore as Keystore
    from prontodb.log import disable as disable_logging
    from prontodb.log import enable as enable_logging
    from prontodb.manager import SessionManager as SessionManager
    from prontodb.model.address import Address as Address
    from prontodb.model.entry import Entry as Entry
    from prontodb.model.operation import Change as Change
    from prontodb.model.quotas import Quota as Quota
    from prontodb.model.settings import Settings as Settings

_HOMES = {
    "Address": ("prontodb.model.address", "Address"),
    "Change": ("prontodb.model.operation", "Change"),
    "Entry": ("prontodb.model.entry", "Entry"),
    "KeyCommand": ("prontodb.encryption.sources", "KeyCommand"),
    "KeyFile": ("prontodb.encryption.sources", "KeyFile"),
    "Keystore": ("prontodb.keystore", "Keystore"),
    "Passphrase": ("prontodb.encryption.sources", "Passphrase"),
    "Quota": ("prontodb.model.quotas", "Quota"),
    "SessionManager": ("prontodb.manager", "SessionManager"),
    "Settings": ("prontodb.model.settings", "Settings"),
    "SystemKeyring": ("prontodb.encryption.sources", "SystemKeyring"),
    "disable_logging": ("prontodb.log", "disable"),
    "enable_logging": ("prontodb.log", "enable"),
    "open": ("prontodb.composition", "open_manager"),
}

__all__ = [
    "Address",
    "Change",
    "Entry",
    "KeyCommand",
    "KeyFile",
    "Keystore",
    "Passphrase",
    "Quota",
    "SessionManager",
    "Settings",
    "SystemKeyring",
    "blocking",
    "disable_logging",
    "enable_logging",
    "errors",
    "open",
    "tokens",
]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in ("blocking", "errors", "tokens"):
        return import_module(f"prontodb.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'prontodb' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    found = getattr(import_module(module), attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
