"""Chains: which pieces make up the state of an address, and that nothing but a whole chain is put together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prontodb.backup.chain import Chains, Link, put_together, rows_before
from prontodb.backup.container import Container, Listing
from prontodb.backup.manifest import Manifest
from prontodb.engine.sqlite.digest import hashes_of
from prontodb.engine.sqlite.snapshot import open_copy
from prontodb.errors import BackupNotFoundError, CorruptError
from tests.backups import Root, all_rows, edited, rehashed, state_at
from tests.unit.backup.test_manifest import manifest, piece
from tests.unit.stores import done

IDS = [f"2026112{n}T000000Z-0000000{n}" for n in range(9)]


def chains(*manifests: Manifest) -> Chains:
    return Chains.of(Listing(manifests, ()))


def base(*addresses: str, number: int = 0) -> Manifest:
    return manifest(*(piece(address, revision=1) for address in addresses), id=IDS[number])


def step(number: int, *addresses: str, on: int | None = None, gone: tuple[str, ...] = (), **facts: Any) -> Manifest:
    """The incremental backup `number`, each piece going on from the one before it."""
    parent = IDS[number - 1 if on is None else on]
    own = [piece(one, kind="segment", parent=parent, since=number, revision=number + 1) for one in addresses]
    return manifest(*own, id=IDS[number], parent=parent, gone=gone, **facts)


def tips(found: Chains, number: int) -> dict[str, str]:
    return {address: link.backup for address, link in found.tips(IDS[number]).items()}


# By the manifests alone


def test_a_line_goes_back_to_the_full_backup() -> None:
    found = chains(base("a/x"), step(1, "a/x"), step(2, "a/x"))
    assert [one.id for one in found.line(IDS[2])] == [IDS[2], IDS[1], IDS[0]]


def test_the_newest_piece_of_each_address_is_its_tip() -> None:
    found = chains(base("a/x", "a/y", "a/z"), step(1, "a/x", "a/y"), step(2, "a/x"))
    assert tips(found, 2) == {"a/x": IDS[2], "a/y": IDS[1], "a/z": IDS[0]}
    assert tips(found, 1) == {"a/x": IDS[1], "a/y": IDS[1], "a/z": IDS[0]}
    assert tips(found, 0) == dict.fromkeys(("a/x", "a/y", "a/z"), IDS[0])


def test_an_address_that_is_gone_has_no_state_until_it_comes_again() -> None:
    again = manifest(piece("a/x"), id=IDS[3], parent=IDS[2])
    found = chains(base("a/x", "a/y"), step(1, "a/x"), step(2, gone=("a/x",)), again)
    assert tips(found, 1)["a/x"] == IDS[1]
    assert tips(found, 2) == {"a/y": IDS[0]}
    assert tips(found, 3) == {"a/x": IDS[3], "a/y": IDS[0]}


def test_an_address_that_could_not_be_read_keeps_its_last_state() -> None:
    found = chains(base("a/x"), step(1, failed=(("a/x", "damaged"),)))
    assert tips(found, 1) == {"a/x": IDS[0]}


def test_links_go_back_to_the_snapshot_past_backups_that_have_none() -> None:
    skipping = manifest(piece("a/x", kind="segment", parent=IDS[0], since=1, revision=9), id=IDS[2], parent=IDS[1])
    found = chains(base("a/x", "a/y"), step(1, "a/y"), skipping)
    assert [link.backup for link in found.links(found.tips(IDS[2])["a/x"])] == [IDS[0], IDS[2]]


@pytest.mark.parametrize("missing", [0, 1])
def test_a_backup_that_others_build_on_is_named_when_it_is_not_there(missing: int) -> None:
    whole = [base("a/x"), step(1, "a/x"), step(2, "a/x")]
    del whole[missing]
    with pytest.raises(CorruptError, match=IDS[missing]):
        chains(*whole).tips(IDS[2])


def test_backups_that_build_on_each_other_in_a_circle_are_refused() -> None:
    with pytest.raises(CorruptError, match="builds on itself"):
        chains(step(1, on=2), step(2, on=1)).line(IDS[1])
    with pytest.raises(CorruptError, match="builds on itself"):
        chains(step(1, on=1)).tips(IDS[1])


def test_pieces_that_build_on_each_other_in_a_circle_are_refused() -> None:
    own = manifest(piece("a/x", kind="segment", parent=IDS[1], since=3, revision=3), id=IDS[1], parent=IDS[0])
    found = chains(base("a/x"), own)
    with pytest.raises(CorruptError, match="does not hold"):
        found.links(found.tips(IDS[1])["a/x"])


def test_a_piece_that_goes_on_from_another_revision_than_is_there_is_refused() -> None:
    found = chains(base("a/x"), step(2, "a/x", on=0))
    with pytest.raises(CorruptError, match="does not hold"):
        found.links(found.tips(IDS[2])["a/x"])
    found = chains(base("a/y"), step(1, "a/x"))
    with pytest.raises(CorruptError, match="does not hold"):
        found.links(found.tips(IDS[1])["a/x"])


# With files


class Chain:
    """A full backup and three increments of one address, and what it held at each."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.states: list[dict[str, Any]] = []
        self.folders: list[Path] = []
        keystore = root.at("a/x")
        for values in ({f"k{n}": str(n) for n in range(8)}, {"k1": "one", "new": "1"}, {}, {"k2": "two", "k3": "3"}):
            done(keystore.set_many(values) if values else keystore.delete_many(["k1", "k2"]))
            self.folders.append(Path(root.backup().path or ""))
            self.states.append(root.state("a/x"))

    @property
    def container(self) -> Container:
        return self.root.container

    def links(self, number: int = 3) -> tuple[Link, ...]:
        found = Chains.of(self.container.list())
        return found.links(found.tips(self.folders[number].name)["a/x"])

    def built(self, number: int = 3, **options: Any) -> dict[str, Any]:
        links = self.links(number)
        with self.container.scratch() as folder:
            put_together(self.container, links, folder, "keystore.db", **options)
            copy = open_copy(f"{folder.path}/keystore.db")
            try:
                return all_rows(copy)
            finally:
                copy.close()


@pytest.fixture
def chain(root: Path) -> Iterator[Chain]:
    opened = Root(root)
    yield Chain(opened)
    opened.close()


def test_the_state_at_every_link_is_put_together_again(chain: Chain) -> None:
    assert [chain.built(number) for number in range(4)] == chain.states
    assert len({str(state["entries"]) for state in chain.states}) == 4


def test_each_link_is_told_of(chain: Chain) -> None:
    seen: list[Link] = []
    chain.built(2, each=seen.append)
    assert tuple(seen) == chain.links(2)


def test_rows_before_are_those_at_the_end_of_the_chain(chain: Chain) -> None:
    keys = [f"k{n}" for n in range(9)] + ["new", "never"]
    for number in range(4):
        found = rows_before(chain.container, chain.links(number), keys)
        links = chain.links(number)
        with chain.container.scratch() as folder:
            put_together(chain.container, links, folder, "keystore.db")
            copy = open_copy(f"{folder.path}/keystore.db")
            try:
                assert found == hashes_of(copy, keys)
            finally:
                copy.close()
    assert rows_before(chain.container, chain.links(), []) == {}


def test_a_chain_whose_link_is_left_out_is_not_put_together(chain: Chain) -> None:
    links = chain.links()
    for at in range(1, 3):
        with chain.container.scratch() as folder, pytest.raises(CorruptError, match="does not go on"):
            put_together(chain.container, (*links[:at], *links[at + 1 :]), folder, "keystore.db")


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_file_that_is_not_as_it_was_written_is_refused_and_named(chain: Chain, number: int) -> None:
    name = chain.links()[number].piece.file
    data = bytearray((chain.folders[number] / name).read_bytes())
    data[len(data) // 2] ^= 1
    (chain.folders[number] / name).write_bytes(data)
    with pytest.raises(CorruptError, match=chain.folders[number].name):
        chain.built()
    (chain.folders[number] / name).unlink()
    with pytest.raises(CorruptError, match=f"{name} is missing"):
        chain.built()


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_backup_that_is_pruned_meanwhile_is_not_called_damaged(chain: Chain, number: int) -> None:
    links = chain.links()
    with chain.container.hold("test", 0):
        chain.container.remove(chain.folders[number].name)
    with chain.container.scratch() as folder, pytest.raises(BackupNotFoundError):
        put_together(chain.container, links, folder, "keystore.db")


@pytest.mark.parametrize(
    "facts", [{"digest": "00" * 32}, {"entries": 1}, {"revision": 77}, {"chain": "00" * 16}, {"incarnation": "00" * 16}]
)
@pytest.mark.parametrize("number", [0, 3])
def test_a_manifest_that_says_another_state_than_its_file_makes_is_found_out(
    chain: Chain, number: int, facts: dict[str, Any]
) -> None:
    edited(chain.folders[number] / "manifest.json", lambda found: found["pieces"][0].update(facts))
    with pytest.raises(CorruptError):
        chain.built(number)


def test_a_segment_of_another_address_is_refused_though_it_would_fit(chain: Chain) -> None:
    done(chain.root.at("a/y").set_many({"k": "v"}))
    chain.root.full()
    done(chain.root.at("a/x").set("k7", "1"))
    done(chain.root.at("a/y").set("k7", "1"))
    folder = Path(chain.root.backup().path or "")
    rehashed(folder, "a@x.jsonl.zst", (folder / "a@y.jsonl.zst").read_bytes())
    found = Chains.of(chain.container.list())
    with chain.container.scratch() as scratch, pytest.raises(CorruptError):
        put_together(chain.container, found.links(found.tips(folder.name)["a/x"]), scratch, "keystore.db")


def test_nothing_that_is_put_together_depends_on_the_live_keystore(chain: Chain, root: Path) -> None:
    done(chain.root.at("a/x").clear("k"))
    assert state_at(root, "a/x") != chain.states[3]
    assert chain.built() == chain.states[3]
