"""What an operation at one address touches on the disk: its own folder, the registry, its locks, and nothing else."""

import re
import sys
from pathlib import Path

import pytest

from prontodb.direct import OneShot, lifecycle, run
from prontodb.model.address import Address
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from tests.crash import tracing

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(tracing.why_no_strace() is not None, reason=str(tracing.why_no_strace())),
]

MINE = Address("agent", "mine")
# Beside ours, below another user, and with names that a careless comparison of text would mix up.
OTHERS = [Address("agent", "other"), Address("agent", "mine2"), Address("agent2", "mine"), Address("_global", "mine")]

OPERATIONS = {
    "get": "run(ks.get('key'))",
    "get_many": "run(ks.get_many(['key', 'none']))",
    "count": "run(ks.count())",
    "set": "run(ks.set('key', 'new'))",
    "set_many": "run(ks.set_many({'a': '1', 'b': '2'}))",
    "delete": "run(ks.delete('key'))",
    "increment": "run(ks.increment('n'))",
    "clear": "run(ks.clear())",
    "namespace ttl": "run(ks.set_namespace_ttl('n', 5))",
    "create": "life.create(Address('agent', 'brand-new'))",
    "rename": "life.rename(MINE, Address('agent', 'brand-new'))",
    "delete address": "life.delete(MINE)",
    "heal": "life.heal(MINE)",
}

PROGRAM = """
import sys
from prontodb.direct import OneShot, lifecycle, run
from prontodb.model.address import Address
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
MINE = Address("agent", "mine")
life = lifecycle(Layout(sys.argv[1]), Limits(), Clock())
with OneShot(sys.argv[1], MINE) as ks:
    {operation}
"""


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_at_one_address_touches_no_other(root: Path, tmp_path: Path, operation: str) -> None:
    for address in (MINE, *OTHERS):
        with OneShot(str(root), address) as keystore:
            run(keystore.set("key", "value"))
    before = {address: files_of(root, address) for address in OTHERS}
    log = tmp_path / "log"
    program = PROGRAM.format(operation=OPERATIONS[operation])
    command = [sys.executable, "-c", program, str(root)]
    # Every call that takes a path or opens one, whatever it is for.
    done = tracing.traced(
        root, "--seccomp-bpf", "-y", "-o", str(log), "-e", "trace=%file,ftruncate,pwrite64", command=command
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in log.read_text(errors="replace").splitlines() if str(root) in line]
    assert lines
    assert [line for line in lines if any(touches(line, address) for address in OTHERS)] == []
    assert [line for line in lines if opens_past_sqlite(line)] == []
    assert {address: files_of(root, address) for address in OTHERS} == before


def touches(line: str, address: Address) -> bool:
    """True when a call names the folder of `address`, by its whole path or from the folder of its user."""
    whole = f"/addresses/{address.user}/{address.cursor}"
    from_user = rf'addresses/{re.escape(address.user)}>, "{re.escape(address.cursor)}["/]'
    return re.search(rf"{re.escape(whole)}[/\">]", line) is not None or re.search(from_user, line) is not None


def opens_past_sqlite(line: str) -> bool:
    """True when somebody but SQLite opens a keystore: SQLite goes by the whole path, we by the folder's descriptor."""
    ours = re.search(r'openat\(\d+<[^>]*>, "keystore\.db[^"]*", (\S+)', line)
    return ours is not None and "O_EXCL" not in ours[1]


def files_of(root: Path, address: Address) -> dict[str, tuple[int, int, int]]:
    """Name, inode, size and time of change of everything in an address's folder."""
    folder = root / "addresses" / address.user / address.cursor
    found = {path.name: path.lstat() for path in folder.iterdir()}
    return {name: (info.st_ino, info.st_size, info.st_mtime_ns) for name, info in found.items()}


def test_the_rule_above_notices_a_touch() -> None:
    other = Address("agent", "other")
    assert touches('openat(AT_FDCWD, "/r/addresses/agent/other/keystore.db", O_RDWR) = 3', other)
    assert touches('openat(5</r/addresses/agent>, "other", O_RDONLY|O_DIRECTORY) = 6</r/addresses/agent/other>', other)
    assert touches('mkdirat(5</r/addresses/agent>, "other/x", 0700) = 0', other)
    assert not touches('openat(5</r/addresses/agent>, "other2", O_RDONLY) = 6</r/addresses/agent/other2>', other)
    assert not touches('openat(5</r/addresses>, "agent", O_RDONLY) = 6</r/addresses/agent>', other)
    assert opens_past_sqlite('openat(5</r/addresses/agent/a>, "keystore.db", O_RDONLY|O_NOFOLLOW) = 6')
    assert not opens_past_sqlite('openat(5</r/addresses/agent/.new>, "keystore.db", O_RDWR|O_CREAT|O_EXCL, 0600) = 6')


def test_a_stopped_or_held_neighbour_does_not_delay(root: Path) -> None:
    life = lifecycle(Layout(str(root)), Limits(wait_s=0.0), Clock())
    with OneShot(str(root), MINE) as keystore:
        run(keystore.set("key", "value"))
    with life.hold(MINE, "hold"), OneShot(str(root), OTHERS[0], limits=Limits(wait_s=0.0)) as keystore:
        run(keystore.set("key", "value"))
        assert run(keystore.get("key")) == "value"
