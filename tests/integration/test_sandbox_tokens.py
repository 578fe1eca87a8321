"""Tokens and secrets in a sandboxed run: what the run was started with holds inside, and opens nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from prontodb.model.access import Grant
from tests.access import opened, rule
from tests.integration.test_run import ran, run
from tests.integration.test_sandbox_use import possible
from tests.parts import fill, value

pytestmark = pytest.mark.plain("each names keys of its own, or none")
AT_HERE = "agent1/prod"


async def minted(root: Path, **what: str) -> str:
    async with opened(root, "operator") as manager:
        return await manager.access.mint(AT_HERE, by="operator", **({"rights": "read,write"} | what))


@possible
async def test_the_token_of_a_run_holds_inside_whatever_its_command_leaves_out(root: Path) -> None:
    fill(root, AT_HERE, {"app.k": "1", "own": "1"})
    rule(root, Grant("agent1", "agent1/*", "", "read,write,admin"))
    token, wider = await minted(root, prefix="app."), await minted(root)
    script = """
        exec 2>&1
        $P set app.k inside && $P get own
        env -u PRONTODB_TOKEN PRONTODB_PRINCIPAL=agent1 $P set own x
        export PRONTODB_TOKEN=$($P token narrow --rights read --by sub)
        $P get app.k && echo && $P set app.k y
        PRONTODB_TOKEN=$WIDER $P get own
        $P run --sandbox -- $P get own
        $P token mint agent1/prod
    """
    lines = run(root, script, "-q", "--sandbox", PRONTODB_TOKEN=token, WIDER=wider).stdout.splitlines()
    said = (
        "token of operator may not read", "token of operator may not write", "inside",
        "token of operator>sub may not write", "was started with another token or with none",
        "token of operator>sub may not", "a token names who issues it",
    )  # fmt: skip
    assert len(lines) == len(said), lines
    assert [(want, line) for want, line in zip(said, lines, strict=True) if want not in line] == []
    assert value(root, AT_HERE, "app.k") == "inside"
    assert value(root, AT_HERE, "own") == "1"


@possible
async def test_a_token_revoked_outside_ends_inside_and_one_shown_to_a_run_without_is_refused(root: Path) -> None:
    fill(root, AT_HERE, {"k": "1"})
    token = await minted(root)
    done = run(root, "PRONTODB_TOKEN=$SHOWN $P get k", "--sandbox", SHOWN=token)
    assert (done.returncode, done.stdout) == (1, "")
    assert "start 'prontodb run --sandbox' with the token" in done.stderr
    async with opened(root, "operator") as manager:
        await manager.access.revoke(AT_HERE)
    done = run(root, "echo started", "--sandbox", PRONTODB_TOKEN=token)
    assert (done.returncode, done.stdout) == (1, "")
    assert "revoked" in done.stderr


@possible
async def test_a_run_with_a_token_says_that_the_kernel_goes_by_the_address_alone(root: Path) -> None:
    fill(root, AT_HERE, {"app.k": "1", "own": "1"})
    done = run(root, "true", "--sandbox", PRONTODB_TOKEN=await minted(root, prefix="app."))
    assert done.returncode == 0
    assert "the token is asked by ProntoDB alone" in done.stderr


SECRETS = {
    "PRONTODB_PASSPHRASE": "hush",
    "PRONTODB_OTHER_PASSPHRASE": "hush",
    "PRONTODB_KEY_COMMAND": "echo hush",
    "PRONTODB_KEYRING": "hush",
}


@possible
@pytest.mark.parametrize("name", SECRETS)
def test_what_opens_the_roots_secrets_is_not_in_the_commands_environment(root: Path, name: str) -> None:
    fill(root, AT_HERE, {"k": "1"})
    done = run(root, "env; cat /proc/$PPID/environ", "--sandbox", **{name: SECRETS[name]})
    assert "PRONTODB_SANDBOX=" in done.stdout
    assert "hush" not in done.stdout
    assert run(root, "env", **{name: SECRETS[name]}).stdout.count("hush") == 1, "an ordinary run hands on all"


@possible
def test_the_key_file_beside_the_root_is_closed_and_what_lies_beside_it_is_not(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "note").write_text("open")
    key = folder / "key"
    assert ran(root, "secret", "make", str(key)).returncode == 0
    told = {"PRONTODB_KEY_FILE": str(key)}
    assert ran(root, "address", "create", AT_HERE, "--encrypt", **told).returncode == 0
    script = f"$P set k v; $P get k; cat {folder}/note; cat {key}; mv {key} {folder}/taken; cat {folder}/taken"
    done = run(root, script, "--sandbox", **told)
    assert done.stdout == "vopen"
    assert key.exists()
    for options in (("--sandbox", "--allow-read", str(key)), ("--strict", "--allow-write", str(folder))):
        done = run(root, "echo started", *options, **told)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.search(r"the key file '\S+/secrets/key', which stays closed", done.stderr)
        assert done.stderr.count("\n") == 1
