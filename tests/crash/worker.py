"""The victim: a fixed list of steps on one root, each acknowledged on stdout before the next one begins.

`python tests/crash/worker.py ROOT [full|relaxed]` runs them; `STEPS` and `possible` tell the judge what must be true.
A step is all or nothing, so a crash leaves the state after the acknowledged steps, or after one more.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from prontodb.direct import OneShot, lifecycle, run
from prontodb.errors import ProntoError
from prontodb.model.address import Address
from prontodb.model.clock import Clock
from prontodb.model.layout import CONFIG_FILE, REGISTRY, Layout
from prontodb.model.limits import Limits
from prontodb.storage.files import make_root, open_root
from tests import encrypted

encrypted.join()

HOME = Address("agent", "home")
AWAY = Address("agent", "away")
MOVED = Address("other", "moved")
SPARE = Address("spare")
BIG = "ä" * 30_000  # some pages of overflow, and no ASCII

Entries = dict[str, str]


@dataclass(frozen=True, slots=True)
class State:
    """What a root holds: the entries of each address that exists, and the published file."""

    addresses: dict[Address, Entries] = field(default_factory=dict)
    config: str | None = None

    def with_entries(self, address: Address, **entries: str | None) -> "State":
        """The state after these entries were set, or with None deleted."""
        merged = {**self.addresses.get(address, {}), **entries}
        kept = {key: value for key, value in merged.items() if value is not None}
        return replace(self, addresses={**self.addresses, address: kept})


@dataclass(frozen=True, slots=True)
class Step:
    """One thing the victim does, and what it does to the state; `halfway` when it is two steps, each all or nothing."""

    name: str
    act: Callable[[str, str], object]
    effect: Callable[[State], State]
    halfway: Callable[[State], State] | None = None


def entry_step(name: str, address: Address, act: Callable[..., object], **entries: str | None) -> Step:
    """A step that writes through a one-shot handle."""

    def perform(root: str, durability: str) -> object:
        with OneShot(root, address, durability=durability) as keystore:
            return run(act(keystore))  # type: ignore[arg-type]

    return Step(name, perform, lambda state: state.with_entries(address, **entries), _address_made(address))


def _address_made(address: Address) -> Callable[[State], State]:
    """The first write makes its address; an empty one is whole."""
    return lambda state: state if address in state.addresses else state.with_entries(address)


def publish(text: str) -> Step:
    """A step that publishes a small file."""

    def perform(root: str, durability: str) -> None:
        with make_root(root, REGISTRY) as folder:
            folder.publish(CONFIG_FILE, text.encode())

    return Step("publish", perform, lambda state: replace(state, config=text))


def life_step(name: str, act: Callable[..., object], effect: Callable[[State], State]) -> Step:
    """A step that creates, renames or deletes a whole address."""
    return Step(name, lambda root, _: act(lifecycle(Layout(root), Limits(), Clock())), effect)


def _many(number: int) -> Entries:
    return {f"many{i}": str(number) * 40 for i in range(8)}


def _renamed(state: State) -> State:
    others = {address: entries for address, entries in state.addresses.items() if address != AWAY}
    return replace(state, addresses={**others, MOVED: state.addresses[AWAY]})


def _deleted(state: State) -> State:
    return replace(state, addresses={HOME: state.addresses[HOME]})


STEPS = (
    publish('{"n": 1}' + " " * 5_000),
    entry_step("set on a new address", HOME, lambda ks: ks.set("one", "1"), one="1"),
    entry_step("set_many", HOME, lambda ks: ks.set_many(_many(1)), **_many(1)),
    entry_step("increment", HOME, lambda ks: ks.increment("count"), count="1"),
    entry_step("overwrite all", HOME, lambda ks: ks.set_many({**_many(2), "one": BIG}), **_many(2), one=BIG),
    entry_step("delete", HOME, lambda ks: ks.delete("one"), one=None),
    life_step("create", lambda life: life.create(AWAY), lambda state: state.with_entries(AWAY)),
    entry_step("set away", AWAY, lambda ks: ks.set("two", "2"), two="2"),
    life_step("rename", lambda life: life.rename(AWAY, MOVED), _renamed),
    publish('{"n": 2}'),
    entry_step("increment again", HOME, lambda ks: ks.increment("count", 4), count="5"),
    life_step("delete address", lambda life: life.delete(MOVED), _deleted),
    entry_step("clear", HOME, lambda ks: ks.clear("many"), **dict.fromkeys(_many(0))),
)


def states() -> list[State]:
    """The state before the first step, after it, after the second one, and so on."""
    found = [State()]
    for step in STEPS:
        found.append(step.effect(found[-1]))
    return found


def possible(acknowledged: int, beginning: int | None = None) -> list[State]:
    """What a crash may leave: all acknowledged steps, or the one in progress too, or its half.

    `beginning` is the first step that may be missing, where acknowledged ones may be (relaxed durability).
    """
    whole = states()
    found = whole[acknowledged if beginning is None else beginning : acknowledged + 2]
    for number in range(acknowledged if beginning is None else beginning, min(acknowledged + 1, len(STEPS))):
        halfway = STEPS[number].halfway
        if halfway is not None:
            found.append(halfway(whole[number]))
    return found


def shortened(state: State) -> str:
    """A state that fits into a message."""
    return str(state).replace(BIG, "BIG").replace(" " * 100, "")


def observe(root: str) -> State:
    """Read the whole state of a root, as a user would."""
    addresses: dict[Address, Entries] = {}
    for address in (HOME, AWAY, MOVED):
        shot = OneShot(root, address)
        with shot as keystore:
            if shot.exists():
                keys = run(keystore.list_keys())
                addresses[address] = {key: run(keystore.get(key)) for key in keys}
    return State(addresses, _config(root))


def _config(root: str) -> str | None:
    try:
        with open_root(root, REGISTRY) as folder:
            if folder.check_file(CONFIG_FILE) is None:
                return None
            fd = os.open(CONFIG_FILE, os.O_RDONLY, dir_fd=folder.fd)
    except FileNotFoundError:
        return None
    with open(fd, encoding="utf-8") as file:
        return file.read()


def main(root: str, durability: str = "full") -> None:
    """Do every step; its number on a line of stdout is the acknowledgement.

    A step that fails by an error of ours ends the list: its type goes to stdout, and then this same process must still
    be able to read, and to write elsewhere unless that fails by an error of ours too.
    """
    # An idle reader keeps the log alive, as other processes do: without one, closing after each step syncs everything.
    try:
        with OneShot(root, HOME) as keystore:
            for number, step in enumerate(STEPS, 1):
                step.act(root, durability)
                os.write(1, b"%d\n" % number)
                run(keystore.get("one"))
    except ProntoError as error:
        os.write(1, f"error {type(error).__name__}\n".encode())
        go_on(root)


def go_on(root: str) -> None:
    """Read everything and write once more, after a failure."""
    try:
        observe(root)
        with OneShot(root, SPARE) as keystore:
            run(keystore.set("again", "1"))
    except ProntoError as error:
        os.write(1, f"again {type(error).__name__}\n".encode())
    else:
        os.write(1, b"again ok\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
