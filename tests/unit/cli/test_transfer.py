"""export and import."""

from pathlib import Path

import pytest

from tests.unit.cli.harness import Cli, one_line


@pytest.fixture
def filled(cli: Cli) -> Cli:
    cli.ok("set", "app.a", stdin="line\nanother\x00é\u2028".encode())
    cli.ok("set", "app.b", "two", "--ttl", "1h")
    cli.ok("set", "other", "")
    return cli


def test_what_is_exported_can_be_imported_elsewhere(filled: Cli) -> None:
    exported = filled.ok("export").out
    said = filled.ok("import", "--user", "b", stdin=exported).err
    assert one_line(said) == "imported 3, kept 0 at b/_default"
    for key in ("app.a", "other"):
        assert filled.ok("get", key, "--user", "b").out == filled.ok("get", key).out
    assert 3500 < int(filled.ok("ttl", "app.b", "--user", "b").text) <= 3600


def test_a_prefix_narrows_an_export(filled: Cli) -> None:
    for argv in (("app.",), ("--prefix", "app.")):
        lines = filled.ok("export", *argv).json
        assert [line["key"] for line in lines if "key" in line] == ["app.a", "app.b"]
    filled.fails("export", "a", "--prefix", "b")


def test_an_import_from_a_file(filled: Cli, tmp_path: Path) -> None:
    file = tmp_path / "export.jsonl"
    file.write_bytes(filled.ok("export").out)
    filled.ok("import", str(file), "--user", "b")
    assert filled.ok("keys", "--user", "b").lines == ["app.a", "app.b", "other"]


def test_an_import_writes_over_nothing_unless_told(filled: Cli) -> None:
    exported = filled.ok("export").out
    filled.ok("set", "other", "changed")
    filled.ok("del", "app.a")
    filled.fails("import", stdin=exported)
    assert filled.ok("keys").lines == ["app.b", "other"]
    [kept] = filled.ok("import", "--on-conflict", "keep", "--json", stdin=exported).json
    assert (kept["imported"], kept["kept"]) == (1, 2)
    assert filled.ok("get", "other").text == "changed"
    filled.ok("import", "--on-conflict", "replace", stdin=exported)
    assert filled.ok("get", "other").text == ""


@pytest.mark.parametrize(
    "data",
    [b"{", b"[]", b"not json\n", b'{"key": 1, "value": "v"}\n', b'{"key": "k"}\n', b"\xff\n", b"[" * 100_000],
)
def test_an_import_of_anything_else_is_refused_whole(cli: Cli, data: bytes) -> None:
    cli.fails("import", stdin=b'{"key": "good", "value": "v"}\n' + data)
    assert cli.ok("keys").lines == []


def test_a_file_that_cannot_be_read_is_named(cli: Cli, tmp_path: Path) -> None:
    assert "cannot read '/nope': No such file" in cli.fails("import", "/nope")
    assert "cannot read" in cli.fails("import", str(tmp_path))
    cli.fails("import", "--on-conflict", "burn", stdin=b'{"key": "k", "value": "v"}')


def test_the_export_of_nothing_is_an_export(cli: Cli) -> None:
    outcome = cli.ok("export")
    assert one_line(outcome.err) == "no address _default/_default; the export is empty"
    cli.ok("import", stdin=outcome.out)
