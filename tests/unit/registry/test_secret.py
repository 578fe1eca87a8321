"""The secret of a root's tokens: made once, for us alone, and never guessed."""

import stat
from pathlib import Path

import pytest

from prontodb.errors import CorruptError, NewerFormatError, ProntoError
from prontodb.model.address import Address
from prontodb.model.layout import Layout
from prontodb.registry import secret
from tests.roots import together


@pytest.fixture
def layout(root: Path) -> Layout:
    root.mkdir(mode=0o700, exist_ok=True)
    return Layout(str(root))


def file(layout: Layout) -> Path:
    return Path(layout.root) / "keys" / "tokens.json"


def test_it_is_made_when_first_needed_and_stays(layout: Layout) -> None:
    assert secret.load(layout) is None
    assert not file(layout).parent.exists()
    made = secret.load_or_make(layout, wait_s=5)
    assert len(made.secret) == 32
    for again in (secret.load(layout), secret.load_or_make(layout, wait_s=5)):
        assert again is not None
        assert (again.secret, again.revoked) == (made.secret, {})
    assert stat.S_IMODE(file(layout).stat().st_mode) == 0o600
    assert stat.S_IMODE(file(layout).parent.stat().st_mode) == 0o700
    assert [path.name for path in file(layout).parent.iterdir()] == ["tokens.json"]


MAKE = """
import sys
from prontodb.model.layout import Layout
from prontodb.registry import secret
print("ready", flush=True); input()
print(secret.load_or_make(Layout(sys.argv[1]), wait_s=30).secret.hex())
"""


def test_many_that_need_it_first_get_the_same(layout: Layout) -> None:
    found = together(MAKE, [(layout.root,)] * 3)
    held = secret.load(layout)
    assert held is not None
    assert set(found) == {held.secret.hex()}


def test_what_is_revoked_is_remembered_beyond_any_epoch_and_never_without_end(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (Address("a", cursor) for cursor in ("one", "two", "three"))
    assert secret.revoke(layout, first, 7, wait_s=5) == 8
    assert secret.load(layout) is None, "without a token there is nothing to remember"
    made = secret.load_or_make(layout, wait_s=5)
    assert [secret.revoke(layout, first, epoch, wait_s=5) for epoch in (7, 0, 20)] == [8, 9, 21]
    monkeypatch.setattr(secret, "MAX_REVOKED", 2)
    secret.revoke(layout, second, 0, wait_s=5)
    held = secret.load(layout)
    assert held is not None
    assert (held.secret, held.revoked) == (made.secret, {"a/one": 21, "a/two": 22})
    secret.revoke(layout, third, 3, wait_s=5)
    held = secret.load(layout)
    assert held is not None
    assert held.secret != made.secret, "all tokens have ended"
    assert held.revoked == {"a/three": 23}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", CorruptError),
        ("{", CorruptError),
        ("[]", CorruptError),
        ('{"secret": "00"}', CorruptError),
        ('{"format": true}', CorruptError),
        ('{"format": 1}', CorruptError),
        ('{"format": 1, "secret": "%s", "revoked": []}' % ("0" * 64), CorruptError),
        ('{"format": 1, "secret": "%s", "revoked": {"a/b": true}}' % ("0" * 64), CorruptError),
        ('{"format": 1, "secret": 5}', CorruptError),
        ('{"format": 1, "secret": "%s"}' % ("0" * 63), CorruptError),
        ('{"format": 1, "secret": "%s"}' % ("0" * 63 + "\u0663"), CorruptError),
        ('{"format": 1, "secret": "%s"}' % ("A" * 64), CorruptError),
        ('{"format": 2, "secret": "%s"}' % ("0" * 64), NewerFormatError),
    ],
)
def test_a_file_that_is_wrong_is_refused_and_not_replaced(layout: Layout, text: str, kind: type[ProntoError]) -> None:
    secret.load_or_make(layout, wait_s=5)
    file(layout).write_text(text)
    with pytest.raises(kind) as caught:
        secret.load(layout)
    assert "0" * 32 not in str(caught.value)
    with pytest.raises(kind):
        secret.load_or_make(layout, wait_s=5)
    assert file(layout).read_text() == text
