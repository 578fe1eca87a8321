"""Values that are piped in, and their rescue."""

import io
import sys
from pathlib import Path

import pytest

from prontodb.cli import piping
from tests.unit.cli.harness import Cli, Pipe, tree


def rescued_key(said: str) -> str:
    """The key in the command that an error line offers."""
    assert "kept for 15 minutes: prontodb " in said
    return next(word for word in said.split() if word.startswith("pipe.cache."))


@pytest.mark.parametrize("path", ["a..b", "", "a\nb", "x" * 1025])
def test_what_is_piped_at_a_path_that_cannot_be_used_is_rescued_by_copy(cli: Cli, path: str) -> None:
    value = "took an hour\nto compute\n"
    key = rescued_key(cli.fails("set", path, stdin=value.encode()))
    left_s = int(cli.ok("ttl", key).text)
    assert 800 < left_s <= 900
    cli.ok("copy", key, "good.path")
    assert cli.ok("get", "good.path").text == value
    # What was rescued stays; only the rescue itself runs out.
    assert cli.ok("ttl", "good.path").text == "never\n"


def test_a_bad_lifetime_does_not_lose_what_was_piped_either(cli: Cli) -> None:
    key = rescued_key(cli.fails("set", "k", "--ttl", "soon", stdin=b"v"))
    assert cli.ok("get", key).text == "v"
    assert cli("get", "k").code == 2


def test_the_command_offered_names_the_address_that_was_asked_for(cli: Cli, root: Path) -> None:
    said = cli.fails("--user", "agent1", "set", "a..b", "--cursor", "prod", stdin=b"v")
    key = rescued_key(said)
    assert f"prontodb --user agent1 --cursor prod copy {key} NEW_PATH" in said
    assert cli.ok("get", key, "--user", "agent1", "--cursor", "prod").text == "v"


def test_a_copy_of_what_was_rescued_writes_over_nothing_unless_told(cli: Cli) -> None:
    cli.ok("set", "k", "old")
    key = rescued_key(cli.fails("set", "a..b", stdin=b"new"))
    assert "exists already" in cli.fails("copy", key, "k")
    cli.ok("copy", key, "k", "--overwrite")
    assert cli.ok("get", "k").text == "new"


def test_nothing_is_rescued_where_nothing_was_piped(cli: Cli) -> None:
    cli.fails("set", "a..b", stdin=b"")
    cli.fails("set", "a..b", "v")
    cli.fails("set", "a..b", "--user", "..", stdin=b"v")
    assert tree(cli.root) == {}


def test_stdin_is_read_no_further_than_the_limit(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    (cli.root / "registry").mkdir(mode=0o700)
    (cli.root / "registry" / "global_config.json").write_text('{"format": 1, "settings": {"max_value_bytes": 1000}}')
    (cli.root / "registry" / "global_config.json").chmod(0o600)
    source = io.BytesIO(b"x" * 5000)
    monkeypatch.setattr(piping, "stdin", lambda: source)
    assert "max_value_bytes is 1,000" in cli.fails("set", "k", "--stdin")
    assert source.tell() == 1001
    source.seek(4000)
    cli.ok("set", "k", "--stdin")
    assert len(cli.ok("get", "k").out) == 1000


@pytest.mark.parametrize("data", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"ok\x80", "é".encode("latin-1")])
def test_what_is_not_utf_8_is_refused_and_nothing_is_stored(cli: Cli, data: bytes) -> None:
    assert "not UTF-8" in cli.fails("set", "k", stdin=data)
    assert tree(cli.root) == {}


def test_set_without_a_value_and_without_stdin_is_refused(cli: Cli) -> None:
    assert "stdin is closed" in cli.fails("set", "k")
    assert "stdin is closed" in cli.fails("set", "k", "--stdin")
    assert "stdin is closed" in cli.fails("import")


def test_a_terminal_or_a_device_is_no_value_that_anybody_gave(cli: Cli) -> None:
    # The harness would put its own stdin here; a real device has a descriptor that can be looked at.
    with open("/dev/null") as device:
        before, sys.stdin = sys.stdin, device
        try:
            assert not piping.is_piped()
        finally:
            sys.stdin = before


def test_a_stdin_that_gives_little_at_a_time_is_read_to_its_end(cli: Cli) -> None:
    class Slow(io.RawIOBase):
        def __init__(self) -> None:
            self.left = [b"a", b"\xc3", b"\xa9", b"b\n"]

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            return self.left.pop(0) if self.left else b""

    assert piping._read(Slow(), 100) == "aéb\n".encode()  # type: ignore[arg-type]


def test_the_harness_is_no_terminal() -> None:
    assert not Pipe().isatty()
