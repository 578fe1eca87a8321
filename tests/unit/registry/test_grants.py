"""The access rules in the settings file: read whole or refused, and changed by those who may."""

import json
from pathlib import Path

import pytest

from prontodb.errors import (
    ConflictError,
    CorruptError,
    DeniedError,
    InvalidSettingsError,
    NewerFormatError,
    NotFoundError,
    ProntoError,
)
from prontodb.model.access import ADMIN, READ, WRITE, Grant, Rules
from prontodb.model.layout import Layout
from prontodb.model.settings import Settings
from prontodb.registry import configuration, grants
from tests.roots import together
from tests.unit.cli.harness import Cli

OPERATOR = Grant("operator", "*", "", "read,write,admin")
AGENT = Grant("agent1", "agent1/*", "app.", "read,write")


@pytest.fixture
def layout(root: Path) -> Layout:
    return Layout(str(root))


def written(layout: Layout, text: str | dict[str, object]) -> None:
    folder = Path(layout.root) / "registry"
    folder.mkdir(mode=0o700, exist_ok=True, parents=True)
    file = folder / "global_config.json"
    file.write_text(text if isinstance(text, str) else json.dumps(text))
    file.chmod(0o600)


def add(layout: Layout, grant: Grant, principal: str | None = None) -> bool:
    return grants.add(layout, grant, principal=principal, wait_s=5)


def remove(layout: Layout, grant: Grant, principal: str | None = None, *, last: bool = False) -> bool:
    return grants.remove(layout, grant, principal=principal, wait_s=5, last=last)


def test_a_root_without_a_settings_file_has_no_rules(layout: Layout) -> None:
    assert grants.rules(layout) == Rules()
    assert not Path(layout.root, "registry").exists()


def test_grants_are_kept_beside_everything_else(layout: Layout) -> None:
    written(layout, {"format": 1, "settings": {"wait_s": 2.0}, "jobs": {"sweep": {"every": "5m"}}, "strange": 1})
    assert add(layout, OPERATOR)
    assert add(layout, AGENT, "operator")
    assert not add(layout, AGENT, "operator")
    assert grants.rules(layout) == Rules([OPERATOR, AGENT])
    fields = json.loads(Path(layout.path("registry", "global_config.json")).read_text())
    assert (fields["settings"], fields["jobs"], fields["strange"]) == ({"wait_s": 2.0}, {"sweep": {"every": "5m"}}, 1)
    configuration.save(layout, Settings(wait_s=3.0))
    assert grants.rules(layout) == Rules([OPERATOR, AGENT])


@pytest.mark.parametrize(
    "grant", [AGENT, Grant("operator", "*", "", "read,write"), Grant("operator", "operator/*", "", "admin")]
)
def test_the_first_grant_locks_nobody_out(layout: Layout, grant: Grant) -> None:
    with pytest.raises(ConflictError, match=r"prontodb access add NAME '\*' read,write,admin"):
        add(layout, grant)
    assert grants.rules(layout).are_open


def test_only_an_administrator_of_the_pattern_changes_what_is_for_it(layout: Layout) -> None:
    add(layout, OPERATOR)
    add(layout, Grant("lead", "team-*/*", "", "admin"), "operator")
    assert add(layout, Grant("team-1", "team-1/*", "", "read"), "lead")
    for principal in ("lead", "team-1", None):
        with pytest.raises(DeniedError) as caught:
            add(layout, Grant("x", "*/prod", "", "read"), principal)
        assert (caught.value.right, caught.value.address) == (ADMIN, "*/prod")
        with pytest.raises(DeniedError):
            remove(layout, OPERATOR, principal)
    assert remove(layout, Grant("team-1", "team-1/*", "", "read"), "lead")


def test_a_grant_that_is_not_there_cannot_be_removed(layout: Layout) -> None:
    add(layout, OPERATOR)
    with pytest.raises(NotFoundError, match="access list"):
        remove(layout, AGENT, "operator")


def test_the_last_administrator_stays_while_others_have_rights(layout: Layout) -> None:
    add(layout, OPERATOR)
    add(layout, AGENT, "operator")
    with pytest.raises(ConflictError, match="nobody would be left"):
        remove(layout, OPERATOR, "operator")
    remove(layout, AGENT, "operator")
    with pytest.raises(ConflictError, match="open to everybody"):
        remove(layout, OPERATOR, "operator")
    assert remove(layout, OPERATOR, "operator", last=True)
    assert grants.rules(layout).are_open


GRANT = {"principal": "a", "addresses": "a/*", "prefix": "", "rights": ["read"]}

WRONG: dict[str, tuple[object, str]] = {
    "no object": ([], "'access'"),
    "null": (None, "'access'"),
    "an unknown field": ({"grants": [], "mode": "strict"}, "access.mode"),
    "grants that are no list": ({"grants": {}}, "access.grants"),
    "a grant that is no object": ({"grants": ["a"]}, r"access\.grants\[0\]"),
    "an unknown field of a grant": ({"grants": [GRANT, GRANT | {"deny": True}]}, r"access\.grants\[1\]\.deny"),
    "no principal": ({"grants": [{"addresses": "*", "rights": ["read"]}]}, r"access\.grants\[0\]\.principal"),
    "no rights": ({"grants": [{"principal": "a", "addresses": "*"}]}, r"access\.grants\[0\]\.rights"),
    "an unknown right": ({"grants": [GRANT | {"rights": ["read", "own"]}]}, r"access\.grants\[0\].*'own'"),
    "rights as text": ({"grants": [GRANT | {"rights": "read"}]}, r"access\.grants\[0\]\.rights"),
    "empty rights": ({"grants": [GRANT | {"rights": []}]}, r"access\.grants\[0\]"),
    "a right that is no text": ({"grants": [GRANT | {"rights": [["read"]]}]}, r"access\.grants\[0\]"),
    "a pattern that is none": ({"grants": [GRANT | {"addresses": "a/**"}]}, r"access\.grants\[0\]"),
    "a principal that is no name": ({"grants": [GRANT | {"principal": "../a"}]}, r"access\.grants\[0\]"),
    "a prefix that is no text": ({"grants": [GRANT | {"prefix": 5}]}, r"access\.grants\[0\]\.prefix"),
    "a control character": ({"grants": [GRANT | {"prefix": "a\x1b[2J"}]}, r"access\.grants\[0\]"),
    "admin under a prefix": ({"grants": [GRANT | {"prefix": "a.", "rights": ["admin"]}]}, r"access\.grants\[0\]"),
    "too many": ({"grants": [GRANT] * 1_001}, "1,001"),
}


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_section_denies_and_names_the_field(layout: Layout, how: str) -> None:
    section, named = WRONG[how]
    written(layout, {"format": 1, "settings": {}, "access": section})
    with pytest.raises(InvalidSettingsError, match=named) as caught:
        grants.rules(layout)
    assert str(caught.value).isprintable()
    with pytest.raises(InvalidSettingsError, match=named):
        add(layout, OPERATOR)
    cli = Cli(Path(layout.root))
    for command in (
        ("get", "k"),
        ("set", "k", "v"),
        ("address", "list"),
        ("access", "list"),
        ("settings", "check"),
        ("doctor",),
        ("doctor", "--repair"),
        ("backup", "create"),
        ("run", "true"),
    ):
        assert "access" in cli.fails(*command)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", CorruptError),
        ('{"format": 1, "access": {"grants": [', CorruptError),
        ("[]", CorruptError),
        ('{"format": 1, "access": {"grants": []}, "access": {}}', CorruptError),
        ('{"format": 1, "access": NaN}', CorruptError),
        ('{"format": 2, "access": {}}', NewerFormatError),
        ('{"access": {}}', CorruptError),
        ("[" * 100_000, CorruptError),
        ('{"format": 1, "access": "' + "x" * 2**20 + '"}', CorruptError),
    ],
    ids=["empty", "torn", "no object", "twice", "NaN", "newer", "without a format", "deep", "huge"],
)
def test_a_file_that_cannot_be_read_assumes_nothing(layout: Layout, text: str, kind: type[ProntoError]) -> None:
    written(layout, text)
    with pytest.raises(kind):
        grants.rules(layout)
    for command in (("get", "k"), ("set", "k", "v"), ("address", "list"), ("access", "list")):
        Cli(Path(layout.root)).fails(*command)


ADD = """
import sys
from prontodb.model.access import Grant
from prontodb.model.layout import Layout
from prontodb.registry import grants
print("ready", flush=True); input()
for n in range(5):
    grants.add(Layout(sys.argv[1]), Grant(f"{sys.argv[2]}-{n}", "*", "", "read"), principal="operator", wait_s=30)
"""


def test_grants_added_at_the_same_time_are_all_kept(layout: Layout) -> None:
    add(layout, OPERATOR)
    together(ADD, [(layout.root, name) for name in ("a", "b", "c")])
    names = {grant.principal for grant in grants.rules(layout).grants}
    assert names == {"operator", *(f"{name}-{n}" for name in "abc" for n in range(5))}


def test_a_prefix_can_be_left_out_of_the_file(layout: Layout) -> None:
    fields = {name: value for name, value in GRANT.items() if name != "prefix"}
    written(layout, {"format": 1, "access": {"grants": [fields]}})
    assert grants.rules(layout) == Rules([Grant("a", "a/*", "", [READ])])
    assert not grants.rules(layout).allow("a", WRITE, "a/b")
