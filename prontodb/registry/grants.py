"""The access rules of a root: the section "access" of its settings file. A security field: never guessed or skipped.

{"format": 1, "access": {"grants": [{"principal": "a", "addresses": "a/*", "prefix": "", "rights": ["read"]}]}}
"""

from __future__ import annotations

from prontodb.denials import denied
from prontodb.errors import ConflictError, InvalidInputError, InvalidSettingsError, NotFoundError, shown
from prontodb.model.access import ADMIN, EVERYWHERE, Grant, Rules
from prontodb.model.layout import CONFIG_FILE, REGISTRY
from prontodb.registry import configuration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from prontodb.model.layout import Layout

SECTION = "access"
MAX_GRANTS = 1_000

_FIELDS = {"principal": str, "addresses": str, "prefix": str, "rights": list}
_NEEDED = ("principal", "addresses", "rights")


def rules(layout: Layout) -> Rules:
    """Return the rules in force; none, and so everything open, when the file says nothing of them.

    Raises `InvalidSettingsError` with the field that is wrong, and what `configuration.load` raises.
    """
    section = configuration.section(layout, SECTION)
    try:
        return parse(section)
    except InvalidSettingsError as error:
        raise InvalidSettingsError(f"{shown(layout.path(REGISTRY, CONFIG_FILE))}: {error}") from error


def parse(section: object) -> Rules:
    """Return what a section says; every field must be known and right."""
    if not isinstance(section, dict):
        raise InvalidSettingsError("field 'access' must be a JSON object")
    for name in section:
        if name != "grants":
            raise InvalidSettingsError(
                f"field 'access.{_plain(name)}' is unknown; nothing is allowed while it is there"
            )
    given = section.get("grants", [])
    if not isinstance(given, list):
        raise InvalidSettingsError("field 'access.grants' must be a list")
    if len(given) > MAX_GRANTS:
        raise InvalidSettingsError(f"field 'access.grants' has {len(given):,} grants; there may be {MAX_GRANTS:,}")
    return Rules(_grant(fields, f"access.grants[{number}]") for number, fields in enumerate(given))


def _plain(name: str) -> str:
    return shown(name)[1:-1]


def _grant(fields: object, place: str) -> Grant:
    if not isinstance(fields, dict):
        raise InvalidSettingsError(f"field '{place}' must be a JSON object")
    for name, value in fields.items():
        if name not in _FIELDS:
            raise InvalidSettingsError(f"field '{place}.{_plain(name)}' is unknown")
        if not isinstance(value, _FIELDS[name]):
            kind = "a list" if _FIELDS[name] is list else "text"
            raise InvalidSettingsError(f"field '{place}.{name}' must be {kind}")
    for name in _NEEDED:
        if name not in fields:
            raise InvalidSettingsError(f"field '{place}.{name}' is missing")
    try:
        return Grant(**fields)
    except InvalidInputError as error:
        raise InvalidSettingsError(f"field '{place}': {error}") from error


# Changing them


def add(layout: Layout, grant: Grant, *, principal: str | None, wait_s: float) -> bool:
    """Add a grant; False when it is there already. `principal` is who asks, who needs admin where the grant is for.

    The first grant must give somebody admin on all addresses: everybody else is locked out from then on.
    """

    def decide(present: Rules) -> Rules:
        if present.are_open and not (ADMIN in grant.rights and grant.addresses == EVERYWHERE):
            raise ConflictError(
                "the first grant must give somebody admin on all addresses, or nobody could do anything after it; "
                "begin with: prontodb access add NAME '*' read,write,admin"
            )
        _check_may_change(layout, present, principal, grant)
        return present if grant in present.grants else Rules((*present.grants, grant))

    return _change(layout, decide, wait_s)


def remove(layout: Layout, grant: Grant, *, principal: str | None, wait_s: float, last: bool = False) -> bool:
    """Remove a grant, given as it is listed; True once it is gone.

    Removing the last one opens everything to everybody and needs `last`. Raises `NotFoundError`, `ConflictError` when
    nobody would be left with admin on all addresses.
    """

    def decide(present: Rules) -> Rules:
        _check_may_change(layout, present, principal, grant)
        if grant not in present.grants:
            raise NotFoundError(f"there is no such grant ({grant}); 'prontodb access list' shows all, word for word")
        left = Rules(one for one in present.grants if one != grant)
        if left.are_open and not last:
            raise ConflictError("without its last grant the root is open to everybody; --yes says that this is meant")
        if not left.are_open and not left.has_administrator:
            raise ConflictError(
                "nobody would be left with admin on all addresses; add another such grant first, or remove the others"
            )
        return left

    return _change(layout, decide, wait_s)


def _check_may_change(layout: Layout, present: Rules, principal: str | None, grant: Grant) -> None:
    if not present.allow(principal, ADMIN, grant.addresses):
        raise denied(ADMIN, grant.addresses, principal=principal, root=layout.root)


def _change(layout: Layout, decide: Callable[[Rules], Rules], wait_s: float) -> bool:
    changed = False

    def change(fields: dict[str, Any]) -> None:
        nonlocal changed
        present = parse(fields.get(SECTION, {}))
        wanted = decide(present)
        changed = wanted != present
        if len(wanted.grants) > MAX_GRANTS:
            raise InvalidSettingsError(f"there may be {MAX_GRANTS:,} grants; remove some, or use patterns")
        fields[SECTION] = {"grants": [grant.as_dict() for grant in wanted.grants]}

    configuration.rewrite(layout, change, purpose="change the access rules", wait_s=wait_s)
    return changed
