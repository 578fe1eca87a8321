"""JSON read strictly: the one function through which all JSON from outside comes (D34).

Whoever calls it has capped the size first, and checks the type of every field afterwards.
"""

from __future__ import annotations

import json

from prontodb.errors import shown


def loads(data: bytes | str) -> object:
    """Return the JSON value in UTF-8 `data`; `ValueError` for anything but strict JSON.

    Duplicate fields, NaN, infinities and nesting without end are refused. The message holds field names at
    most.
    """
    try:
        return _decode(data if isinstance(data, str) else data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except _RefusedError:
        raise
    except ValueError:
        # Python's own limit of 4,300 digits; its text speaks of an interpreter setting.
        raise ValueError("a number in it is too long") from None


class _RefusedError(ValueError):
    """Well-formed, and still not accepted."""


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name, value in pairs:
        if name in fields:
            raise _RefusedError(f"field {shown(name)} stands twice")
        fields[name] = value
    return fields


def _no_constants(text: str) -> object:
    raise _RefusedError(f"{text} is not a JSON number")


_decode = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constants).decode
