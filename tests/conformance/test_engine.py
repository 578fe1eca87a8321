"""What `Engine` promises (`prontodb/engine/protocol.py`), for every engine."""

import anyio
import pytest

from prontodb.errors import AddressExistsError, AddressNotFoundError, ProntoError
from prontodb.model.address import Address
from prontodb.model.operation import Fence, Op
from tests.conformance.conftest import HOME, Subject

ME = Fence("me")
OTHER = Address("agent", "other")


async def test_an_address_is_made_once(subject: Subject) -> None:
    assert await subject.engine.create(HOME)
    assert not await subject.engine.create(HOME)
    assert not await subject.another().create(HOME)


async def test_an_address_that_was_never_made_has_no_keyspace(subject: Subject) -> None:
    with pytest.raises(AddressNotFoundError):
        await subject.engine.keyspace(HOME)
    assert not await subject.engine.drop(HOME)
    assert await subject.engine.addresses(None, 10) == []


async def test_a_twin_that_differs_only_in_case_is_refused(subject: Subject) -> None:
    await subject.engine.create(HOME)
    for twin in (Address("Agent", "x"), Address("agent", "HOME")):
        with pytest.raises(AddressExistsError):
            await subject.engine.create(twin)
    assert await subject.engine.addresses(None, 10) == [HOME]


async def test_addresses_are_listed_in_order_and_in_pages(subject: Subject) -> None:
    made = sorted(Address(user, cursor) for user in ("b", "a-b", "a") for cursor in ("x", "x.y", "_default"))
    for address in reversed(made):
        await subject.engine.create(address)
    assert await subject.engine.addresses(None, 100) == made
    assert await subject.engine.addresses(None, 2) == made[:2]
    assert await subject.engine.addresses(made[4], 2) == made[5:7]
    assert await subject.engine.addresses(made[-1], 2) == []


async def test_addresses_share_nothing(subject: Subject) -> None:
    for address in (HOME, OTHER):
        await subject.engine.create(address)
    home, other = [await subject.engine.keyspace(address) for address in (HOME, OTHER)]
    await home.apply([Op("k", "home")], ME)
    assert await other.read(["k"]) == [None]
    assert (await other.position()).revision == 0
    assert (await home.position()).incarnation != (await other.position()).incarnation


async def test_a_dropped_address_is_gone_and_can_be_made_anew_empty(subject: Subject) -> None:
    await subject.engine.create(HOME)
    old = await subject.engine.keyspace(HOME)
    await old.apply([Op("k", "1")], ME)
    before = await old.position()
    assert await subject.engine.drop(HOME)
    assert not await subject.engine.drop(HOME)
    with pytest.raises(AddressNotFoundError):
        await subject.engine.keyspace(HOME)
    assert await subject.engine.create(HOME)
    new = await subject.engine.keyspace(HOME)
    assert await new.read(["k"]) == [None]
    assert (await new.position()).incarnation != before.incarnation


async def test_a_write_to_a_dropped_address_is_never_acknowledged(subject: Subject) -> None:
    await subject.engine.create(HOME)
    keyspace = await subject.engine.keyspace(HOME)
    await keyspace.apply([Op("k", "1")], ME)
    await subject.another().drop(HOME)
    with pytest.raises(ProntoError):
        await keyspace.apply([Op("k", "2")], ME)
    assert await subject.engine.addresses(None, 10) == []


async def test_many_makers_of_one_address_make_it_once(subject: Subject) -> None:
    made: list[bool] = []

    async def make(engine: object) -> None:
        made.append(await engine.create(HOME))  # type: ignore[attr-defined]

    others = [subject.engine, *(subject.another() for _ in range(3))]
    async with anyio.create_task_group() as tasks:
        for engine in others * 2:
            tasks.start_soon(make, engine)
    assert sorted(made) == [False] * 7 + [True]


async def test_closing_twice_does_no_harm(subject: Subject) -> None:
    await subject.engine.create(HOME)
    await (await subject.engine.keyspace(HOME)).apply([Op("k", "1")], ME)
    await subject.engine.close()
    await subject.engine.close()
    again = await subject.another().keyspace(HOME)
    assert (await again.read(["k"]))[0].value == "1"  # type: ignore[union-attr]
