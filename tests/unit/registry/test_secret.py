"""The secret of a root's tokens: made once, for us alone, and never guessed."""

import stat
from pathlib import Path

import pytest

from prontodb.errors import CorruptError, NewerFormatError, ProntoError
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
    assert len(made) == 32
    assert secret.load(layout) == secret.load_or_make(layout, wait_s=5) == made
    assert stat.S_IMODE(file(layout).stat().st_mode) == 0o600
    assert stat.S_IMODE(file(layout).parent.stat().st_mode) == 0o700
    assert [path.name for path in file(layout).parent.iterdir()] == ["tokens.json"]


MAKE = """
import sys
from prontodb.model.layout import Layout
from prontodb.registry import secret
print("ready", flush=True); input()
print(secret.load_or_make(Layout(sys.argv[1]), wait_s=30).hex())
"""


def test_many_that_need_it_first_get_the_same(layout: Layout) -> None:
    found = together(MAKE, [(layout.root,)] * 3)
    assert set(found) == {(secret.load(layout) or b"").hex()}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", CorruptError),
        ("{", CorruptError),
        ("[]", CorruptError),
        ('{"secret": "00"}', CorruptError),
        ('{"format": true}', CorruptError),
        ('{"format": 1}', CorruptError),
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
