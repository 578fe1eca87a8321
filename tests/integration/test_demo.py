"""The demo shows what it says it shows, notices when it is not so, and leaves nothing behind."""

from __future__ import annotations

import io
import os
import re
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

import ops.demo
import ops.demo_evidence
import prontodb
from ops.demo_evidence import BOARD, Demo, show_files, show_keystores
from ops.demo_proof import faults, in_bytes, inspect, open_to_others
from ops.demo_screen import Screen

CHECKOUT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, str(CHECKOUT / "ops" / "demo.py")]
LONGEST_S = 120
TOKENS = {"agent1": "aaaa1111aaaa1111", "agent2": "bbbb2222bbbb2222"}


def environment(folder: Path, **more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(CHECKOUT), "TMPDIR": str(folder), "COLUMNS": "100"} | more


def processes_about(folder: Path) -> list[str]:
    """The command lines of all processes that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has just ended
    return [line for line in found if str(folder) in line]


@pytest.mark.slow
def test_the_demo_holds_with_three_agents_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--agents", "3"],
        env=environment(tmp_path, PRONTODB_USER="nobody", PRONTODB_HOME="/nowhere"),
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert re.search(r"^demo: ok, all \d+ checks held", done.stdout, re.MULTILINE)
    assert "\x1b" not in done.stdout
    # A temporary folder may have a long name.
    assert [line for line in done.stdout.splitlines() if len(line) > 100 and str(tmp_path) not in line] == []

    assert matrix(done.stdout) == {
        "agent1/prod": "+..",
        "agent2/prod": "++.",  # what agent1 copied there
        "agent3/prod": "..+",
        "_global/board": "+++",
        "elsewhere": "...",
    }
    assert list(tmp_path.iterdir()) == []


def matrix(output: str) -> dict[str, str]:
    """Whose tokens were found where: `+` for any, `.` for none."""
    lines = output.partition("Whose data lies where")[2].splitlines()[2:7]
    rows = [line.split() for line in lines]
    return {place: "".join("." if cell == "·" else "+" for cell in cells) for place, *cells in rows}


@pytest.mark.slow
def test_an_agent_that_fails_makes_the_demo_fail_and_say_why(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--agents", "2"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        # No file may grow past this, as on a full disk: a keystore's does soon.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)),
    )
    assert done.returncode == 1, done.stdout
    assert re.search(r"agent[12] ended with exit code 1", done.stdout)
    assert "prontodb.errors." in done.stdout
    assert "demo: ok" not in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_agents_and_removes_the_folder(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [*COMMAND, "--agents", "4"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        # Now all agents are at work.
        assert any(" met " in line for line in demo.stdout)
        demo.send_signal(number)
        _, complaint = demo.communicate(timeout=LONGEST_S)
    assert (demo.returncode, complaint) == (128 + number, f"demo: stopped by {number.name}\n")
    assert list(tmp_path.iterdir()) == []
    assert processes_about(tmp_path) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the agents by /proc and waits for them by pidfd")
def test_agents_end_with_a_demo_that_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "--agents", "3"], env=environment(tmp_path), stdout=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        assert any(" met " in line for line in demo.stdout)
        agents = [os.pidfd_open(pid) for pid in children_of(demo.pid)]
        assert len(agents) == 3
        demo.kill()
    for agent in agents:
        # A pidfd is readable once its process has ended.
        assert select.select([agent], [], [], LONGEST_S)[0]
        os.close(agent)


@pytest.mark.parametrize("obeys", [True, False])
async def test_an_agent_may_end_by_itself_before_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obeys: bool
) -> None:
    agent = tmp_path / "demo_agent.py"
    agent.write_text(
        "import json, os, pathlib, signal, sys, time\n"
        "print(json.dumps({'step': str(os.getpid())}), flush=True)\n"
        "sys.stdin.read()\n"
        # Long enough for a kill to come first.
        "time.sleep(0.3)\n" + ("pathlib.Path(__file__).with_name('ended').touch()" if obeys else "signal.pause()")
    )
    monkeypatch.setattr(ops.demo, "OPS", tmp_path)
    if not obeys:
        monkeypatch.setattr(ops.demo_evidence, "ENDING_S", 0.1)
    pids: list[int] = []
    async with anyio.create_task_group() as tasks:

        def step(pid: str) -> None:
            pids.append(int(pid))
            tasks.cancel_scope.cancel()

        tasks.start_soon(ops.demo.run_agent, Demo(str(tmp_path), 1, Screen(io.StringIO())), 1, step)
    assert (tmp_path / "ended").exists() is obeys
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("count", ["1", "33", "many"])
def test_a_number_of_agents_that_cannot_be_is_refused(tmp_path: Path, count: str) -> None:
    done = subprocess.run([*COMMAND, "--agents", count], env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 2
    assert "--agents" in done.stderr
    assert list(tmp_path.iterdir()) == []


async def small_root(root: Path, **values_of_agent2: str) -> Demo:
    """Two agents' keystores and the board, as the demo's agents leave them, in small."""
    own = {name: {"app.config": f"mine {token}", "count.steps": "4"} for name, token in TOKENS.items()}
    own["agent2"] |= {"handoff.plan": f"copied {TOKENS['agent1']}"} | values_of_agent2
    async with prontodb.open(root) as manager:
        for name, values in own.items():
            async with manager.session(name, "prod") as keystore:
                await keystore.set_many(values)
        async with manager.session("_global", "board") as board:
            await board.set_many({"visits": "4"} | {f"news.{name}": token for name, token in TOKENS.items()})
    return Demo(str(root), 2, Screen(io.StringIO()), {name: facts_of(name) for name in TOKENS})


def facts_of(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "address": f"{name}/prod",
        "pid": 1,
        "token": TOKENS[name],
        "steps": 4,
        "visits": 2,
        "expired": 0,
        "conflicts": 0,
        "took_s": 1.0,
        "writes_per_s": 1.0,
        "news": 2,
        "news_after_ms": 1.0,
        "claims": {"all is well": True},
    }


async def test_what_is_each_ones_own_passes(root: Path) -> None:
    demo = await small_root(root)
    await show_keystores(demo)
    await show_files(demo)
    assert demo.broken == []
    assert demo.held > 0


async def test_a_planted_value_fails_both_searches(root: Path) -> None:
    demo = await small_root(root)
    async with prontodb.open(root) as manager, manager.session("agent1", "prod") as keystore:
        await keystore.set("stray", f"not mine {TOKENS['agent2']}")
    await show_keystores(demo)
    await show_files(demo)
    assert [text.partition(": ")[2] for text in demo.broken] == ["agent1/prod holds 1 of agent2"] * 2


async def test_a_token_in_a_file_of_no_address_is_found(root: Path) -> None:
    demo = await small_root(root)
    (root / "registry" / "stray").write_text(TOKENS["agent1"])
    (root / "registry" / "stray").chmod(0o644)
    await show_files(demo)
    assert [text.partition(": ")[2] for text in demo.broken] == [
        "-rw-r--r-- registry/stray",
        "elsewhere holds 1 of agent1",
    ]


async def test_wrong_counters_missing_news_and_odd_addresses_are_noticed(root: Path) -> None:
    demo = await small_root(root, **{"count.steps": "3"})
    demo.facts["agent1"] |= {"news": 1, "claims": {"all is well": False}}
    async with prontodb.open(root) as manager:
        await manager.create("agent3/prod")
    await show_keystores(demo)
    assert [text.partition(": ")[2] for text in demo.broken] == [
        "unexpected or missing: agent3/prod",
        "not so at agent1",
        "agent2/prod has 3, not 4",
        "agent1 heard 1",
    ]


def test_a_search_that_finds_not_even_the_owner_proves_nothing() -> None:
    assert faults({"a/prod": {"a": 0}}, {"a/prod": {"a"}, BOARD: {"a"}}) == [
        "a/prod holds nothing of a",
        f"{BOARD} holds nothing of a",
    ]


def test_the_inspection_follows_no_link(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "file").write_text("token")
    (inside / "folder").symlink_to(outside)
    (inside / "link").symlink_to(outside / "file")
    items = inspect(str(inside), {"somebody": "token"})
    assert [item.path for item in items] == ["folder", "link"]
    assert in_bytes(items) == {"elsewhere": {"somebody": 0}}
    assert len(open_to_others(items)) == 2


@pytest.mark.parametrize("count", [2, 6, 12, 32])
def test_any_number_of_agents_fits_eighty_columns(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stream = io.StringIO()
    names = [f"agent{number}" for number in range(1, count + 1)]
    rows = [(f"{name}/prod", [0] * (count - 1) + [1_234]) for name in names]
    Screen(stream).matrix(names, rows, lambda _row, _column: "1")
    assert max(map(len, stream.getvalue().splitlines())) <= 80
    assert ("1234" in stream.getvalue()) is (count <= 12)


def test_a_stream_that_knows_only_ascii_gets_ascii() -> None:
    raw = io.BytesIO()
    screen = Screen(io.TextIOWrapper(raw, encoding="ascii"))
    screen.heading("Files")
    screen.verdict("held", held=True)
    screen.matrix(["a"], [("a/prod", [0])], lambda _row, _column: "1")
    assert raw.getvalue().isascii()
    assert b"+ held" in raw.getvalue()


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colour_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], *, coloured: bool
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = Terminal()
    Screen(stream).verdict("held", held=True)
    assert ("\x1b[32m" in stream.getvalue()) is coloured
