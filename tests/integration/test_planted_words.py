"""No word that was stored stands in any byte below an encrypted root, its backups or TMPDIR, whatever was done with it.

One life that uses everything (`tests/planted_life.py`), left to its end or killed; the same search finds the words of
the same life without encryption, in each kind of file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.old_sources import rust
from tests.planted_life import STEPS
from tests.roots import CHECKOUT
from tests.sealed import KEY, VALUE, key_file

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = pytest.mark.plain("these encrypt by themselves what they mean to")

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
WORDS = [word.encode(coding) for word in (KEY, VALUE) for coding in ("utf-8", "utf-16-le", "utf-16-be")]
WORDS += [word.encode().hex().encode() for word in (KEY, VALUE)]


def lived(place: Path, *, encrypted: bool, last: str = "") -> list[Path]:
    """Lead a life to its end or to a kill, and return every file that it left in which a planted word stands."""
    led = place / "led"
    for name in ("root", "tmp"):
        (led / name).mkdir(mode=0o700, parents=True)
    old = rust(place / "old" / "main" / "pronto.main.prdb", [("p", "n", f"{KEY}.old", VALUE)])
    program = str(CHECKOUT / "tests" / "planted_life.py")
    key = str(key_file(place)) if encrypted else ""
    words = [str(led), key, str(old.parent.parent), last]
    known = {**os.environ, "PYTHONPATH": str(CHECKOUT), "TMPDIR": str(led / "tmp")}
    done = subprocess.run([sys.executable, program, *words], env=known, capture_output=True, text=True, timeout=300)
    reached = STEPS[: STEPS.index(last) + 1] if last else STEPS
    assert done.returncode == (-9 if last else 0), done.stderr
    assert tuple(line for line in done.stdout.splitlines() if line in STEPS) == reached
    return found_below(led)


def found_below(place: Path) -> list[Path]:
    paths = [Path(folder, name) for folder, _, names in os.walk(place) for name in names]
    return [path for path in paths if any(word in text_of(path) for word in WORDS)]


def text_of(path: Path) -> bytes:
    """Every byte of a file, and what they hold where they are only packed; its name, too."""
    data = path.read_bytes()
    unpacked = zstd.decompress(data) if data.startswith(ZSTD_MAGIC) else b""
    return b"\n".join((os.fsencode(path.name), data, unpacked))


@pytest.mark.parametrize("last", ["", *STEPS[:-1]])
def test_no_stored_word_stands_anywhere_below_an_encrypted_root(tmp_path: Path, last: str) -> None:
    assert lived(tmp_path, encrypted=True, last=last) == []
    assert list((tmp_path / "led" / "root").rglob("keystore.db*"))  # what was searched is there


def test_the_same_search_finds_the_words_of_the_same_life_unencrypted(tmp_path: Path) -> None:
    for name, last, endings in (
        ("ended", "", {"keystore.db", "agent1@prod.db", "agent1@prod.jsonl.zst"}),
        ("killed", "migrated", {"keystore.db", "keystore.db-wal"}),
    ):
        place = tmp_path / name
        place.mkdir()
        found = lived(place, encrypted=False, last=last)
        assert {path.name for path in found} >= endings
        for other in ("elsewhere", "second", "into"):
            assert any(path.is_relative_to(place / "led" / other) for path in found), other
