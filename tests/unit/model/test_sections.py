"""Sections of the settings file: a slip of one of ours is refused, what is somebody else's is named and kept."""

from __future__ import annotations

import pytest

from prontodb.errors import InvalidSettingsError
from prontodb.model import sections
from prontodb.model.sections import KNOWN, MAX_WARNINGS

SLIPS = {
    "acess": "access", "Access": "access", "ACCESS": "access", "access ": "access", "access2": "access",
    "_access": "access", "access_rules": "access", "a\u0441cess": "access", "acc\u200bess": "access",
    "\uff41ccess": "access", "acl": "access", "grants": "access", "Rules": "access", "permissions": "access",
    "quota": "quotas", "qoutas": "quotas", "job": "jobs", "setings": "settings", "backup": "backups",
    "fromat": "format",
}  # fmt: skip


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_of_a_section_is_refused_and_says_which_is_meant(name: str) -> None:
    with pytest.raises(InvalidSettingsError, match=f"is unknown; '{SLIPS[name]}' is meant") as caught:
        sections.check({"format": 1, name: {}})
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["schedules", "x-ours", "", "process", "\ud800", "z" * 100_000])
def test_what_is_like_none_of_ours_is_warned_of(name: str) -> None:
    [warning] = sections.check({"format": 1, name: {}})
    assert warning.endswith("is unknown; it is ignored")
    assert warning.isprintable()
    assert len(warning) < 300


def test_many_unknown_sections_are_counted() -> None:
    warnings = sections.check({f"x-{number}": 1 for number in range(1_000 + MAX_WARNINGS)})
    assert len(warnings) == MAX_WARNINGS + 1
    assert warnings[-1] == "1,000 more sections are unknown and ignored"


def test_our_own_sections_are_no_slips() -> None:
    assert sections.check({name: {} for name in KNOWN}) == []


@pytest.mark.parametrize("name", ["access", "grants", "rules"])
def test_access_rules_among_the_settings_are_refused(name: str) -> None:
    with pytest.raises(InvalidSettingsError, match="beside 'settings'"):
        sections.check({"format": 1, "settings": {"wait_s": 1, name: {"grants": []}}})
