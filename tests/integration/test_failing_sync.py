"""A change of an address whose folder cannot be synced: an error that says whether the change may have happened."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from prontodb.encryption.keyring import Keyring
from prontodb.encryption.sources import KeyFile
from prontodb.engine.sqlite import folders
from prontodb.engine.sqlite.lifecycle import Lifecycle
from prontodb.engine.sqlite.resealing import ENCRYPT, REKEY, Resealing
from prontodb.errors import ProntoError, outcome_is_unknown
from prontodb.model.address import Address
from prontodb.model.layout import Layout
from prontodb.model.secret import Secret
from prontodb.storage.files import Folder
from tests.parts import Parts, fill

pytestmark = pytest.mark.plain("it makes its own addresses encrypted where it wants them")

ONE, OTHER = Address("agent1", "prod"), Address("agent2", "test")


def another(folder: Folder, secret: Secret | None) -> tuple[int, Mapping[str, str]]:
    folders.create_keystore(folder, secret)
    return 1, {}


def resealed(what: str) -> Callable[[Lifecycle, Parts], object]:
    return lambda lifecycle, parts: list(Resealing(lifecycle, parts.clock, ONE, what).steps())


CHANGES: dict[str, Callable[[Lifecycle, Parts], object]] = {
    "create": lambda lifecycle, _: lifecycle.create(OTHER),
    "create encrypted": lambda lifecycle, _: lifecycle.create(OTHER, encrypted=True),
    "delete": lambda lifecycle, _: lifecycle.delete(ONE),
    "delete encrypted": lambda lifecycle, _: lifecycle.delete(ONE),
    "rename": lambda lifecycle, _: lifecycle.rename(ONE, OTHER),
    "restore": lambda lifecycle, _: lifecycle.restore(ONE, another),
    "undo": lambda lifecycle, _: lifecycle.undo_restore(ONE),
    ENCRYPT: resealed(ENCRYPT),
    REKEY: resealed(REKEY),
}


def prepared(root: Path, key: Path, change: str) -> tuple[Lifecycle, Parts]:
    """A root on which the change can be made."""
    root.mkdir(mode=0o700)
    parts = Parts(root)
    layout = Layout(str(root), Keyring(str(root), KeyFile(str(key)), encrypts_new=False))
    lifecycle = Lifecycle(layout, parts.clock, parts.registry, wait_s=5, one_shot=True)
    fill(root, str(ONE), {"k": "v"})
    if change == "undo":
        lifecycle.restore(ONE, another)
    if change in (REKEY, "delete encrypted"):
        CHANGES[ENCRYPT](lifecycle, parts)
    return lifecycle, parts


def records(root: Path) -> set[str]:
    """The key records, without which an encrypted address is gone."""
    return {path.name for path in (root / "keys").glob("[!.]*")}


def keystores(root: Path) -> dict[str, int]:
    """Which file lies at which address: every change here changes that."""
    return {str(path.parent): path.stat().st_ino for path in (root / "addresses").glob("[!.]*/[!.]*/keystore.db")}


class FailingSync:
    """`os.fsync` that fails once, at its n-th call, or from then on."""

    def __init__(self, number: int, lasting: bool) -> None:
        self.number, self.lasting, self.calls, self._sync = number, lasting, 0, os.fsync

    def __call__(self, fd: int) -> None:
        self.calls += 1
        if self.calls == self.number or (self.lasting and self.calls > self.number):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._sync(fd)


def error_of(work: Callable[..., object], *arguments: object) -> ProntoError | None:
    try:
        work(*arguments)
    except ProntoError as error:
        return error
    return None


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_may_have_happened_is_not_told_as_if_it_had_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, lasting: bool
) -> None:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text(os.urandom(32).hex())
    happened: list[bool] = []
    for number in range(1, 100):
        root = tmp_path / str(number)
        lifecycle, parts = prepared(root, key, change)
        before, opening = keystores(root), records(root)
        sync = FailingSync(number, lasting)
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", sync)
            error = error_of(CHANGES[change], lifecycle, parts)
        changed = keystores(root) != before or not opening <= records(root)
        if error is not None:
            assert outcome_is_unknown(error) or not changed, (number, error)
            happened.append(changed)
        else:
            assert changed
            if sync.calls < number:
                break
    assert any(happened), "the sync after the rename failed once"


def test_a_deletion_that_cannot_remove_what_it_took_away_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(root, str(ONE), {"k": "v"})
    unlink = os.unlink

    def fails(path: str, *, dir_fd: int | None = None) -> None:
        if path == "keystore.db":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        unlink(path, dir_fd=dir_fd)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", fails)
        error = error_of(Parts(root).lifecycle.delete, ONE)
    assert error is not None
    assert outcome_is_unknown(error)
    assert Parts(root).listed() == {}
    assert list((root / "addresses").iterdir()) == [], "the next look removes it"
