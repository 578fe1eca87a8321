"""The suites a second time: with `pytest --encrypted` every address that a test makes is encrypted.

Nothing else changes: the tests are the same, and in every process of theirs new addresses get a secret of their own.
After each test no word that went into a keystore may stand in any file below its root.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prontodb.encryption.keyring import Keyring
from prontodb.encryption.sources import KeyFile
from prontodb.engine.sqlite import ciphers, writing
from prontodb.model import layout as layouts
from prontodb.model.address import Address
from prontodb.model.layout import KEYSTORE_FILE
from prontodb.model.operation import Op
from prontodb.storage import connection
from prontodb.storage.files import open_root

if TYPE_CHECKING:
    from prontodb.model.secret import Secret

KEY_FILE = "PRONTODB_KEY_FILE"
SHORTEST_WORD = 8
MOST_WORDS = 500

_words: set[bytes] = set()


def is_on() -> bool:
    """True in a run with `--encrypted`, and in the processes that it starts."""
    return os.environ.get("PRONTODB_ENCRYPT") == "1"


def begin(folder: Path) -> None:
    """Make a key, name it in the environment, and have every layout of this process bring it."""
    key = folder / "key"
    key.touch(mode=0o600)
    key.write_text(os.urandom(32).hex())
    os.environ[KEY_FILE], os.environ["PRONTODB_ENCRYPT"] = str(key), "1"
    install()


def join() -> None:
    """In a process that an encrypted run has started: do as that run does."""
    if is_on() and layouts.Layout.__init__.__name__ != "sealed":
        install()


def install() -> None:
    """Have every layout that names no keys of its own bring those of the environment; note what is written."""
    plain, judged = layouts.Layout.__init__, writing.Group._staged

    def sealed(self: layouts.Layout, root: str, keys: layouts.Keys | None = None, sandbox: str | None = None) -> None:
        source = KeyFile(os.environ[KEY_FILE])
        plain(self, root, keys or Keyring(root, source, encrypts_new=True), sandbox)

    def noted(self: writing.Group, op: Op, revision: int) -> tuple[writing.Row, str]:
        for word in (op.key, op.value or ""):
            # The name of an address is no secret: its folder is called so.
            if len(word) >= SHORTEST_WORD and "/" not in word and len(_words) < MOST_WORDS:
                _words.add(word.encode())
        return judged(self, op, revision)

    layouts.Layout.__init__ = sealed  # type: ignore[method-assign]
    writing.Group._staged = noted  # type: ignore[method-assign]
    _look_behind_seals()


def _look_behind_seals() -> None:
    """Have tests that open a keystore's file by its path, and tests alone, bring its secret."""
    connect = connection.connect

    def opened(path: str, **options: Any) -> connection.Connection:
        if sys._getframe(1).f_globals["__name__"].startswith(("tests.", "__main__")) and "secret" not in options:
            options["secret"] = secret_of(Path(path))
        return connect(path, **options)

    connection.connect = opened


def secret_of(keystore: Path) -> Secret | None:
    """Return what opens a keystore that lies in a root; None for any other file, and a plain one."""
    if keystore.name != KEYSTORE_FILE or len(keystore.parents) < 4:
        return None
    layout = layouts.Layout(str(keystore.parents[3]))
    with open_root(str(keystore.parent)) as folder:
        return ciphers.secret_in(layout, folder, Address(keystore.parents[1].name, keystore.parent.name))


def forget() -> None:
    """Begin a test: nothing has been written."""
    _words.clear()


def plain_words(place: Path) -> list[str]:
    """Return where below a root a word stands that went into a keystore, a line each."""
    return [f"{path.relative_to(place)} holds {word!r}" for path in _files(place) for word in _found(path)]


def _files(place: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(place):
        yield from (Path(folder, name) for name in names)


def _found(path: Path) -> list[bytes]:
    if not path.is_file() or path.is_symlink():
        return []
    data = path.read_bytes()
    return [word for word in _words if word in data]
