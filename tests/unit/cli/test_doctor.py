"""doctor: what it looks at is tested beside it; here, how it is told."""

import shutil

from tests.unit.cli.harness import Cli, tree


def test_a_sound_root_is_exit_0(cli: Cli) -> None:
    cli.ok("set", "k", "v")
    lines = cli.ok("doctor", "--deep").lines
    assert "addresses: 1" in lines
    [report] = cli.ok("doctor", "--json").json
    assert (report["level"], report["findings"]) == ("ok", [])


def test_damage_is_exit_1_and_named_on_stdout(cli: Cli) -> None:
    cli.ok("set", "k", "v")
    (cli.root / "addresses" / "_default" / "_default" / "keystore.db").write_bytes(b"garbage" * 1000)
    outcome = cli("doctor")
    assert outcome.code == 1
    assert any(line.startswith("error: ") and "_default/_default" in line for line in outcome.lines)
    [report] = cli("doctor", "--json").json
    assert report["level"] == "error"


def test_a_wrong_settings_file_is_a_finding_and_no_reason_not_to_look(cli: Cli) -> None:
    cli.ok("set", "k", "v")
    path = cli.root / "registry" / "global_config.json"
    path.write_text("{")
    path.chmod(0o600)
    outcome = cli("doctor")
    assert outcome.code == 1
    assert any(line.startswith("error: ") and "global_config.json" in line for line in outcome.lines)
    assert "addresses: 1" in outcome.lines


def test_a_lost_registry_is_rebuilt_on_request(cli: Cli) -> None:
    for user in "abc":
        cli.ok("set", "k", "v", "--user", user)
    shutil.rmtree(cli.root / "registry")
    cli.ok("doctor", "--repair")
    assert cli.ok("address", "list").lines == ["a/_default", "b/_default", "c/_default"]
    assert cli.ok("get", "k", "--user", "b").text == "v"


def test_a_root_that_does_not_exist_is_not_made(cli: Cli) -> None:
    cli("doctor", "--repair", "--root", str(cli.root / "none"))
    assert tree(cli.root) == {}
