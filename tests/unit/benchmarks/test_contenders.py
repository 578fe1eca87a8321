"""Each contender that is installed here keeps what it was given, and keeps it through what it says it survives."""

import os
import select
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from benchmarks.contenders import Contender, Durability
from benchmarks.contenders.listing import CONTENDERS
from benchmarks.contenders.redis_server import RedisAlways, RedisEverysec
from benchmarks.scenarios import durable_sets, relaxed_sets
from benchmarks.scenarios.scenario import Scenario

CHECKOUT = Path(__file__).resolve().parents[3]
DEADLINE_S = 60
# Sets, says what it has set, and is gone before it could close anything.
KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from benchmarks.contenders.listing import CONTENDERS

async def main():
    store = CONTENDERS[sys.argv[1]]()
    await store.open(Path(sys.argv[2]))
    for number in range(50):
        done = store.set(f"agent.memory.note-{number % 10}", f"value {number}")
        if store.is_async:
            await done
    server = getattr(store, "_server", None)
    print("all set" if server is None else server.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def installed(name: str) -> type[Contender]:
    kind = CONTENDERS[name]
    if why := kind.why_missing():
        pytest.skip(f"{kind.name}: {why}")
    return kind


async def ask(store: Contender, call: str, *arguments: str) -> Any:
    answer = getattr(store, call)(*arguments)
    return await answer if store.is_async else answer


def killed(name: str, folder: Path) -> str:
    """Have a process set 50 values and be killed; return what it said last."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, name, str(folder)],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == -signal.SIGKILL
    return done.stdout.strip()


@pytest.mark.parametrize("name", CONTENDERS)
async def test_what_was_set_is_got(name: str, tmp_path: Path) -> None:
    store = installed(name)()
    await store.open(tmp_path)
    try:
        await store.fill([("agent.one", "filled"), ("agent.two", "filled")])
        assert await ask(store, "get", "agent.one") == "filled"
        await ask(store, "set", "agent.one", "set")
        await ask(store, "set", "agent.three", "set")
        await ask(store, "set", "agent.three", "set again")
        keys = ("agent.one", "agent.two", "agent.three", "agent.none")
        assert [await ask(store, "get", key) for key in keys] == ["set", "filled", "set again", None]
    finally:
        await store.close()


@pytest.mark.parametrize("name", CONTENDERS)
async def test_what_was_set_is_there_when_it_is_opened_again(name: str, tmp_path: Path) -> None:
    kind = installed(name)
    store = kind()
    await store.open(tmp_path)
    await ask(store, "set", "agent.one", "set")
    await store.close()
    again = kind()
    await again.open(tmp_path)
    try:
        assert await ask(again, "get", "agent.one") == "set"
    finally:
        await again.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTENDERS)
async def test_acknowledged_sets_survive_the_crash_of_the_process(name: str, tmp_path: Path) -> None:
    kind = installed(name)
    assert kind.promise.survives in (Durability.POWER_LOSS, Durability.PROCESS_CRASH)
    if kind is RedisEverysec:
        pytest.skip("its server dies too, and that may lose what came during a sync, as its promise says")
    if issubclass(kind, RedisAlways) and shutil.which("setpriv") is None:
        pytest.skip("nothing here would end its server")
    killed(name, tmp_path)
    store = kind()
    await store.open(tmp_path)
    try:
        got = [await ask(store, "get", f"agent.memory.note-{number}") for number in range(10)]
        assert got == [f"value {40 + number}" for number in range(10)]
    finally:
        await store.close()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_a_server_ends_with_the_benchmark_that_started_it(tmp_path: Path) -> None:
    name = next(name for name, kind in CONTENDERS.items() if kind is RedisAlways)
    installed(name)
    server = int(killed(name, tmp_path))
    try:
        process = os.pidfd_open(server)
    except ProcessLookupError:
        return  # it was faster
    ended, _, _ = select.select([process], [], [], DEADLINE_S)
    os.close(process)
    assert ended


async def test_a_server_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(next(name for name, kind in CONTENDERS.items() if kind is RedisAlways))
    monkeypatch.setattr(RedisAlways, "appendfsync", "no-such-word")
    with pytest.raises(RuntimeError, match="redis-server did not start"):
        await RedisAlways().open(tmp_path)


@pytest.mark.parametrize(
    ("scenario", "survives"),
    [(durable_sets.SCENARIO, Durability.POWER_LOSS), (relaxed_sets.SCENARIO, Durability.PROCESS_CRASH)],
)
def test_sets_are_ranked_within_one_class(scenario: Scenario, survives: Durability) -> None:
    assert {kind.promise.survives for kind in scenario.contenders} == {survives}
    assert set(scenario.contenders) <= set(CONTENDERS.values())


def test_what_is_not_installed_says_what_would_help() -> None:
    class Nowhere(Contender):
        needs = ("no_such_module.inside",)
        package = "no-such-package"

    class Headless(Contender):
        programs = ("no-such-program",)

    assert Nowhere.why_missing() == "not installed (pip install no-such-package)"
    assert Headless.why_missing() == "not installed (apt-get install no-such-program)"


def test_every_peer_is_installed_by_the_script() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = {requirement.partition(">=")[0] for requirement in project["dependency-groups"]["bench"]}
    assert {kind.package or kind.needs[0] for kind in CONTENDERS.values() if kind.needs} == listed
