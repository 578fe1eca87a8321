"""Tokens at a root: what they allow, how they end, and who the journal says they came from."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from prontodb import tokens
from prontodb.errors import DeniedError, InvalidInputError, InvalidTokenError, InvalidTtlError
from prontodb.model import macaroon
from prontodb.model import token as token_model
from prontodb.model.access import ADMIN, READ, WRITE, Grant
from prontodb.model.clock import ManualClock
from prontodb.model.layout import Layout
from prontodb.registry import secret
from tests.access import authors, no_principal, opened, rule
from tests.managing import until
from tests.parts import Parts, fill, value

__all__ = ["no_principal"]  # the fixture, which every test here uses too


async def minted(root: Path, address: str = "agent/prod", **what: object) -> str:
    async with opened(root, "operator") as manager:
        return await manager.access.mint(address, **{"rights": "read,write", **what})  # type: ignore[arg-type]


@pytest.fixture
def filled(root: Path) -> Path:
    fill(root, "agent/prod", {"a.k": "1", "b.k": "1"})
    fill(root, "agent/test", {"a.k": "1"})
    return root


async def test_a_token_allows_what_it_says_and_rules_add_nothing(filled: Path) -> None:
    rule(filled, Grant("agent", "*", "", "read,write,admin"))
    token = await minted(filled, prefix="a.")
    async with opened(filled, "agent") as manager:
        async with manager.session("agent", "prod", token=token) as ks:
            assert await ks.get("a.k") == "1"
            await ks.set("a.k", "2")
            for call in (ks.get("b.k"), ks.set("b.k", "2"), ks.count(), ks.list_keys("b.")):
                with pytest.raises(DeniedError) as caught:
                    await call
                assert (caught.value.by_token, caught.value.principal) == (True, "operator")
        # Whoever opened the manager keeps what they may do.
        assert await manager.delete("agent/test")
    assert value(filled, "agent/prod", "b.k") == "1"


async def test_without_rules_a_token_is_kept_to_all_the_same(filled: Path) -> None:
    token = await minted(filled, rights="read", prefix="a.")
    async with opened(filled, token=token) as manager:
        async with manager.session("agent", "prod", mode="read") as ks:
            assert await ks.get("a.k") == "1"
            with pytest.raises(DeniedError):
                await ks.get("b.k")
        for refused in (
            manager.session("agent", "prod"),
            manager.session("agent", "test", mode="read"),
            manager.session("agent", "none", mode="read"),
        ):
            with pytest.raises(DeniedError):
                async with refused:
                    pass
        for call in (
            manager.create("agent/x"),
            manager.delete("agent/prod"),
            manager.backup(),
            manager.sweep(),
            manager.describe("agent/prod"),
            manager.access.add("x", "*", "admin"),
            manager.access.mint("agent/prod", by="x"),
            manager.access.revoke("agent/prod"),
        ):
            with pytest.raises(DeniedError):
                await call
        assert [str(row.address) for row in await manager.addresses()] == ["agent/prod"]


async def test_an_admin_token_is_no_way_to_more(filled: Path) -> None:
    rule(filled)
    token = await minted(filled, rights="read,write,admin", expires="1h")
    async with opened(filled, token=token) as manager:
        await manager.keep_history("agent/prod")
        for call in (
            manager.access.mint("agent/prod", by="x", expires="1000d"),
            manager.access.add("x", "agent/prod", "admin"),
            manager.rename("agent/prod", "agent/y"),
            manager.restore(user="agent", cursor="test", to="agent/prod"),
            manager.copy("agent/test", "agent/prod"),
        ):
            with pytest.raises(DeniedError):
                await call
        assert await manager.access.revoke("agent/prod") == 1
        with pytest.raises(DeniedError, match="revoked"):
            await manager.keep_history("agent/prod")


async def test_the_environment_shows_a_token(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = await minted(filled, prefix="a.")
    monkeypatch.setenv("PRONTODB_TOKEN", token)
    async with opened(filled) as manager, manager.session("agent", "prod") as ks:
        await ks.set("a.k", "2")
        with pytest.raises(DeniedError):
            await ks.set("b.k", "2")
    for broken in ("rubbish", token[:-4], token.swapcase()):
        monkeypatch.setenv("PRONTODB_TOKEN", broken)
        async with opened(filled) as manager:
            with pytest.raises(DeniedError) as caught:
                await manager.describe("agent/prod")
            assert broken not in str(caught.value)


async def test_a_narrowed_token_allows_less_and_the_journal_names_the_chain(filled: Path) -> None:
    token = await minted(filled)
    lesser = tokens.narrow(token, prefix="a.", by="planner")
    least = tokens.narrow(lesser, rights=["read"], expires="5m", by="sub1")
    assert tokens.describe(least).issuers == "operator>planner>sub1"
    async with opened(filled) as manager:
        async with manager.session("agent", "prod", token=lesser) as ks:
            await ks.set("a.k", "2")
            written = ks.session_id
            await ks.increment("a.n")
        async with manager.session("agent", "prod", mode="read", token=least) as ks:
            assert await ks.get("a.k") == "2"
            with pytest.raises(DeniedError, match="token of operator>planner>sub1"):
                await ks.get("b.k")
    assert set(authors(filled, "agent/prod")[2:]) == {f"{written} via operator>planner"}


async def test_a_forged_token_is_denied_before_its_address_is_looked_at(filled: Path) -> None:
    token = token_model.parse(await minted(filled, prefix="a."))
    longer = token.with_caveat(b"by = x")
    said = set()
    for address in ("agent/prod", "agent/none"):
        identifier = (
            token_model.Identifier(token_model.identifier_of(token).address, "ab" * 16, 0, "cd" * 16)
            .encode()
            .replace(b"agent/prod", address.encode())
        )
        for forged in (
            type(token)(identifier, token.caveats, token.signature),
            type(token)(token.identifier, token.caveats[:1], token.signature),
            type(token)(token.identifier, longer.caveats[::-1], longer.signature),
            macaroon.made(b"guessed", token.identifier),
        ):
            async with opened(filled, token=token_model.text_of(forged)) as manager:
                with pytest.raises(DeniedError) as caught:
                    await manager.describe(address)
                said.add(caught.value.reason)
    assert said == {"it was changed, or another root minted it"}


async def test_another_root_takes_no_token_of_this_one(filled: Path, tmp_path: Path) -> None:
    token = await minted(filled)
    other = tmp_path / "other"
    fill(other, "agent/prod", {"a.k": "1"})
    for _ in range(2):
        async with opened(other, token=token) as manager:
            with pytest.raises(DeniedError, match="another root minted it"):
                await manager.describe("agent/prod")
        await minted(other)  # so that it has a secret of its own


async def test_a_token_of_a_former_keystore_is_none(filled: Path) -> None:
    token = await minted(filled)
    async with opened(filled, "operator") as manager:
        await manager.backup()
        await manager.restore(user="agent", cursor="prod")
        with pytest.raises(DeniedError, match="restored or made anew"):
            async with manager.session("agent", "prod", token=token):
                pass
        fresh = await manager.access.mint("agent/prod", rights="read,write")
        await manager.delete("agent/prod")
        with pytest.raises(DeniedError, match="deleted"):
            async with manager.session("agent", "prod", token=fresh):
                pass


async def test_tokens_end_with_the_secret_they_were_made_from(filled: Path) -> None:
    token = await minted(filled)
    (filled / "keys" / "tokens.json").unlink()
    async with opened(filled, token=token) as manager:
        with pytest.raises(DeniedError, match="another root minted it"):
            await manager.describe("agent/prod")
    (filled / "keys" / "tokens.json").touch(mode=0o600)
    async with opened(filled, token=token) as manager:
        with pytest.raises(Exception, match=r"tokens\.json"):
            await manager.describe("agent/prod")


# The end of a token


async def test_a_token_expires_between_two_operations_and_for_good(filled: Path) -> None:
    clock = ManualClock()
    async with opened(filled, "operator", clock=clock) as manager:
        token = await manager.access.mint("agent/prod", rights="read,write", expires=60)
        async with manager.session("agent", "prod", token=token) as ks:
            clock.advance(59.9)
            await ks.set("a.k", "2")
            assert await ks.get("a.k") == "2"
            clock.advance(0.1)
            for call in (ks.get("a.k"), ks.set("a.k", "3"), ks.count()):
                with pytest.raises(DeniedError, match="has expired"):
                    await call
            clock.advance(-3_600)
            with pytest.raises(DeniedError, match="has expired"):
                await ks.get("a.k")
        clock.advance(7_200)
        with pytest.raises(DeniedError, match="has expired"):
            async with manager.session("agent", "prod", token=token):
                pass
    assert value(filled, "agent/prod", "a.k") == "2"


async def test_revoking_refuses_the_next_write_of_an_open_session_and_soon_its_reads(filled: Path) -> None:
    token = await minted(filled)
    async with opened(filled, "operator") as manager:
        async with (
            manager.session("agent", "prod", mode="shared", token=tokens.narrow(token, by="sub")) as held,
            manager.session("agent", "prod", mode="shared") as other,
        ):
            await held.set("a.k", "2")
            assert await manager.access.revoke("agent/prod") == 1
            with pytest.raises(DeniedError, match="revoked"):
                await held.set("a.k", "3")
            gate = held._gate
            assert gate is not None
            await until(lambda: not gate._prefixes[READ])
            with pytest.raises(DeniedError, match="revoked"):
                await held.get("a.k")
            await other.set("a.k", "4")
        fresh = await manager.access.mint("agent/prod", rights="read,write")
        async with manager.session("agent", "prod", token=fresh) as ks:
            assert await ks.get("a.k") == "4"
        with pytest.raises(DeniedError, match="revoked"):
            async with manager.session("agent", "prod", token=token):
                pass


async def test_revoking_reaches_an_exclusive_session_of_another_manager(filled: Path) -> None:
    token = await minted(filled)
    async with opened(filled, token=token) as manager, manager.session("agent", "prod") as ks:
        await ks.set("a.k", "2")
        await ks.get("a.k")
        async with opened(filled, "operator") as operator:
            await operator.access.revoke("agent/prod")
        with pytest.raises(DeniedError, match="revoked"):
            await ks.increment("a.n")
        # Its upkeep is the root's own, and goes on.
        [live] = manager._live.exclusive()
        assert live.upkeep.token_epoch is None
        assert await live.keyspace.sweep(10, live.upkeep) == 0


async def test_a_revoked_write_takes_nobody_elses_with_it(filled: Path) -> None:
    """Writers of one address share commits; each is judged by its own token."""
    token = await minted(filled)
    async with (
        opened(filled, "operator") as manager,
        manager.session("agent", "prod", mode="shared", token=token) as held,
        manager.session("agent", "prod", mode="shared") as other,
    ):
        await manager.access.revoke("agent/prod")
        refused = []

        async def write(number: int) -> None:
            with pytest.raises(DeniedError):
                await held.set(f"a.{number}", "x")
            refused.append(number)

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(write, number)
                tasks.start_soon(other.set, f"b.{number}", "x")
        assert len(refused) == 10
        assert len(await other.list_keys("b.")) == 11
        assert await other.list_keys("a.") == ["a.k"]


async def test_what_was_revoked_never_comes_back(filled: Path) -> None:
    """Neither undo, nor an older backup, nor a rename: they bring back a keystore that knows of no revocation."""
    async with opened(filled, "operator") as manager:

        async def allows(token: str) -> bool:
            try:
                async with manager.session("agent", "prod", token=token) as ks:
                    await ks.set("a.k", "2")
            except DeniedError:
                return False
            return True

        old = await minted(filled)
        assert await allows(old)
        await manager.backup()
        await manager.restore(user="agent", cursor="prod")
        await manager.access.revoke("agent/prod")
        await manager.undo_restore("agent/prod")
        assert not await allows(old)
        fresh = await manager.access.mint("agent/prod", rights="read,write")
        assert await allows(fresh)
        assert not await allows(old)
        # Two behind the last epoch, and the other one behind that.
        await manager.access.revoke("agent/prod")
        await manager.undo_restore("agent/prod", redo=True)
        await manager.undo_restore("agent/prod")
        assert not await allows(old)
        assert not await allows(fresh)

        away = await manager.access.mint("agent/prod", rights="read,write")
        await manager.rename("agent/prod", "agent/away")
        await manager.create("agent/prod")
        await manager.access.revoke("agent/prod")
        await manager.delete("agent/prod")
        await manager.rename("agent/away", "agent/prod")
        assert not await allows(away)
        assert await allows(await manager.access.mint("agent/prod", rights="read,write"))


async def test_what_was_revoked_never_comes_back_with_an_epoch_from_another_address(filled: Path) -> None:
    async with opened(filled, "operator") as manager:
        await manager.access.mint("agent/test")  # from the first token on revocations are remembered
        for _ in range(3):
            await manager.access.revoke("agent/test")
        await manager.rename("agent/prod", "agent/away")
        await manager.rename("agent/test", "agent/prod")
        token = await manager.access.mint("agent/prod", rights="read,write")
        async with manager.session("agent", "prod", token=token) as ks:
            await ks.set("a.k", "2")
        await manager.rename("agent/prod", "agent/test")
        await manager.rename("agent/away", "agent/prod")
        await manager.access.revoke("agent/prod")
        await manager.rename("agent/prod", "agent/away")
        await manager.rename("agent/test", "agent/prod")
        with pytest.raises(DeniedError, match="revoked"):
            async with manager.session("agent", "prod", token=token):
                pass


# Minting


async def test_minting_takes_admin_at_the_address(filled: Path) -> None:
    rule(filled, Grant("lead", "agent/*", "", "admin"), Grant("agent", "agent/*", "", "read,write"))
    async with opened(filled, "lead") as manager:
        claims = tokens.describe(await manager.access.mint("agent/prod", rights=[READ, WRITE, ADMIN]))
        assert (claims.issuers, claims.rights) == ("lead", (READ, WRITE, ADMIN))
    for principal in ("agent", None):
        async with opened(filled, principal) as manager:
            for address in ("agent/prod", "agent/none"):
                with pytest.raises(DeniedError):
                    await manager.access.mint(address, by="agent")


async def test_what_cannot_be_minted_is_refused(filled: Path) -> None:
    async with opened(filled) as manager:
        with pytest.raises(InvalidInputError, match="by=NAME"):
            await manager.access.mint("agent/prod")
        with pytest.raises(InvalidTtlError):
            await manager.access.mint("agent/prod", by="x", expires="never")
        with pytest.raises(InvalidTokenError):
            await manager.access.mint("agent/prod", by="x", prefix="a.", rights="admin")
        with pytest.raises(InvalidInputError, match="not int"):
            async with manager.session("agent", "prod", token=5):  # type: ignore[arg-type]
                pass
    layout = Layout(str(filled))
    parts = Parts(filled)
    with pytest.raises(tokens.RefusedError):
        tokens.verify(layout, "pdb1.", parts.clock)
    assert secret.load(layout) is not None
