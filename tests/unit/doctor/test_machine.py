"""The machine as the doctor judges it: library, file system, space, descriptors."""

import pytest

from prontodb.doctor import machine


@pytest.mark.parametrize(
    ("version", "warned"),
    [("3.6.23", False), ("3.7.0", True), ("3.40.1", True), ("3.51.2", True), ("3.51.3", False), ("3.53.4", False)],
)
def test_an_sqlite_library_that_loses_commits_is_named(version: str, warned: bool) -> None:
    assert [problem.finding.level for problem in machine.judge_library(version)] == ["warning"] * warned


@pytest.mark.parametrize(
    ("kind", "allowed", "levels"),
    [
        ("ext4", False, []),
        ("overlay", False, []),
        (None, False, []),
        ("nfs4", False, ["error"]),
        ("cifs", True, ["warning"]),
        ("fuse.sshfs", False, ["error"]),
        ("fuse.mystery", False, ["warning"]),
    ],
)
def test_a_file_system_is_judged_by_its_type(kind: str | None, allowed: bool, levels: list[str]) -> None:
    problems = list(machine.judge_file_system(kind, allowed=allowed))
    assert [problem.finding.level for problem in problems] == levels


@pytest.mark.parametrize(("free", "levels"), [(0, ["error"]), (2**21, ["warning"]), (2**40, [])])
def test_a_disk_that_is_nearly_full_is_named(free: int, levels: list[str]) -> None:
    assert [problem.finding.level for problem in machine.judge_space(free)] == levels


@pytest.mark.parametrize(("limit", "levels"), [(None, []), (256, ["warning"]), (1_048_576, [])])
def test_a_low_descriptor_limit_is_named(limit: int | None, levels: list[str]) -> None:
    assert [problem.finding.level for problem in machine.judge_descriptors(limit)] == levels
