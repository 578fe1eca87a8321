"""The sections of the settings file: one that is misspelt must not be taken for one that is not there.

What a newer ProntoDB, or somebody else, adds is warned of and kept. What looks like a section of ours, or like access
rules in the wrong place, is refused: to skip it would open what it closes.
"""

from __future__ import annotations

from prontodb.errors import InvalidSettingsError, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

KNOWN = frozenset(("format", "settings", "access", "quotas", "jobs", "backups"))
MAX_WARNINGS = 5

_OF_ACCESS = frozenset(
    ("acl", "acls", "grant", "grants", "right", "rights", "rule", "rules", "permission", "permissions", "principals")
)
_ALIKE = 0.75
"""How alike two names are, by difflib's ratio, for one to be taken for a slip of the other."""


def check(fields: Mapping[str, object]) -> list[str]:
    """Return warnings of sections that are unknown; raise `InvalidSettingsError` for one that is meant for a known one.

    Without any that is unknown this costs next to nothing.
    """
    settings = fields.get("settings")
    if isinstance(settings, dict) and not settings.keys().isdisjoint(("access", *_OF_ACCESS)):
        name = next(name for name in settings if name == "access" or name in _OF_ACCESS)
        raise InvalidSettingsError(
            f"field 'settings.{name}' is unknown: access rules stand in the section 'access' beside 'settings', as "
            "'access': {'grants': [...]}; nothing is allowed while it is there"
        )
    if fields.keys() <= KNOWN:
        return []
    unknown = [name for name in fields if name not in KNOWN]
    for name in unknown:
        meant = _meant(name)
        if meant is not None:
            raise InvalidSettingsError(
                f"section {shown(name)} is unknown; {shown(meant)} is meant: correct it, for it would be skipped in "
                "silence, and whatever it closes would be open"
            )
    warnings = [f"section {shown(name)} is unknown; it is ignored" for name in unknown[:MAX_WARNINGS]]
    if len(unknown) > MAX_WARNINGS:
        warnings.append(f"{len(unknown) - MAX_WARNINGS:,} more sections are unknown and ignored")
    return warnings


def _meant(name: str) -> str | None:
    import difflib
    import unicodedata

    # Letters that only look alike, or that nobody sees, are slips too.
    folded = unicodedata.normalize("NFKC", name[:64]).casefold()
    plain = "".join(character for character in folded if character.isalpha())
    if plain in _OF_ACCESS or "access" in plain:
        return "access"
    near = difflib.get_close_matches(plain, sorted(KNOWN), n=1, cutoff=_ALIKE)
    return near[0] if near else None
