"""Where the secret comes from that opens key records: a file, a command, the system's keyring, or a passphrase."""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from _blake2 import blake2b
from typing import TYPE_CHECKING, Protocol

from prontodb.encryption.sealing import SALT_BYTES, stretched
from prontodb.errors import InvalidInputError, SecretError, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from subprocess import Popen

FILE, COMMAND, KEYRING, PASSPHRASE, RUN = "file", "command", "keyring", "passphrase", "run"
KINDS = (FILE, COMMAND, KEYRING, PASSPHRASE, RUN)
KEY_BYTES = 32
MAX_BYTES = 4_096
"""Of a key file or a command's output: longer, it is something else."""
COMMAND_S = 60.0
"""How long a command may take to print the key: somebody may have to touch a token."""
MAX_PASSPHRASE_CHARACTERS = 1_024
MAX_MEMORY_KIB = 4 * 1024 * 1024
MAX_ITERATIONS = 100
MAX_LANES = 64


class Stretch:
    """How a passphrase is made a key by Argon2id, stored beside what that key seals. Memory in KiB."""

    __slots__ = ("iterations", "lanes", "memory_kib", "salt")

    # RFC 9106, section 4: the second recommended option, for machines with little memory to spare.
    def __init__(self, salt: bytes, memory_kib: int = 64 * 1024, iterations: int = 3, lanes: int = 4) -> None:
        self.salt, self.memory_kib, self.iterations, self.lanes = salt, memory_kib, iterations, lanes

    @classmethod
    def new(cls) -> Stretch:
        """Return the parameters for a new passphrase, with a random salt."""
        return cls(os.urandom(SALT_BYTES))

    def as_dict(self) -> dict[str, object]:
        """Return the parameters as they stand in a key record."""
        return {
            "name": "argon2id",
            "salt": self.salt.hex(),
            "memory_kib": self.memory_kib,
            "iterations": self.iterations,
            "lanes": self.lanes,
        }

    @classmethod
    def from_dict(cls, fields: object) -> Stretch:
        """Return stored parameters; `ValueError` for others than ours, or beyond what anybody would choose."""
        names = {"name", "salt", "memory_kib", "iterations", "lanes"}
        if not isinstance(fields, dict) or fields.keys() != names or fields["name"] != "argon2id":
            raise ValueError("its stretching is none that this version knows")
        highest = {"memory_kib": MAX_MEMORY_KIB, "iterations": MAX_ITERATIONS, "lanes": MAX_LANES}
        for name, most in highest.items():
            if type(fields[name]) is not int or not 1 <= fields[name] <= most:
                raise ValueError(f"its {name} is not a whole number from 1 to {most:,}")
        salt = bytes.fromhex(fields["salt"]) if isinstance(fields["salt"], str) else b""
        # Argon2 takes no less of either; fewer bytes of salt are not ours.
        if len(salt) != SALT_BYTES or fields["memory_kib"] < 8 * fields["lanes"]:
            raise ValueError("its salt or memory is too small")
        return cls(salt, fields["memory_kib"], fields["iterations"], fields["lanes"])


class KeySource(Protocol):
    """Brings the key that key records are sealed with. `kind` is one of KINDS and stands in them."""

    kind: str

    def wrapping_key(self, stretch: Stretch | None) -> bytes:
        """Return 32 bytes; `stretch` says how, for a passphrase. Raises `SecretError` with the way out."""
        ...


def fingerprint(key: bytes) -> str:
    """Return what tells one wrapping key from another, and nothing of it."""
    return blake2b(key=key, person=b"prontodb-check", digest_size=8).hexdigest()


def key_in(data: bytes, where: str) -> bytes:
    """Return the key in a key file or a command's output: 64 hex digits, or 32 bytes as they are."""
    text = data.strip()
    if len(text) == 2 * KEY_BYTES:
        try:
            return _wrapping(bytes.fromhex(text.decode("ascii")))
        except ValueError:
            pass
    if len(data) == KEY_BYTES:
        return _wrapping(data)
    raise SecretError(
        f"{where} does not hold a key: 64 hex digits, or 32 bytes; make one with: prontodb secret make FILE"
    )


def _wrapping(material: bytes) -> bytes:
    if len(set(material)) < 8:
        raise SecretError("the key is not random: make one with: prontodb secret make FILE")
    return blake2b(key=material, person=b"prontodb-wrap", digest_size=KEY_BYTES).digest()


class KeyFile:
    """A key in a file that is ours and closed to all others; anything else is refused."""

    kind = FILE

    def __init__(self, path: str | os.PathLike[str]) -> None:
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
        # What stands there instead may be the key itself: it is not repeated.
        if not isinstance(text, str) or not text.startswith("/") or "\x00" in text:
            raise InvalidInputError("a key file is named by its whole path, which begins with /")
        self.path = text

    def __repr__(self) -> str:
        return f"KeyFile({self.path!r})"

    def wrapping_key(self, stretch: Stretch | None) -> bytes:
        """See `KeySource`."""
        return key_in(self._read(), f"key file {shown(self.path)}")

    def _read(self) -> bytes:
        place = f"key file {shown(self.path)}"
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise SecretError(f"{place} does not exist; bring it back, or name another one") from None
        except OSError as error:
            if error.errno == errno.ELOOP and os.path.islink(self.path):
                raise SecretError(f"{place} is a link, and was not followed; name the file itself") from None
            raise SecretError(f"{place} cannot be read: {os.strerror(error.errno or 0)}") from error
        try:
            self._check(os.fstat(fd), place)
            return os.read(fd, MAX_BYTES + 1)
        finally:
            os.close(fd)

    def _check(self, found: os.stat_result, place: str) -> None:
        """Refuse a key that others can read, or could have written."""
        import shlex

        path = shlex.quote(self.path)
        if not stat.S_ISREG(found.st_mode):
            raise SecretError(f"{place} is no regular file; it was not used")
        if found.st_uid != os.geteuid():
            raise SecretError(
                f"{place} belongs to uid {found.st_uid}, not to us; take it over: chown {os.geteuid()} {path}"
            )
        if found.st_mode & 0o077:
            raise SecretError(f"{place} is open to others, and was not used; close it: chmod 600 {path}")
        if found.st_size > MAX_BYTES:
            raise SecretError(f"{place} is over {MAX_BYTES:,} bytes: it is something else")


class KeyCommand:
    """A key that a command prints, such as a password manager's; run without a shell, once per process.

    It has COMMAND_S seconds and may print MAX_BYTES; what goes on after that is killed. It may ask on the terminal,
    where there is one, and is never given what was piped into us.
    """

    kind = COMMAND

    def __init__(self, command: str | tuple[str, ...]) -> None:
        import shlex

        try:
            self.words = tuple(shlex.split(command)) if isinstance(command, str) else tuple(command)
        except ValueError as error:
            raise InvalidInputError(f"the key command cannot be taken apart: {error}") from None
        except TypeError:
            self.words = ()
        if not self.words or not all(isinstance(word, str) and "\x00" not in word for word in self.words):
            raise InvalidInputError("a key command is a program and its arguments")
        self._key: bytes | None = None

    def __repr__(self) -> str:
        return f"KeyCommand({self.words[0]!r})"

    def wrapping_key(self, stretch: Stretch | None) -> bytes:
        """See `KeySource`."""
        if self._key is None:
            self._key = key_in(self._printed(), f"what {shown(self.words[0])} prints")
        return self._key

    def _printed(self) -> bytes:
        import subprocess

        name, deadline, may_ask = shown(self.words[0]), time.monotonic() + COMMAND_S, _has_terminal()
        try:
            process = subprocess.Popen(  # noqa: S603 - the user's own command
                self.words,
                stdin=None if may_ask else subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # what it says on stderr, such as a question, is for the user to see
                # A group of its own can be killed as a whole, but could not read from the terminal.
                process_group=None if may_ask else 0,
            )
        except OSError as error:
            raise SecretError(f"the key command {name} cannot be run: {os.strerror(error.errno or 0)}") from error
        try:
            assert process.stdout is not None
            printed = _read_until(process.stdout.fileno(), deadline)
            if len(printed) > MAX_BYTES:
                raise SecretError(f"the key command {name} prints more than {MAX_BYTES:,} bytes: that is no key")
            code = process.wait(max(deadline - time.monotonic(), 0))
        except (TimeoutError, subprocess.TimeoutExpired):
            raise SecretError(f"the key command {name} did not end in {COMMAND_S:g} s; it was killed") from None
        finally:
            _end(process, whole_group=not may_ask)
        if code != 0:
            raise SecretError(f"the key command {name} failed (exit code {code})")
        return printed


def _has_terminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return False


def _read_until(fd: int, deadline: float) -> bytes:
    """Read to the end, or a little past MAX_BYTES; `TimeoutError` when the end does not come."""
    found = b""
    ready = select.poll()
    ready.register(fd, select.POLLIN)
    while len(found) <= MAX_BYTES:
        if not ready.poll(max(deadline - time.monotonic(), 0) * 1_000):
            raise TimeoutError
        data = os.read(fd, MAX_BYTES + 1 - len(found))
        if not data:
            break
        found += data
    return found


def _end(process: Popen[bytes], *, whole_group: bool) -> None:
    """Kill what goes on of a command, and let go of what it prints."""
    import signal

    if process.returncode is None:
        if whole_group:
            os.killpg(process.pid, signal.SIGKILL)  # not waited for yet, so that the number is its own still
        else:
            process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


class SystemKeyring:
    """A key in the keyring of the desktop or operating system, under a name; needs the package `keyring`."""

    kind = KEYRING
    service = "prontodb"

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= 100:
            raise InvalidInputError("the name of a key in the keyring is 1 to 100 printable characters")
        self.name = name

    def __repr__(self) -> str:
        return f"SystemKeyring({self.name!r})"

    def wrapping_key(self, stretch: Stretch | None) -> bytes:
        """See `KeySource`."""
        found = self._ask(lambda ring: ring.get_password(self.service, self.name))
        if not isinstance(found, str):
            raise SecretError(
                f"the keyring holds no key named {shown(self.name)}; "
                f"make one with: prontodb secret make --keyring {self.name}"
            )
        return key_in(found.encode("utf-8", "replace"), f"the keyring's entry {shown(self.name)}")

    def make(self) -> None:
        """Store a new random key under the name; one that is there is not replaced."""
        if self._ask(lambda ring: ring.get_password(self.service, self.name)) is not None:
            raise SecretError(f"the keyring holds a key named {shown(self.name)} already; it stays as it is")
        key = os.urandom(KEY_BYTES).hex()
        self._ask(lambda ring: ring.set_password(self.service, self.name, key))

    def _ask(self, question: Callable[[KeyringModule], object]) -> object:
        try:
            import keyring
        except ImportError:
            raise SecretError("the system's keyring needs a package: pip install 'prontodb[keyring]'") from None
        try:
            return question(keyring)
        except Exception as error:  # noqa: BLE001 - whatever a backend of others raises
            failure = type(error).__name__
        # Out here, where that error does not hang on to ours: its text is not ours, and may quote a secret.
        raise SecretError(f"the system's keyring cannot be used ({failure})")


class Passphrase:
    """A passphrase, stretched by Argon2id: as text, or a function that asks for it when it is first needed."""

    kind = PASSPHRASE

    def __init__(self, text: str | Callable[[], str]) -> None:
        """Raises `InvalidInputError`, which says nothing of the text, for one that can be no passphrase."""
        if not callable(text) and (wrong := _no_passphrase(text)) is not None:
            raise InvalidInputError(wrong)
        self._text, self._keys = text, dict[tuple[object, ...], bytes]()

    def __repr__(self) -> str:
        return "Passphrase(...)"

    def wrapping_key(self, stretch: Stretch | None) -> bytes:
        """See `KeySource`. Each set of parameters is computed once."""
        if stretch is None:
            raise SecretError("this was not sealed with a passphrase; bring the key that it was sealed with")
        asked = (stretch.salt, stretch.memory_kib, stretch.iterations, stretch.lanes)
        if asked not in self._keys:
            if not isinstance(self._text, str):
                given = self._text()
                if (wrong := _no_passphrase(given)) is not None:
                    raise SecretError(wrong)
                self._text = given
            self._keys[asked] = stretched(
                self._text,
                salt=stretch.salt,
                memory_kib=stretch.memory_kib,
                iterations=stretch.iterations,
                lanes=stretch.lanes,
            )
        return self._keys[asked]


def _no_passphrase(text: object) -> str | None:
    """Return why something cannot be a passphrase, without a character of it; None when it can."""
    if not isinstance(text, str):
        return f"a passphrase is text, not {type(text).__name__}"
    if not 0 < len(text) <= MAX_PASSPHRASE_CHARACTERS:
        return f"a passphrase has 1 to {MAX_PASSPHRASE_CHARACTERS:,} characters"
    # Bytes that are not UTF-8 come as half characters out of the environment. Trying to encode them would raise an
    # error that carries the whole text.
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "a passphrase is text in UTF-8; this one is not"
    return None


class RunKey:
    """The key of one sandboxed run: it opens the copies of key records in the run's own folder, and nothing else."""

    kind = RUN

    def __init__(self, text: str) -> None:
        self._key = key_in(text.encode("utf-8", "replace"), "the key of the sandboxed run")

    def __repr__(self) -> str:
        return "RunKey(...)"

    def wrapping_key(self, stretch: Stretch | None) -> bytes:
        """See `KeySource`."""
        return self._key


class KeyringModule(Protocol):
    """What we use of the package `keyring`."""

    def get_password(self, service: str, name: str) -> str | None: ...
    def set_password(self, service: str, name: str, password: str) -> None: ...


OTHER_PASSPHRASE = "PRONTODB_OTHER_PASSPHRASE"  # noqa: S105 - the name of a variable
"""The variable with the passphrase that a record is sealed with elsewhere, or is to be."""
SANDBOX_KEY = "PRONTODB_SANDBOX_KEY"
"""The variable with the key of a sandboxed run."""
VARIABLES: dict[str, Callable[[str], KeySource]] = {
    "PRONTODB_KEY_FILE": KeyFile,
    "PRONTODB_KEY_COMMAND": KeyCommand,
    "PRONTODB_KEYRING": SystemKeyring,
    "PRONTODB_PASSPHRASE": Passphrase,
}


def encrypts_new_by(environment: Mapping[str, str]) -> bool:
    """True when PRONTODB_ENCRYPT says that every address that is made is to be encrypted."""
    text = environment.get("PRONTODB_ENCRYPT", "")
    if text not in ("", "0", "1"):
        raise InvalidInputError(f"PRONTODB_ENCRYPT is 1, 0 or empty, not {shown(text)}")
    return text == "1"


def source_from(environment: Mapping[str, str]) -> KeySource | None:
    """Return the source that the environment names, None when it names none; an empty variable is unset."""
    named = [name for name in VARIABLES if environment.get(name)]
    if len(named) > 1:
        raise InvalidInputError(f"{' and '.join(named)} are set: one of them is the source of the key")
    if not named:
        return None
    try:
        return VARIABLES[named[0]](environment[named[0]])
    except InvalidInputError as error:
        raise InvalidInputError(f"{error} (from {named[0]})") from None
