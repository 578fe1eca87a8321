"""kill -9 at every n-th writing system call: nothing acknowledged is lost, nothing is half, the next command heals."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import encrypted
from tests.crash import tracing
from tests.crash.judging import judged, sampled
from tests.crash.tracing import Call

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(tracing.why_no_strace() is not None, reason=str(tracing.why_no_strace())),
]

SEED = 20_240_607
MOST = {"pwrite64": 28}
"""How many instants are tried, spread by chance, where there are more; of other calls fourteen."""


@pytest.fixture(scope="module")
def all_calls(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """Every writing call of one undisturbed run."""
    folder = tmp_path_factory.mktemp("count")
    return tracing.count(folder / "root", folder / "log")


NAMES = [
    *("pwrite64", "write", "fsync", "fdatasync", "ftruncate", "renameat", "rename", "unlink", "unlinkat", "rmdir"),
    *("openat", "mkdirat", "mkdir", "fchmod", "chmod", "fchmodat"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_kill_at_any_call_loses_nothing_and_the_next_command_heals(
    name: str, all_calls: list[Call], tmp_path: Path
) -> None:
    print(f"seed {SEED}")
    most = MOST.get(name, 14)
    instants = sampled(all_calls, name, most // 2 if encrypted.is_on() else most, SEED)
    with ThreadPoolExecutor(max_workers=2) as pool:  # one waits for its victim while the other judges
        found = list(pool.map(lambda call: faults_of_a_kill(tmp_path, call), instants))
    faults = [
        f"{call.name} {call.number} ({call.text[:100]}): {fault}"
        for call, of in zip(instants, found, strict=True)
        for fault in of
    ]
    assert not faults, "\n".join(faults[:12])


def faults_of_a_kill(folder: Path, call: Call) -> list[str]:
    """Kill a victim of its own as it makes this call, and judge what it left."""
    root = folder / str(call.number)
    done = tracing.traced(
        root, "-o", "/dev/null", "-e", f"trace={call.name}", "-e", f"inject={call.name}:signal=KILL:when={call.number}"
    )
    assert done.returncode in (137, -9), f"not killed: {done}"
    return judged(root, done.acknowledged)
