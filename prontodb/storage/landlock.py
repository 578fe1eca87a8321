"""The door to Landlock: what a process and all it starts may do with files, enforced by the kernel, without privilege.

Written from the kernel's own documentation (docs.kernel.org/userspace-api/landlock.html) over its three system calls. A
ruleset refuses every right that it handles but for what its rules allow below a folder, or at a file; nobody can take a
restriction back. `ops/decisions/0013-sandbox.md` says why no binding is used, and why ABI 3 is the least.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys

from prontodb.errors import UnavailableError
from prontodb.storage.files import translated

# The same on every machine that got them with Linux 5.13, but for the few whose numbers have an offset of their own.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_OTHER_NUMBERS = ("alpha", "mips")
_VERSION = 1  # landlock_create_ruleset: return the ABI
_PATH_BENEATH = 1
_SET_NO_NEW_PRIVILEGES = 38  # prctl
_DROP_FROM_BOUNDING_SET = 24  # prctl
_CAPABILITY_VERSION = 0x20080522  # capset: three words of 32 bits, twice

LEAST_ABI = 3
"""The first that refuses truncating (Linux 6.2); with less, other addresses could be emptied."""
SIGNALS_ABI = 6
"""The first that refuses signals and abstract sockets across the border (Linux 6.12)."""

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE = 1 << 4, 1 << 5
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_SINCE = ((1, (1 << 13) - 1), (2, REFER), (3, TRUNCATE), (5, IOCTL_DEV))
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
_SCOPED = 0b11  # abstract sockets, signals

READ = EXECUTE | READ_FILE | READ_DIR
WRITE = ((1 << 16) - 1) & ~(MAKE_CHAR | MAKE_BLOCK)
"""Everything but making devices: one made for the disk itself would lead around every rule."""

DANGEROUS = (16, 17, 19, 21, 22, 27, 32, 33, 38, 39, 40)
"""Capabilities by which root reaches memory, modules, devices or the kernel itself, past any rule about files:
SYS_MODULE, SYS_RAWIO, SYS_PTRACE, SYS_ADMIN, SYS_BOOT, MKNOD, MAC_OVERRIDE, MAC_ADMIN, PERFMON, BPF,
CHECKPOINT_RESTORE."""


class _Capabilities(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """Return the kernel's Landlock ABI; `UnavailableError` says why there is none."""
    machine = os.uname().machine
    if not sys.platform.startswith("linux"):
        raise UnavailableError(f"this system has no Landlock, only Linux has: {sys.platform}")
    if machine.startswith(_OTHER_NUMBERS):
        raise UnavailableError(f"Landlock's system calls have other numbers on {machine}, where this was never tried")
    try:
        return _call(_CREATE_RULESET, None, 0, _VERSION)
    except OSError as error:
        reason = {
            errno.ENOSYS: "this kernel has no Landlock (Linux 5.13 and later can)",
            errno.EOPNOTSUPP: "Landlock is switched off; add landlock to the lsm= boot parameter",
            errno.EPERM: "Landlock is forbidden here, by a container's seccomp filter for example",
        }.get(error.errno or 0, f"Landlock cannot be asked: {os.strerror(error.errno or 0)}")
        raise UnavailableError(reason) from error


def described() -> str:
    """Return what is possible here, on one line: for people."""
    try:
        return f"possible (Landlock ABI {check()})"
    except UnavailableError as error:
        return str(error)


def check() -> int:
    """Return the ABI if a sandbox can be all that it promises with it, else raise `UnavailableError`."""
    try:
        found = abi()
    except UnavailableError as error:
        raise UnavailableError(f"no sandbox is possible here: {error}; {_WAY_OUT}") from error
    if found < LEAST_ABI:
        raise UnavailableError(
            f"no sandbox is possible here: this kernel has Landlock ABI {found}, and before ABI {LEAST_ABI} "
            f"(Linux 6.2) it cannot refuse truncating the files of other addresses; {_WAY_OUT}"
        )
    return found


_WAY_OUT = "use a newer kernel, or run the command as another user"


def _call(number: int, *arguments: object) -> int:
    found: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return found


class Ruleset:
    """Rules in the making; `restrict` puts them in force for this process, for good."""

    __slots__ = ("_handled", "fd", "rules")

    def __init__(self, abi: int) -> None:
        self._handled = sum(rights for since, rights in _SINCE if since <= abi)
        self.rules = 0
        # struct landlock_ruleset_attr: files, net (from ABI 4), scopes (from ABI 6). Net is nobody's business here.
        attributes = struct.pack("=Q", self._handled)
        if abi >= SIGNALS_ABI:
            attributes = struct.pack("=QQQ", self._handled, 0, _SCOPED)
        try:
            self.fd = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
        except OSError as error:
            raise UnavailableError(f"the kernel takes no Landlock ruleset: {os.strerror(error.errno or 0)}") from error

    def __enter__(self) -> Ruleset:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def allow(self, path: str, rights: int) -> bool:
        """Allow these rights below `path`, itself no link; False when there is nothing (any more) to allow."""
        try:
            place = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            kind = os.fstat(place).st_mode
            if stat.S_ISLNK(kind):
                return False  # what it leads to has its own rule, or none
            rights &= self._handled if stat.S_ISDIR(kind) else self._handled & _OF_FILES
            # struct landlock_path_beneath_attr, packed: rights, descriptor.
            _call(_ADD_RULE, self.fd, _PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
        except OSError as error:
            if error.errno == errno.EBADFD:
                return False  # it belongs to the kernel alone, and no rule is about it
            raise translated(error, path) from error
        finally:
            os.close(place)
        self.rules += 1
        return True

    def restrict(self) -> None:
        """Put the rules in force for this process and all that it starts. Raises OSError; nothing else is safe here.

        For the child of a fork, before it becomes another program. Takes away what leads root around the rules, and the
        right to gain any by starting a program (sudo).
        """
        _drop_dangerous()
        _prctl(_SET_NO_NEW_PRIVILEGES, 1)
        _call(_RESTRICT_SELF, self.fd, 0)


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, *(ctypes.c_ulong(number) for number in (argument, 0, 0, 0))) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _drop_dangerous() -> None:
    """Give up the dangerous capabilities, and the way in which root's next program would get them again."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    held = (_Capabilities * 2)()
    if _libc.capget(header, held) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    if not any(_has(held, capability) for capability in range(41)):
        return
    for capability in DANGEROUS:
        try:
            _prctl(_DROP_FROM_BOUNDING_SET, capability)
        except OSError as error:
            # EINVAL: the kernel does not know it. EPERM: not ours to drop; what is dropped below comes by no program,
            # since none brings new rights from here on.
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise
        word, bit = divmod(capability, 32)
        for field in ("effective", "permitted", "inheritable"):
            setattr(held[word], field, getattr(held[word], field) & ~(1 << bit))
    if _libc.capset(header, held) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _has(held: ctypes.Array[_Capabilities], capability: int) -> bool:
    word, bit = divmod(capability, 32)
    return bool(held[word].permitted >> bit & 1)
