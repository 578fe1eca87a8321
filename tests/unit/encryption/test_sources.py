"""Keys from files, commands, keyrings and passphrases: what is accepted, and what is refused with the way out."""

import os
import pickle
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend

from prontodb.encryption import sources
from prontodb.encryption.sources import (
    MAX_MEMORY_KIB,
    KeyCommand,
    KeyFile,
    Passphrase,
    Stretch,
    SystemKeyring,
    encrypts_new_by,
    source_from,
)
from prontodb.errors import InvalidInputError, SecretError
from prontodb.model.secret import Secret
from tests.roots import as_root, python
from tests.sealed import key_file

RANDOM = bytes(range(100, 132))


def test_a_key_file_holds_hex_digits_or_bytes(tmp_path: Path) -> None:
    for number, data in enumerate((RANDOM.hex().encode(), RANDOM.hex().encode() + b"\n", RANDOM)):
        path = key_file(tmp_path, str(number))
        path.write_bytes(data)
        assert KeyFile(path).wrapping_key(None) == KeyFile(tmp_path / "0").wrapping_key(None)


@pytest.mark.parametrize(
    "data", [b"", b"x", b"0" * 64, bytes(32), b"z" * 64, RANDOM[:31], RANDOM + b"x", RANDOM.hex().encode() * 2]
)
def test_what_holds_no_key_is_refused_without_a_byte_of_it(tmp_path: Path, data: bytes) -> None:
    path = key_file(tmp_path)
    path.write_bytes(data)
    with pytest.raises(SecretError, match="prontodb secret make FILE") as caught:
        KeyFile(path).wrapping_key(None)
    assert RANDOM.hex()[:16] not in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601])
def test_a_key_file_that_is_open_to_others_is_refused_with_the_command_that_closes_it(
    tmp_path: Path, mode: int
) -> None:
    path = key_file(tmp_path, "a key")
    path.chmod(mode)
    with pytest.raises(SecretError, match=r"open to others.*chmod 600 '") as caught:
        KeyFile(path).wrapping_key(None)
    assert os.system(str(caught.value).rpartition("close it: ")[2]) == 0
    assert KeyFile(path).wrapping_key(None)


@as_root
def test_a_key_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    os.chown(path, 65534, 65534)
    with pytest.raises(SecretError, match=r"belongs to uid 65534, not to us; take it over: chown 0 "):
        KeyFile(path).wrapping_key(None)


def test_links_pipes_and_folders_are_no_key_files_and_nobody_waits_for_them(tmp_path: Path) -> None:
    real = key_file(tmp_path)
    (tmp_path / "link").symlink_to(real)
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name in ("link", "pipe", "folder", "nothing"):
        with pytest.raises(SecretError, match="key file"):
            KeyFile(tmp_path / name).wrapping_key(None)
    with pytest.raises(InvalidInputError, match="whole path"):
        KeyFile("relative")


def test_a_command_prints_the_key_and_runs_once_without_a_shell(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    program = f"open({str(counter)!r}, 'a').write('x'); print({RANDOM.hex()!r})"
    source = KeyCommand((sys.executable, "-c", program))
    path = key_file(tmp_path)
    path.write_bytes(RANDOM)
    assert source.wrapping_key(None) == source.wrapping_key(None) == KeyFile(path).wrapping_key(None)
    assert counter.read_text() == "x"
    with pytest.raises(SecretError, match="does not hold a key"):
        KeyCommand("echo $(echo hi)").wrapping_key(None)


@pytest.mark.parametrize(
    ("command", "said"),
    [("false", "exit code 1"), ("/nothing/there", "cannot be run"), ("true", "does not hold a key")],
)
def test_a_command_that_fails_says_so(command: str, said: str) -> None:
    with pytest.raises(SecretError, match=said):
        KeyCommand(command).wrapping_key(None)


@pytest.mark.parametrize("command", ["", "'", (), 5, None, (5,), ("a\x00b",)])
def test_a_command_that_is_none_is_refused(command: str | tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError):
        KeyCommand(command)


ENDLESS = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))  # what is not bounded ends here, and not the machine
from prontodb.encryption.sources import KeyCommand
try:
    KeyCommand(sys.argv[1]).wrapping_key(None)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_command_that_prints_without_end_is_killed_and_fills_no_memory() -> None:
    found = python(ENDLESS, "cat /dev/zero")
    assert found.stdout.strip() == "SecretError the key command 'cat' prints more than 4,096 bytes: that is no key"


def test_a_command_that_does_not_end_is_killed_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "COMMAND_S", 1.0)
    pid = tmp_path / "pid"
    program = f"sleep 1000 & echo $! > {pid}; sleep 1000"
    monkeypatch.setattr(sources, "_has_terminal", lambda: False)
    with pytest.raises(SecretError, match="did not end in 1 s; it was killed"):
        KeyCommand(("sh", "-c", program)).wrapping_key(None)
    assert is_gone(int(pid.read_text()))


def is_gone(pid: int) -> bool:
    """True once a process has ended, which nobody here may wait for."""
    for _ in range(1_000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_a_command_is_not_given_what_was_piped_into_us() -> None:
    program = (
        "import sys; from prontodb.encryption.sources import KeyCommand; "
        "KeyCommand(('sh', '-c', 'cat > /dev/null; echo ' + sys.argv[1])).wrapping_key(None); print(sys.stdin.read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, RANDOM.hex()], input="value", capture_output=True, text=True, check=True
    )
    assert done.stdout == "value\n"


class Memory(KeyringBackend):
    """A keyring that forgets."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.held[service, username]


class Broken(Memory):
    def get_password(self, service: str, username: str) -> str | None:
        raise RuntimeError("a secret in an error's text")


def test_the_systems_keyring_holds_a_key_under_a_name() -> None:
    before = keyring.get_keyring()
    try:
        keyring.set_keyring(Memory())
        source = SystemKeyring("agents")
        with pytest.raises(SecretError, match="secret make --keyring agents"):
            source.wrapping_key(None)
        source.make()
        assert source.wrapping_key(None) == SystemKeyring("agents").wrapping_key(None)
        with pytest.raises(SecretError, match="holds a key named 'agents' already"):
            source.make()
        keyring.set_keyring(Broken())
        with pytest.raises(SecretError, match="cannot be used") as caught:
            source.wrapping_key(None)
        assert not carried(caught.value, "secret in an error")
    finally:
        keyring.set_keyring(before)


def test_a_passphrase_is_asked_for_once_and_stretched_once_for_each_salt() -> None:
    asked: list[int] = []

    def ask() -> str:
        asked.append(1)
        return "correct horse"

    stretch = Stretch(bytes(32), 64, 1, 1)
    source = Passphrase(ask)
    assert source.wrapping_key(stretch) == Passphrase("correct horse").wrapping_key(stretch)
    assert source.wrapping_key(stretch) != source.wrapping_key(Stretch(bytes([1]) * 32, 64, 1, 1))
    assert asked == [1]
    for wrong, said in (("", "1 to 1,024 characters"), ("hidden\udcff", "UTF-8")):
        with pytest.raises(SecretError, match=said) as caught:
            Passphrase(partial(str, wrong)).wrapping_key(stretch)
        assert not carried(caught.value, "hidden")


def carried(error: BaseException | None, word: str) -> bool:
    """True when an error, or one that hangs on to it, carries a word."""
    if error is None:
        return False
    texts = [repr(error), str(error), repr(error.args), repr(vars(error)), repr(getattr(error, "object", ""))]
    return any(word in text for text in texts) or carried(error.__context__, word) or carried(error.__cause__, word)


@pytest.mark.parametrize(
    "text", ["", "hidden-text" * 200, "hidden-text\udcff\udcfe", "hidden-text\ud800", 5, None, b"hidden-text"]
)
def test_what_can_be_no_passphrase_is_refused_at_once_and_not_repeated(text: object) -> None:
    with pytest.raises(InvalidInputError, match=r"^a passphrase ") as caught:
        Passphrase(text)  # type: ignore[arg-type]
    assert not carried(caught.value, "hidden-text")
    if isinstance(text, str) and text:
        with pytest.raises(InvalidInputError, match=r"\(from PRONTODB_PASSPHRASE\)") as caught:
            source_from({"PRONTODB_PASSPHRASE": text})
        assert not carried(caught.value, "hidden-text")


def test_a_key_where_the_name_of_its_file_belongs_is_not_repeated() -> None:
    for wrong in (RANDOM.hex(), b"/key", 5, None, "/a\x00b"):
        with pytest.raises(InvalidInputError, match="whole path") as caught:
            KeyFile(wrong)  # type: ignore[arg-type]
        assert not carried(caught.value, RANDOM.hex())
    with pytest.raises(InvalidInputError, match="from PRONTODB_KEY_FILE") as caught:
        source_from({"PRONTODB_KEY_FILE": RANDOM.hex()})
    assert not carried(caught.value, RANDOM.hex())


WHOLE = Stretch.new().as_dict()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "md5"}, {"salt": "00"}, {"salt": 5}, {"memory_kib": 0}, {"memory_kib": MAX_MEMORY_KIB + 1},
        {"lanes": True},
        {"iterations": 10**9}, {"lanes": 65}, {"iterations": "3"}, {"memory_kib": 8, "lanes": 4}, {"more": 1},
    ],
)  # fmt: skip
def test_hostile_parameters_of_a_stretching_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Stretch.from_dict({**WHOLE, **change})


def test_the_environment_names_one_source_and_says_what_is_wrong(tmp_path: Path) -> None:
    path = str(key_file(tmp_path))
    assert source_from({}) is source_from({"PRONTODB_KEY_FILE": ""}) is None
    assert isinstance(source_from({"PRONTODB_KEY_FILE": path}), KeyFile)
    assert isinstance(source_from({"PRONTODB_KEY_COMMAND": "pass show x"}), KeyCommand)
    assert isinstance(source_from({"PRONTODB_KEYRING": "agents"}), SystemKeyring)
    assert isinstance(source_from({"PRONTODB_PASSPHRASE": "x"}), Passphrase)
    with pytest.raises(InvalidInputError, match="PRONTODB_KEY_FILE and PRONTODB_PASSPHRASE are set"):
        source_from({"PRONTODB_KEY_FILE": path, "PRONTODB_PASSPHRASE": "x"})
    with pytest.raises(InvalidInputError, match="from PRONTODB_KEY_FILE"):
        source_from({"PRONTODB_KEY_FILE": "key"})
    assert encrypts_new_by({"PRONTODB_ENCRYPT": "1"})
    assert not encrypts_new_by({"PRONTODB_ENCRYPT": "0"})
    with pytest.raises(InvalidInputError, match="PRONTODB_ENCRYPT is 1, 0 or empty"):
        encrypts_new_by({"PRONTODB_ENCRYPT": "yes"})


def test_nothing_secret_is_shown_or_written_down(tmp_path: Path) -> None:
    secret = Secret("0123456789abcdef", 3, b"d" * 32, b"c" * 32)
    texts = [repr(secret), str(secret), repr(Passphrase("hidden-text")), repr(KeyCommand("pass hidden-text"))]
    assert texts[0] == "Secret(0123456789abcdef-3)"
    assert not any("hidden-text" in text or "dddd" in text for text in texts)
    with pytest.raises(TypeError, match="not written down"):
        pickle.dumps(secret)
    assert secret.derived(b"one") != secret.derived(b"two") != secret.data_key
