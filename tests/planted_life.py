"""A whole life of a root with planted words, for the search through every byte that it leaves.

`python tests/planted_life.py PLACE KEY OLD [STEP]`: the root and all else it leaves lie below PLACE; with an empty KEY
nothing is encrypted; at the STEP named the process is killed, and its files lie as they were then.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prontodb.composition import open_manager
from prontodb.encryption.sources import KeyFile
from prontodb.model.settings import Settings
from tests.roots import CHECKOUT
from tests.sealed import KEY, VALUE

if TYPE_CHECKING:
    from prontodb.keystore import Keystore
    from prontodb.manager import SessionManager

STEPS = ("written", "backed up", "restored", "migrated", "commanded")
"""Where a kill can be asked for; each is met with a session open and its last words in the log alone."""


class Life:
    """One life; `reached` is called at each of STEPS."""

    def __init__(self, place: Path, key: Path | None, old: Path, last: str) -> None:
        self._root, self._second, self._elsewhere = place / "root", place / "second", place / "elsewhere"
        self._into, self._key, self._old, self._last = place / "into", key, old, last

    def _reached(self, step: str) -> None:
        print(step, flush=True)
        if step == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    async def lead(self) -> None:
        """Use everything that stores, copies, moves or removes what an address holds."""
        source = None if self._key is None else KeyFile(self._key)
        self._second.mkdir(mode=0o700)
        (self._root / "registry").mkdir(mode=0o700)
        config = self._root / "registry" / "global_config.json"
        config.write_text(json.dumps({"format": 1, "backups": {"second_place": str(self._second)}}))
        config.chmod(0o600)
        settings = Settings(durability="relaxed", encrypt_new=source is not None)
        async with open_manager(str(self._root), settings=settings, keys=source) as manager:
            await manager.create("agent1/prod")
            await manager.keep_history("agent1/prod")
            async with manager.session("agent1", "prod", labels={"purpose": "test"}) as ks:
                await self._write(ks)
                self._reached("written")
                await manager.backup(full=True)
                await ks.set(f"{KEY}.late", VALUE * 1_000)
                await manager.backup()
                await manager.backup(output=self._elsewhere, full=True)
                self._reached("backed up")
            await self._restore(manager)
            async with manager.session("agent1", "prod", mode="shared") as ks:
                await ks.set(f"{KEY}.shared", VALUE)
                self._reached("restored")
            await manager.migrate(self._old, mapping={"main/pronto.main.prdb": "agent1/prod"})
            async with manager.session("agent1", "prod") as ks:
                await ks.set(f"{KEY}.last", VALUE)
                self._reached("migrated")
            if source is not None:
                await manager.rekey("agent1/prod")
            for job in ("sweep", "backup-incremental", "verify", "prune", "reap", "compact"):
                await manager.run_job(job)
            await manager.doctor(deep=True, repair=True)
        self._command()
        self._reached("commanded")

    async def _write(self, ks: Keystore) -> None:
        await ks.set_many({f"{KEY}.{n}": f"{VALUE}{n}" for n in range(1_000)})
        await ks.set_namespace_ttl(KEY.partition(".")[0], "2h")
        await ks.set(f"{KEY}.brief", VALUE, ttl=0.001)
        await ks.compare_and_set(f"{KEY}.1", expected=f"{VALUE}1", value=f"{VALUE} swapped")
        assert not await ks.compare_and_set(f"{KEY}.1", expected=f"{VALUE} else", value=VALUE)
        async with ks.transaction() as tx:
            tx.set(f"{KEY}.tx", VALUE)
        await ks.delete(f"{KEY}.2")
        watch = ks.watch(KEY)
        await watch.start()
        await ks.set(f"{KEY}.seen", VALUE)
        assert (await anext(watch)).key == f"{KEY}.seen"

    async def _restore(self, manager: SessionManager) -> None:
        await manager.sweep()
        await manager.copy("agent1/prod", "agent2/copy")
        await manager.rename("agent2/copy", "agent3/moved")
        await manager.restore(user="agent1", cursor="prod")
        await manager.undo_restore("agent1/prod")
        await manager.restore(user="agent1", cursor="prod", to="agent4/look")
        await manager.delete("agent4/look")
        await manager.restore(str(self._elsewhere), user="agent1", cursor="prod", into=self._into)
        assert (await manager.verify()).is_whole
        assert (await manager.verify(str(self._elsewhere))).is_whole
        assert (await manager.verify_audit()).is_sound
        await manager.compact()

    def _command(self) -> None:
        """The same root from the command line: what it prints is not searched, what it leaves is."""
        names = ("--root", str(self._root), "--user", "agent1", "--cursor", "prod")
        known = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        if self._key is not None:
            known["PRONTODB_KEY_FILE"] = str(self._key)
        run = [sys.executable, "-m", "prontodb", *names]
        inner = [*run, "set", f"{KEY}.run", VALUE]
        for words in (
            ["set", f"{KEY}.cli", VALUE],
            ["get", f"{KEY}.cli"],
            ["cas", f"{KEY}.cli", "wrong", VALUE],
            ["run", "--", *inner],
            ["export"],
            ["backup", "create", "--full"],
        ):
            subprocess.run([*run, *words], env=known, cwd=CHECKOUT, stdout=subprocess.DEVNULL, check="cas" not in words)
        # Refused for want of the key, where there is one; logged.
        subprocess.run(inner, env=known | {"PRONTODB_KEY_FILE": ""}, cwd=CHECKOUT, check=False)


def main(place: str, key: str, old: str, last: str = "") -> None:
    """Lead a life."""
    life = Life(Path(place), Path(key) if key else None, Path(old), last)
    anyio.run(life.lead)


if __name__ == "__main__":
    main(*sys.argv[1:])
