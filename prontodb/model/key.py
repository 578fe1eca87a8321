"""The grammar of keys and the order they stand in: bytewise, which for UTF-8 is by code point."""

from __future__ import annotations

from prontodb.errors import InvalidKeyError, InvalidValueError, LimitError, shown

MAX_KEY_BYTES = 1024
_LAST_CHARACTER = "\U0010ffff"


def check_key(key: object, max_bytes: int = MAX_KEY_BYTES) -> str:
    """Return `key` when it is one: UTF-8 of 1 to `max_bytes` bytes without control characters."""
    if not isinstance(key, str):
        raise InvalidKeyError(f"a key must be text, not {type(key).__name__}")
    # Most keys are short and ASCII; those need no encoding to be measured.
    if not key.isascii() or len(key) > max_bytes:
        try:
            size = len(key.encode())
        except UnicodeEncodeError:
            raise InvalidKeyError(f"key {shown(key)} is not valid UTF-8 (a lone surrogate)") from None
        if size > max_bytes:
            raise LimitError("max_key_bytes", max_bytes, size)
    if not key:
        raise InvalidKeyError("a key must not be empty")
    if not key.isprintable() and any(c < " " or "\x7f" <= c <= "\x9f" for c in key):
        raise InvalidKeyError(f"key {shown(key)} has a control character")
    return key


def check_prefix(prefix: object) -> str:
    """Return `prefix` when it can begin a key; the empty prefix begins every key."""
    if not isinstance(prefix, str):
        raise InvalidKeyError(f"a prefix must be text, not {type(prefix).__name__}")
    return check_key(prefix) if prefix else prefix


def check_value(value: object, max_bytes: int) -> str:
    """Return `value` when it is text that UTF-8 can hold in `max_bytes` bytes. Never shows the value."""
    if not isinstance(value, str):
        raise InvalidValueError(f"a value must be text, not {type(value).__name__}; strings in, strings out")
    if value.isascii():
        size = len(value)
    else:
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise InvalidValueError("the value is not valid UTF-8 (a lone surrogate)") from None
    if size > max_bytes:
        raise LimitError("max_value_bytes", max_bytes, size)
    return value


def prefix_end(prefix: str) -> str | None:
    """Return the first string after all that begin with `prefix`; None when nothing comes after them."""
    stem = prefix.rstrip(_LAST_CHARACTER)
    if not stem:
        return None
    code = ord(stem[-1]) + 1
    # UTF-8 cannot hold surrogates: the character after U+D7FF is U+E000.
    return stem[:-1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)


def after(key: str) -> str:
    """Return the smallest string after `key`; no key lies between, since keys hold no control characters."""
    return key + "\x00"


def namespace_of(key: str) -> str:
    """Return all of `key` before its last dot; the empty string when it has none."""
    return key.rpartition(".")[0]


def project_of(key: str) -> str:
    """Return the first part of a key that has at least three; the empty string (the default project) otherwise."""
    return key.partition(".")[0] if key.count(".") >= 2 else ""
