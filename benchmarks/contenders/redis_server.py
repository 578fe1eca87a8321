"""A Redis server that the benchmark starts and stops: no configuration of anybody, a socket in its own folder."""

from __future__ import annotations

import asyncio
import os
import time
from importlib import import_module
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.contenders import Contender, Durability, Promise

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECTIONS = 50
"""Of the client's pool, its default; tasks that find none free wait for one."""
START_S = 30.0
STOP_S = 30.0
LOOK_S = 0.01
SOCKET, LOG = "redis.sock", "redis.log"
DESCRIPTORS = Path("/proc/self/fd")
HAS_DESCRIPTORS = DESCRIPTORS.exists()
CONFIGURATION = """\
port 0
unixsocket {socket}
unixsocketperm 700
appendonly yes
appendfsync {appendfsync}
save ""
logfile {log}
"""
"""Snapshots are off, in its favour: what it keeps, it keeps in its log."""


class RedisAlways(Contender):
    """Every set waits for the server's log to be synced; sets that come together share a sync."""

    name = "redis, appendfsync always"
    is_async = True
    appendfsync: ClassVar[str] = "always"
    promise = Promise(survives=Durability.POWER_LOSS, notes=("a server process beside ours",))
    needs = ("redis",)
    programs = ("redis-server",)

    def __init__(self) -> None:
        self._folder: int | None = None
        self._server: asyncio.subprocess.Process | None = None
        self._client: Any = None

    async def open(self, folder: Path) -> None:
        redis = import_module("redis.asyncio")
        # The name of a socket has 107 bytes at most, and folders of tests are long.
        self._folder = os.open(folder, os.O_RDONLY)
        path = str((DESCRIPTORS / str(self._folder) if HAS_DESCRIPTORS else folder) / SOCKET)
        pool = redis.BlockingConnectionPool(
            connection_class=redis.UnixDomainSocketConnection,
            path=path,
            max_connections=CONNECTIONS,
            timeout=None,
            decode_responses=True,
        )
        self._client = redis.Redis.from_pool(pool)
        self.get, self.set = self._client.get, self._client.set
        try:
            self._server = await self._started(folder)
            await _listening(self._server, path, folder)
            await self._client.ping()  # it asks again while the server reads its log
        except BaseException:
            await self.close()
            raise

    async def _started(self, folder: Path) -> asyncio.subprocess.Process:
        # A server that a killed benchmark left behind would disturb whatever is measured next.
        guard = ("setpriv", "--pdeathsig", "KILL") if which("setpriv") else ()
        server = await asyncio.create_subprocess_exec(
            *guard,
            *("redis-server", "-"),
            cwd=folder,
            process_group=0,  # a terminal's Ctrl-C reaches us alone
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert server.stdin is not None
        server.stdin.write(CONFIGURATION.format(socket=SOCKET, log=LOG, appendfsync=self.appendfsync).encode())
        server.stdin.close()
        return server

    async def fill(self, pairs: Sequence[tuple[str, str]]) -> None:
        await self._client.mset(dict(pairs))

    async def close(self) -> None:
        await self._client.aclose()
        if self._server is not None and self._server.returncode is None:
            self._server.terminate()
            try:
                await asyncio.wait_for(self._server.wait(), STOP_S)
            except TimeoutError:
                self._server.kill()
                await self._server.wait()
        if self._folder is not None:
            os.close(self._folder)


class RedisEverysec(RedisAlways):
    """The server's log is synced once a second, behind the sets."""

    name = "redis, appendfsync everysec"
    appendfsync = "everysec"
    promise = Promise(
        survives=Durability.PROCESS_CRASH,
        notes=(
            "a server process beside ours",
            "a crash of the server may lose what came during a sync of its log",
        ),
    )


async def _listening(server: asyncio.subprocess.Process, path: str, folder: Path) -> None:
    """Wait until the server takes connections; raises with its own last words when it does not."""
    until = time.monotonic() + START_S
    while True:
        try:
            _, writer = await asyncio.open_unix_connection(path)
        except OSError:
            if server.returncode is not None or time.monotonic() > until:
                log = folder / LOG
                said = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
                raise RuntimeError(f"redis-server did not start: {said[-1] if said else 'it said nothing'}") from None
            await asyncio.sleep(LOOK_S)
        else:
            writer.close()
            return
