"""Whose a file is and who may use it: what is not ours alone is refused with the command that mends it, or closed."""

from __future__ import annotations

import os
import stat

from prontodb.errors import UnsafePathError, shown

FOLDER_MODE = 0o700
FILE_MODE = 0o600
OTHERS_WRITE = 0o022
OTHERS_ANY = 0o077

CLOSED_TO_OTHERS: list[str] = []
"""Paths that others could read and that were closed by us, for the edge to report; drained by whoever reports."""

_NAMED = getattr(os, "O_PATH", None)
"""Linux: a descriptor that names a file without opening it: closing it drops none of SQLite's locks (D2)."""


def command(program: str, path: str) -> str:
    """Return a command for the operator to paste into a shell."""
    return f"{program} {_quoted(path)}"


def given_over(path: str) -> str:
    """Return the command by which root gives a folder with all that is in it, or a file, to us."""
    return command(f"chown -R {os.geteuid()}", path)


def way_in(path: str) -> str:
    """Return what to do where the system gives us no permission for a path, as far as can be told by looking."""
    seen, found, is_missing = path, None, False
    while found is None:
        try:
            found = os.lstat(seen)
        except OSError as error:
            is_missing = isinstance(error, FileNotFoundError)
            if os.path.dirname(seen) in ("", seen):
                return "see 'ls -ld' on it and the folders above it"
            seen = os.path.dirname(seen)
    us, above = os.geteuid(), os.path.dirname(seen)
    if seen == path and found.st_uid == us and _has_all(found) and above:
        # We may do all with the thing itself: it is the folder in which it would change.
        seen, found = above, os.lstat(above)
    if found.st_uid == us:
        if _has_all(found):
            return f"see 'ls -ld {_quoted(seen)}' and 'lsattr -d {_quoted(seen)}'"
        mode = FOLDER_MODE if stat.S_ISDIR(found.st_mode) else FILE_MODE
        return f"give yourself the rights with: {command(f'chmod {mode:o}', seen)}"
    if is_missing:
        return (
            f"it does not exist, and uid {us} may not make it in {shown(seen)}; name another folder as the root, with "
            "--root or PRONTODB_HOME"
        )
    if seen == path:
        return f"run as its owner (uid {found.st_uid}), or have root give it over: {given_over(path)}"
    # What lies above need not be ours at all: nobody is told to take it over.
    return (
        f"run as the owner of {shown(seen)} (uid {found.st_uid}), or name another folder as the root, with --root or "
        "PRONTODB_HOME"
    )


def _has_all(found: os.stat_result) -> bool:
    wanted = FOLDER_MODE if stat.S_ISDIR(found.st_mode) else FILE_MODE
    return found.st_mode & wanted == wanted


def moved_away(path: str) -> str:
    """Return the command that moves what is in the way aside, and touches neither what it leads to nor its contents."""
    return f"mv {_quoted(path)} {_quoted(path + '.aside')}"


def unlinked(path: str) -> str:
    """Return the command that takes a file's contents out of reach of its other names."""
    return f"cp -p {_quoted(path)} {_quoted(path + '.aside')} && mv {_quoted(path + '.aside')} {_quoted(path)}"


def _quoted(path: str) -> str:
    import shlex  # only what is refused needs it

    if path.isprintable():
        return shlex.quote(path)
    # A message is one line: control characters go in the escaped form that shells read, too.
    escaped = (c if c.isprintable() and c not in "\\'" else "".join(f"\\{b:03o}" for b in os.fsencode(c)) for c in path)
    return f"$'{''.join(escaped)}'"


def check_ours(found: os.stat_result, path: str, fd: int, name: str | None = None) -> None:
    """Refuse what is not ours or open to others' writing; close what others can merely read.

    `fd` is the open folder itself, or with `name` the one in which the file of that name lies.
    """
    if found.st_uid != os.geteuid():
        raise UnsafePathError(
            f"{shown(path)} belongs to uid {found.st_uid}, not to us (uid {os.geteuid()}); "
            f"have root give it over: {given_over(path)}"
        )
    if found.st_mode & OTHERS_WRITE:
        raise UnsafePathError(
            f"{shown(path)} can be written by others; close it with: {command('chmod -R go-rwx', path)}"
        )
    if found.st_mode & OTHERS_ANY:
        # Only others' rights go; SQLite and we need nothing that this takes away.
        mode = stat.S_IMODE(found.st_mode) & ~OTHERS_ANY & 0o700
        try:
            if name is None:
                os.chmod(fd, mode)
            elif not set_mode(name, found, mode, dir_fd=fd):
                raise UnsafePathError(f"{shown(path)} was replaced while it was looked at; it was not opened")
        except OSError:
            # A read-only file system keeps its modes; reading there is still right.
            return
        CLOSED_TO_OTHERS.append(path)


def set_mode(name: str, found: os.stat_result, mode: int, *, dir_fd: int | None = None) -> bool:
    """Give the very file that was looked at a mode, whatever took its name since; False when something else has it.

    `os.chmod` of a path follows a link, and the path may lead elsewhere by the time it is called.
    """
    if _NAMED is None:
        os.chmod(name, mode, dir_fd=dir_fd, follow_symlinks=False)
        return True
    fd = os.open(name, _NAMED | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        now = os.fstat(fd)
        # The number alone may have been given to something else since.
        if (now.st_dev, now.st_ino, stat.S_IFMT(now.st_mode)) != (
            found.st_dev,
            found.st_ino,
            stat.S_IFMT(found.st_mode),
        ):
            return False
        os.chmod(f"/proc/self/fd/{fd}", mode)  # chmod through the descriptor itself is refused for one that only names
    finally:
        os.close(fd)
    return True


def make_folder(name: str, *, dir_fd: int | None = None) -> None:
    """Make a folder that is private from its first moment, under any umask; FileExistsError when it is there."""
    os.mkdir(name, FOLDER_MODE, dir_fd=dir_fd)
    made = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    # A umask such as 0777 takes rights from us too; it can never give any to others.
    if stat.S_ISDIR(made.st_mode) and made.st_uid == os.geteuid() and stat.S_IMODE(made.st_mode) != FOLDER_MODE:
        set_mode(name, made, FOLDER_MODE, dir_fd=dir_fd)
