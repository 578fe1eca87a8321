"""kill -9 in the middle of encrypting, decrypting and rekeying: the old keystore or the new one, and nothing lost."""

from __future__ import annotations

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prontodb.direct import OneShot, run
from prontodb.doctor import examine
from prontodb.engine.sqlite.resealing import DECRYPT, ENCRYPT, REKEY
from prontodb.model.address import Address
from prontodb.model.clock import Clock
from prontodb.model.limits import Limits
from tests.crash import tracing
from tests.crash.judging import sampled
from tests.crash.tracing import Call
from tests.parts import Parts
from tests.sealed import KEY, VALUE, key_file, keyring, layout, planted

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(tracing.why_no_strace() is not None, reason=str(tracing.why_no_strace())),
]

SEED = 20_261_123
SAMPLED = {"pwrite64": 4, "fsync": 3, "renameat": 3, "write": 2, "unlinkat": 2}
VICTIM = str(tracing.CHECKOUT / "tests" / "crash" / "reseal_worker.py")
HELD = {f"{KEY}.{n}": f"{VALUE} {n}" for n in range(40)}
PLACE = Address.parse("a/x")


def values(place: Path) -> dict[str, str | None]:
    with OneShot(str(place / "root"), PLACE, keys=keyring(place / "root", place / "key")) as keystore:
        found: dict[str, str | None] = run(keystore.get_many(list(HELD)))
        return found


@pytest.fixture(scope="module", params=[ENCRYPT, DECRYPT, REKEY])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A root with one address, plain or encrypted, and its key."""
    place = tmp_path_factory.mktemp(request.param)
    (place / "root").mkdir(mode=0o700)
    key = key_file(place)
    parts = Parts(place / "root")
    parts.lifecycle.layout = layout(place / "root", key)
    parts.lifecycle.create(PLACE, encrypted=request.param != ENCRYPT)
    with OneShot(str(place / "root"), PLACE, keys=keyring(place / "root", key)) as keystore:
        run(keystore.set_many(HELD))
    return place, request.param


def command(place: Path, what: str) -> list[str]:
    return [sys.executable, "-W", "error", VICTIM, str(place / "root"), str(place / "key"), what]


def faults_of_a_kill(made: Path, what: str, tmp_path: Path, call: Call) -> list[str]:
    place = tmp_path / f"{call.name}{call.number}"
    shutil.copytree(made, place)
    inject = f"inject={call.name}:signal=KILL:when={call.number}"
    options = ("-o", "/dev/null", "-e", f"trace={call.name}", "-e", inject)
    done = tracing.traced(place / "root", *options, command=command(place, what))
    assert done.returncode in (137, -9), f"not killed: {done}"
    found = [] if values(place) == HELD else ["not all is there"]
    where = layout(place / "root", place / "key")
    examine(where, Limits(), Clock(), deep=True, repair=True)
    with_name = Parts(place / "root")
    with_name.book._layout = where
    is_plain = with_name.book.describe(PLACE).encryption is None
    if bool(planted(place / "root" / "addresses")) != is_plain:
        found.append(f"it is said to be {'plain' if is_plain else 'encrypted'}, and is not")
    if values(place) != HELD:
        found.append("the doctor lost something")
    found += [finding.what for finding in examine(where, Limits(), Clock(), deep=True).findings]
    names = [path.name for path in (place / "root/addresses/a").iterdir()]
    if names != ["x"]:
        found.append(f"{names} are left")
    return [f"{call.name} {call.number} ({call.text[:100]}): {fault}" for fault in found]


def test_a_kill_at_any_system_call_leaves_the_old_keystore_or_the_new_one(
    made: tuple[Path, str], tmp_path: Path
) -> None:
    print(f"seed {SEED}")
    place, what = made
    counted = tmp_path / "counted"
    shutil.copytree(place, counted)
    log = counted / "log"
    options = ("--seccomp-bpf", "-y", "-o", str(log), "-e", f"trace={tracing.WRITING}")
    done = tracing.traced(counted / "root", *options, command=command(counted, what))
    assert done.returncode == 0, done.stderr
    calls = tracing.calls(log, counted)
    instants = [call for name, most in SAMPLED.items() for call in sampled(calls, name, most, SEED)]
    assert len(instants) > len(SAMPLED), "the sample is of calls that are not made any more"
    with ThreadPoolExecutor(max_workers=2) as pool:  # one waits for its victim while the other judges
        faults = list(pool.map(lambda call: faults_of_a_kill(place, what, tmp_path, call), instants))
    assert [fault for of in faults for fault in of] == []
