"""A sandboxed run as its user sees it: the library works inside, what cannot be kept is refused, nothing stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prontodb.errors import UnavailableError
from prontodb.storage import landlock
from tests.integration.test_run import AT, PRONTODB, ran, run, variables
from tests.managing import PATIENCE_S, waited_for
from tests.parts import fill, value

try:
    landlock.check()
    _REASON = ""
except UnavailableError as reason:
    _REASON = str(reason)
possible = pytest.mark.skipif(bool(_REASON), reason=_REASON or "a sandbox is possible")

AGENT = """
import asyncio, sys, prontodb
from prontodb.errors import SandboxedError
async def main():
    async with prontodb.open() as manager:
        async with manager.session("agent1", "prod") as ks:
            await ks.set("k", "agent")
            async with ks.transaction() as tx:
                tx.set("t", await tx.get("k"))
            await ks.set("gone", "v", ttl=0.01)
            print(await ks.get("t"), await ks.increment("n"))
        for mode in ("exclusive", "shared", "read"):
            try:
                async with manager.session("other", "prod", mode=mode, wait=0) as other:
                    await other.get("k")
            except SandboxedError as error:
                asked = [error.right, error.key, error.address, error.principal, error.by_token]
                print(mode, "agent1/prod" in str(error), error.reason == str(error), asked)
asyncio.run(main())
"""


@possible
@pytest.mark.parametrize("option", ["--sandbox", "--strict"])
def test_the_library_works_inside_without_knowing(root: Path, option: str) -> None:
    fill(root, "other/prod", {"k": "theirs"})
    counting = "$P set k v; for i in 1 2 3; do $P incr n & done; wait"
    script = f'{counting}; {sys.executable} -c "$AGENT"; $P watch -q --timeout 0.1; $P get n'
    done = run(root, f"exec 2>&1; {script}", option, AGENT=AGENT)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert sorted(lines[:3]) == ["1", "2", "3"]
    refused = [f"{mode} True True ['', None, None, None, False]" for mode in ("exclusive", "shared", "read")]
    assert lines[3:7] == ["agent 4", *refused], done.stdout
    assert lines[7] == "4", done.stdout
    assert value(root, "agent1/prod", "t") == "agent"
    assert value(root, "other/prod", "k") == "theirs"
    assert ran(root, "doctor").returncode == 0


OUTSIDE = (
    "get k --user other", "set k v --user other", "get k --user ghost", "set k v --user ghost", "address list",
    "address create new", "address delete other/prod --yes", "address delete agent1/prod --yes",
    "address rekey agent1/prod", "session list", "backup", "jobs list", "jobs once sweep", "jobs run", "audit anchors",
    "restore --yes", "doctor", "run --user other -- true",
)  # fmt: skip


@possible
def test_everything_else_in_the_root_is_one_line_that_says_so(root: Path) -> None:
    fill(root, "other/prod", {"k": "theirs"})
    done = run(root, "; ".join(f"$P {words}; echo $?" for words in OUTSIDE), "--sandbox")
    assert done.stdout.split() == ["1"] * len(OUTSIDE)
    for words, line in zip(OUTSIDE, done.stderr.splitlines(), strict=True):
        assert "is closed here: this process is sandboxed at address 'agent1/prod'" in line, (words, line)
    assert value(root, "other/prod", "k") == "theirs"


@possible
def test_the_settings_are_followed_inside(root: Path) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    config = root / "registry/global_config.json"
    config.write_text(json.dumps({"format": 1, "settings": {"wait_s": 1.5}}))
    config.chmod(0o600)
    waiting = "until $P settings show -q | grep -qx wait_s=2.5; do sleep 0.05; done"
    script = f"$P settings show -q | grep wait_s; echo ready; read go; {waiting}; echo new"
    with running_in(root, script) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        config.write_text(json.dumps({"format": 1, "settings": {"wait_s": 2.5}}))
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.read() == "new\n"
        assert process.wait(PATIENCE_S) == 0


def running_in(root: Path, script: str) -> subprocess.Popen[str]:
    """A sandboxed run whose command has said "ready"."""
    process = subprocess.Popen(
        [*PRONTODB, *AT, "run", "--sandbox", "--", "sh", "-c", script],
        env=variables(root),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "ready\n":
        assert line, "it ended too soon"
    return process


@possible
def test_the_private_folder_goes_with_the_run_however_it_ends(root: Path) -> None:
    mess = 'mkdir -p "$TMPDIR/a/b"; touch "$TMPDIR/a/b/c"; chmod 000 "$TMPDIR/a/b" "$TMPDIR/a"'
    assert run(root, mess, "--sandbox").returncode == 0
    assert os.listdir(root / "sandboxes") == []
    with running_in(root, f"{mess}; echo ready; exec sleep 100") as process:
        assert len(os.listdir(root / "sandboxes")) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
    assert os.listdir(root / "sandboxes") == []


@possible
def test_a_killed_run_leaves_its_command_in_the_sandbox_and_fenced_and_the_next_run_tidies_up(root: Path) -> None:
    fill(root, "other/prod", {"k": "theirs"})
    steal = f"cat {root}/addresses/other/prod/keystore.db"
    with running_in(root, f"echo ready; read go; {steal}; echo $?; $P set k late; echo $?; read stay") as process:
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert run(root, "$P set k mine", "--sandbox").returncode == 0
        assert os.listdir(root / "sandboxes") == []
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        assert [process.stdout.readline() for _ in range(2)] == ["1\n", "1\n"]
        os.killpg(process.pid, signal.SIGKILL)
    assert value(root, "agent1/prod", "k") == "mine"


@possible
def test_a_strict_sandbox_closes_the_rest_of_the_file_system(root: Path, tmp_path: Path) -> None:
    work, data, out = (tmp_path / name for name in ("work", "data", "out"))
    for folder in (work, data, out):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    script = (
        f"cat {data}/file; echo x > {data}/new; echo x > {out}/new; cat {out}/file; touch here; cat {tmp_path}/x/file"
    )
    (tmp_path / "x").mkdir()
    (tmp_path / "x/file").write_text("closed")

    def strict(*options: str) -> str:
        words = [*PRONTODB, *AT, "run", "--strict", *options, "--", "sh", "-c", script]
        done = subprocess.run(words, cwd=work, env=variables(root), capture_output=True, text=True, timeout=PATIENCE_S)
        return done.stdout

    assert strict() == ""
    assert not (data / "new").exists()
    assert (work / "here").exists()
    assert strict("--allow-read", str(data), "--allow-write", str(out)) == "dataout"
    assert not (data / "new").exists()
    assert (out / "new").exists()


@possible
@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--sandbox", "--allow-read", "{root}/addresses"), "lies in the root"),
        (("--sandbox", "--allow-write", "{root}/.."), "holds the root"),
        (("--strict", "--allow-read", "/"), "holds the root"),
        (("--sandbox", "--allow-read", "{root}/../nothing"), "does not exist"),
        (("--sandbox", "--allow-read", ""), "names no path"),
        (("--strict", "--allow-write", ""), "names no path"),
        (("--sandbox", "--allow-read", "/dev"), "shows disks or memory"),
        (("--sandbox", "--allow-read", "/dev/mem"), "/dev/mem"),
        (("--sandbox", "--allow-read", "/etc/passwd/x"), "cannot be used: Not a directory"),
        (("--allow-read", "/etc"), "are for a sandbox"),
    ],
)
def test_what_would_open_the_root_is_refused_in_one_line(root: Path, options: tuple[str, ...], why: str) -> None:
    done = run(root, "echo started", *(option.format(root=root) for option in options))
    assert (done.returncode, done.stdout) == (1, "")
    assert why in done.stderr
    assert done.stderr.count("\n") == 1


@possible
def test_a_strict_run_in_a_folder_that_holds_the_root_is_refused(root: Path) -> None:
    words = [*PRONTODB, *AT, "run", "--strict", "--", "true"]
    for folder in (root, root.parent, Path("/")):
        root.mkdir(exist_ok=True)
        path = {"PYTHONPATH": os.getcwd()}
        done = subprocess.run(words, cwd=folder, env=variables(root) | path, capture_output=True, text=True)
        assert done.returncode == 1
        assert "the working folder" in done.stderr
        assert done.stderr.count("\n") == 1


@possible
def test_the_command_gets_no_descriptor_of_ours(root: Path) -> None:
    done = run(root, "ls /proc/self/fd", "--sandbox")
    assert done.stdout.split() == ["0", "1", "2", "3"], "the last one is its own, of the folder it lists"


@possible
def test_a_nested_sandbox_is_the_one_around_it_and_a_strict_one_is_narrower(root: Path) -> None:
    inner = 'echo "$PRONTODB_SANDBOX"; $P set k inner'
    script = f"echo \"$PRONTODB_SANDBOX\"; for how in --sandbox --strict; do $P run $how -- sh -c '{inner}'; done"
    done = run(root, script, "--sandbox")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(set(done.stdout.splitlines())) == 1
    assert value(root, "agent1/prod", "k") == "inner"


@possible
def test_a_sandbox_around_is_not_believed_to_be_there_for_what_the_environment_says(root: Path) -> None:
    fill(root, "other/prod", {"k": "theirs"})
    with running_in(root, 'echo "$PRONTODB_SANDBOX" > "$TMPDIR/../x"; echo ready; read go') as process:
        (name,) = os.listdir(root / "sandboxes")
        script = f"cat {root}/addresses/agent1/prod/keystore.db {root}/sandboxes/{name}/address"
        forged = str(root / "sandboxes" / name)
        done = ran(root, "--user", "other", "--cursor", "prod", "run", "--sandbox", "--", "sh", "-c", script,
                   PRONTODB_SANDBOX=forged)  # fmt: skip
        assert (done.returncode, done.stdout) == (1, "")
        assert not (root / "sandboxes" / name / "x").exists(), "the command writes only in its tmp"
        process.kill()


@pytest.mark.parametrize(
    ("abi", "why"), [(1, "ABI 1"), (2, "ABI 2"), (UnavailableError("this kernel has no Landlock"), "has no Landlock")]
)
def test_a_kernel_that_cannot_is_told_of_and_nothing_is_started(
    root: Path, monkeypatch: pytest.MonkeyPatch, abi: object, why: str
) -> None:
    from tests.unit.cli.harness import Cli

    def asked() -> int:
        if isinstance(abi, UnavailableError):
            raise abi
        assert isinstance(abi, int)
        return abi

    monkeypatch.setattr(landlock, "abi", asked)
    error = Cli(root).fails("run", "--sandbox", "--", "touch", str(root.parent / "started"))
    assert error.startswith("no sandbox is possible here")
    assert why in error
    assert "run the command as another user" in error
    assert not (root.parent / "started").exists()
    assert "no sandbox is possible" in Cli(root).ok("version").text


@possible
def test_ten_thousand_files_beside_the_root_are_no_hindrance(root: Path) -> None:
    home = root.parent / "home"
    home.mkdir()
    for number in range(10_000):
        os.mknod(home / f"f{number}")
    inside = home / "root"
    done = ran(
        inside, *AT, "run", "--sandbox", "--", "sh", "-c", f"cat {home}/f9999 && echo x > {home}/f1 && ls {home}"
    )
    assert done.returncode == 2, "the folder that holds the root cannot be listed"
    assert (home / "f1").read_text() == "x\n"
    assert waited_for(lambda: not os.listdir(inside / "sandboxes"))
