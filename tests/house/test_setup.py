"""The environment of the benchmarks is made although a peer does not install."""

from pathlib import Path

import pytest

from ops import setup


def test_a_peer_that_does_not_install_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[tuple[str, ...]] = []

    def run(*command: str, lock: int) -> tuple[bool, str]:
        commands.append(command)
        return "second>=2" not in command, "a long story\nno wheel for this machine\n"

    monkeypatch.setattr(setup, "run", run)
    monkeypatch.setattr(setup, "VENVS", {setup.BENCH: tmp_path / "venv"})
    setup.build(setup.BENCH, ["first", "second>=2", "third"], lock=0)
    assert [command[-1] for command in commands[-3:]] == ["first", "second>=2", "third"]
    assert "second>=2 did not install and is missing: no wheel for this machine" in capsys.readouterr().err


def test_nothing_of_ours_may_fail_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*command: str, lock: int) -> tuple[bool, str]:
        return "--editable" not in command, "no such thing"

    monkeypatch.setattr(setup, "run", run)
    monkeypatch.setattr(setup, "VENVS", {setup.BENCH: tmp_path / "venv"})
    with pytest.raises(SystemExit, match="no such thing"):
        setup.build(setup.BENCH, [], lock=0)
