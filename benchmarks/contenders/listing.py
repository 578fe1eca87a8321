"""Which contenders there are, by the names that `--against` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.contenders import agents, peers, pronto, redis_server, slug, sqlite

if TYPE_CHECKING:
    from benchmarks.contenders import Contender

CONTENDERS: dict[str, type[Contender]] = {
    slug(kind.name): kind
    for kind in (
        pronto.Pronto,
        pronto.ProntoShared,
        pronto.ProntoRelaxed,
        sqlite.Raw,
        sqlite.RawRelaxed,
        sqlite.AiosqliteCommitEach,
        sqlite.AiosqliteRelaxed,
        sqlite.AiosqliteNaive,
        peers.Diskcache,
        peers.Lmdb,
        peers.Rocksdict,
        peers.RocksdictSynced,
        peers.Sqlitedict,
        agents.PyKeyValueDisk,
        agents.PyKeyValueRocksdb,
        agents.PyKeyValueFiletree,
        agents.Agentfs,
        agents.Langgraph,
        redis_server.RedisAlways,
        redis_server.RedisEverysec,
    )
}
