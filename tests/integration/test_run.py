"""prontodb run: an address for one command, its children inside, everybody else outside, and nothing after its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prontodb.model.address import Address
from tests.checking import root_faults
from tests.managing import PATIENCE_S, environment, waited_for
from tests.parts import Parts, fill, value

PRONTODB = [sys.executable, "-m", "prontodb"]
AT = ["--user", "agent1", "--cursor", "prod"]


def variables(root: Path, **more: str) -> dict[str, str]:
    kept = {name: text for name, text in environment().items() if not name.startswith("PRONTODB_")}
    return kept | {"PRONTODB_HOME": str(root), "P": f"{sys.executable} -m prontodb"} | more


def ran(root: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PRONTODB, *words],
        env=variables(root, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 3,
    )


def run(root: Path, script: str, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    return ran(root, *AT, "run", *options, "--", "sh", "-c", script, **more)


@contextmanager
def running(root: Path, script: str) -> Iterator[subprocess.Popen[str]]:
    """A run whose command has said "ready"."""
    with subprocess.Popen(
        [*PRONTODB, *AT, "run", "--", "sh", "-c", script],
        env=variables(root),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # no terminal's business
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def epoch_of(root: Path) -> int:
    return Parts(root).book.describe(Address("agent1", "prod")).epoch


def test_the_command_is_told_where_it_is_and_its_exit_code_passed_on(root: Path) -> None:
    done = run(root, 'echo "$PRONTODB_HOME $PRONTODB_USER $PRONTODB_CURSOR"; echo "$PRONTODB_SESSION"; exit 7')
    assert (done.returncode, done.stderr) == (7, "")
    place, session = done.stdout.splitlines()
    assert place == f"{root} agent1 prod"
    assert session.startswith("s-")
    assert session.partition(":")[2].isdigit()
    assert root_faults(str(root)) == []


@pytest.mark.parametrize(
    ("script", "code"), [("true", 0), ("false", 1), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("exit 255", 255)]
)
def test_however_the_command_ends_the_session_does_too(root: Path, script: str, code: int) -> None:
    assert run(root, script).returncode == code
    assert ran(root, "session", "list").stdout == ""
    assert ran(root, *AT, "set", "k", "v").returncode == 0


def test_a_command_that_cannot_be_started_is_told_from_one_that_failed(root: Path, tmp_path: Path) -> None:
    done = ran(root, *AT, "run", "--", "no-such-command")
    assert (done.returncode, done.stderr) == (127, "prontodb: 'no-such-command' was not found\n")
    done = ran(root, *AT, "run", "--", str(tmp_path))
    assert done.returncode == 126
    assert "cannot be run" in done.stderr
    assert ran(root, "run").returncode == 1
    assert ran(root, "session", "list").stdout == ""


def test_inside_the_command_line_and_the_library_use_the_session(root: Path) -> None:
    agent = (
        "import asyncio, prontodb\\n"
        "async def main():\\n"
        "    async with prontodb.open() as manager:\\n"
        "        for mode in ('exclusive', 'shared', 'exclusive'):\\n"
        "            async with manager.session('agent1', 'prod', mode=mode, wait=0) as ks:\\n"
        "                await ks.increment('n')\\n"
        "                print(ks.session_id, ks.cache)\\n"
        "        async with manager.session('agent1', 'other', wait=0) as ks:\\n"
        "            print(ks.session_id)\\n"
        "asyncio.run(main())\\n"
    ).replace("\\n", "\n")
    script = f'$P set k v; $P incr n; {sys.executable} -c "$AGENT"; $P get n; echo; echo "$PRONTODB_SESSION"'
    done = run(root, script, AGENT=agent)
    assert (done.returncode, done.stderr) == (0, "")
    first, one, two, three, other, total, own = done.stdout.splitlines()
    assert (first, total) == ("1", "4")
    session = own.partition(":")[0]
    # A handle of the run has no cache: other processes of the run write beside it.
    assert one == two == three == f"{session} None"
    assert other != session, "another address is another session"
    assert value(root, "agent1/prod", "k") == "v"


def test_several_children_of_one_run_share_it(root: Path) -> None:
    done = run(root, "for i in 1 2 3 4; do $P incr n & done; wait; $P get n")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted([*done.stdout[:-1].split(), done.stdout[-1]]) == ["1", "2", "3", "4", "4"]


def test_nobody_else_gets_in_while_it_runs_and_each_is_told_why(root: Path) -> None:
    with running(root, "echo ready; read line") as process:
        for words in (("set", "k", "v"), ("run", "--wait", "0", "--", "true"), ("incr", "n")):
            done = ran(root, *AT, *words) if words[0] == "run" else ran_with_short_wait(root, *AT, *words)
            assert done.returncode == 1
            assert "prontodb run sh" in done.stderr
            assert f"pid {process.pid}" in done.stderr
        assert ran(root, *AT, "get", "k").returncode == 2, "reading waits for nobody"
        assert ran(root, "--user", "agent2", "set", "k", "v").returncode == 0
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.wait(PATIENCE_S) == 0


def ran_with_short_wait(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    import json

    config = root / "registry/global_config.json"
    if not config.exists():
        config.write_text(json.dumps({"format": 1, "settings": {"wait_s": 0.1}}))
        config.chmod(0o600)
    return ran(root, *words)


def test_a_nested_run_attaches_at_the_same_address_and_is_its_own_at_another(root: Path) -> None:
    done = run(
        root,
        'echo "$PRONTODB_SESSION"; $P run --wait 0 -- sh -c \'echo "$PRONTODB_SESSION"; $P set k inner\'; '
        "$P --user agent2 run --wait 0 -- sh -c 'echo \"$PRONTODB_SESSION\"; $P set k other'; $P set l after",
    )
    assert (done.returncode, done.stderr) == (0, "")
    outer, nested, other = done.stdout.splitlines()
    assert outer == nested != other
    assert value(root, "agent1/prod", "k") == "inner"
    assert value(root, "agent1/prod", "l") == "after"
    assert value(root, "agent2/prod", "k") == "other"


def test_what_a_run_leaves_behind_writes_no_more(root: Path) -> None:
    out = root.parent / "late.out"
    script = f"(sleep 0.3; while [ -e {root.parent}/wait ]; do sleep 0.05; done; $P set k late; echo $?) > {out} 2>&1 &"
    (root.parent / "wait").touch()
    done = run(root, f"$P set k first; {script}")
    assert done.returncode == 0
    epoch = epoch_of(root)
    assert ran(root, *AT, "set", "k", "mine").returncode == 0
    (root.parent / "wait").unlink()
    assert waited_for(lambda: out.exists() and out.read_text().endswith("1\n"))
    assert "was ended by somebody else" in out.read_text()
    assert value(root, "agent1/prod", "k") == "mine"
    assert epoch_of(root) == epoch


def test_what_a_killed_run_leaves_behind_writes_no_more_once_somebody_came_by(root: Path) -> None:
    with running(root, "echo ready; read go; $P set k late; echo $?; read stay") as process:
        process.send_signal(signal.SIGKILL)
        # Its command holds the pipes still; only the run is gone.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert ran(root, *AT, "set", "k", "mine").returncode == 0
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "1\n"
        assert value(root, "agent1/prod", "k") == "mine"
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_signals_are_passed_on(root: Path, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    with running(root, f"trap 'echo got; exit 9' {name}; echo ready; while :; do sleep 0.02; done") as process:
        process.send_signal(number)
        assert process.stdout is not None
        assert process.stdout.readline() == "got\n"
        assert process.wait(PATIENCE_S) == 9
    assert ran(root, "session", "list").stdout == ""


def test_a_run_that_is_asked_to_end_asks_its_command(root: Path) -> None:
    with running(root, "trap 'exit 5' TERM; echo ready; while :; do sleep 0.02; done") as process:
        (line,) = ran(root, "session", "list").stdout.splitlines()
        done = ran(root, "session", "end", line.split("\t")[0], "--wait", "20")
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert process.wait(PATIENCE_S) == 5
        assert process.stderr is not None
        assert "is asked to end" in process.stderr.read()


def test_a_run_put_out_by_force_goes_on_and_is_refused(root: Path) -> None:
    with running(root, "echo ready; read go; $P set k late; echo $?; read stay") as process:
        (line,) = ran(root, "session", "list").stdout.splitlines()
        session = line.split("\t")[0]
        assert ran(root, "session", "end", session, "--force").returncode == 0
        assert ran(root, *AT, "set", "k", "mine").returncode == 0
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "1\n"
        process.stdin.write("end\n")
        process.stdin.flush()
        process.wait(PATIENCE_S)
    assert value(root, "agent1/prod", "k") == "mine"
    assert ran(root, "session", "list").stdout == ""
    assert not list((root / "registry/locks/agent1@prod/retired").iterdir())


@pytest.mark.parametrize("text", ["nonsense", "s-0011", "s-00112233445566778899", "s-00112233445566778899:-1"])
def test_a_session_that_the_environment_misspells_is_refused_in_one_line(root: Path, text: str) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    done = ran(root, *AT, "set", "k", "w", PRONTODB_SESSION=text)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("prontodb: PRONTODB_SESSION must be ID:EPOCH")
    assert done.stderr.count("\n") == 1
    assert value(root, "agent1/prod", "k") == "v"


def test_a_session_of_another_root_or_address_is_not_ours(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    done = run(root, f"PRONTODB_HOME={other} $P set k v; PRONTODB_CURSOR=next $P set k v; $P --user x set k v")
    assert (done.returncode, done.stderr) == (0, "")
    assert value(other, "agent1/prod", "k") == value(root, "agent1/next", "k") == value(root, "x/prod", "k") == "v"


def test_what_an_ended_run_left_behind_is_refused_at_an_address_made_anew_or_moved_here(root: Path) -> None:
    session = run(root, 'echo "$PRONTODB_SESSION"').stdout.strip()
    assert ran(root, "--user", "x", "--cursor", "y", "run", "--", "true").returncode == 0
    for moved in (False, True):
        assert ran(root, "address", "delete", "agent1/prod", "--yes").returncode == 0
        if moved:
            assert ran(root, "address", "rename", "x/y", "agent1/prod").returncode == 0
        with running(root, "echo ready; read go") as process:
            done = ran(root, *AT, "set", "k", "late", PRONTODB_SESSION=session)
            assert (done.returncode, "was ended by somebody else" in done.stderr) == (1, True)
            done = ran(root, *AT, "run", "--", "true", PRONTODB_SESSION=session)
            assert (done.returncode, "has ended" in done.stderr) == (1, True)
            assert process.stdin is not None
            process.stdin.close()
        assert value(root, "agent1/prod", "k") is None


def test_a_run_whose_lock_file_was_taken_away_shuts_out_what_it_leaves(root: Path) -> None:
    lock = root / "registry/locks/agent1@prod/address.lock"
    done = run(root, f'rm {lock}; echo "$PRONTODB_SESSION"')
    assert done.returncode == 0
    late = ran(root, *AT, "set", "k", "late", PRONTODB_SESSION=done.stdout.strip())
    assert (late.returncode, "was ended by somebody else" in late.stderr) == (1, True)


def test_a_locked_registry_holds_up_no_run_for_its_deadline(root: Path) -> None:
    from tests.managing import LOCK_HOLDER, Child

    run(root, "true")
    config = root / "registry/global_config.json"
    config.write_text('{"format": 1, "settings": {"wait_s": 3600}}')
    config.chmod(0o600)
    with Child(LOCK_HOLDER, root / "registry/active_sessions.db") as blocker:
        blocker.tell("BEGIN IMMEDIATE")
        assert blocker.line() == "done"
        # Whoever waited for it to the deadline would not be back before we give up.
        assert run(root, "true").returncode == 0


def test_a_root_behind_a_link_is_the_same_root(root: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)
    done = ran(
        link,
        *AT,
        "run",
        "--",
        "sh",
        "-c",
        f"$P set k v; PRONTODB_HOME={root} $P set l w; PRONTODB_HOME={link} $P set m x",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [value(root, "agent1/prod", key) for key in "klm"] == ["v", "w", "x"]


def test_the_wait_is_for_as_long_as_it_says(root: Path) -> None:
    with running(root, "echo ready; read go") as process:
        began = time.monotonic()
        assert run(root, "true", "--wait", "0.3").returncode == 1
        assert time.monotonic() - began >= 0.3
        with subprocess.Popen([*PRONTODB, *AT, "run", "--wait", "60", "--", "true"], env=variables(root)) as waiting:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            assert waiting.wait(PATIENCE_S * 3) == 0
    assert ran(root, *AT, "run", "--wait", "soon", "--", "true").returncode == 1


SWEEPING_SOON = """
import sys
import prontodb.cli.running as running
from prontodb.cli.main import main
running.UPKEEP_S = running.LOOK_S = 0.05
sys.exit(main(sys.argv[1:]))
"""
# Ends once nothing that has expired is left; with 7 when that takes longer than anybody waits.
UNTIL_SWEPT = """
for n in 1 2 3; do $P set k$n v --ttl 0.2s; done
$P set stays v
for n in $(seq 100); do
    $P address show --json | grep -q '"entries": 1, "expired": 0' && exit 0
    sleep 0.1
done
exit 7
"""


def test_a_run_sweeps_the_address_that_nobody_else_can(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SWEEPING_SOON, *AT, "run", "--", "sh", "-c", UNTIL_SWEPT],
        env=variables(root),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 3,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ran(root, "keys", *AT).stdout == "stays\n"
