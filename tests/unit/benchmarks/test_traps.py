"""The traps of measuring a store: each is shown here, so that nobody walks into it again."""

import asyncio
from pathlib import Path

import pytest

from benchmarks.contenders.sqlite import UPSERT, AiosqliteCommitEach, AiosqliteNaive, connect
from benchmarks.workload import Workload


def test_an_upsert_of_identical_bytes_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "raw.db"
    connection = connect(path)

    def log_grows_by(key: str, value: str) -> int:
        before = Path(f"{path}-wal").stat().st_size
        connection.execute(UPSERT, (key, value, 1)).close()
        return Path(f"{path}-wal").stat().st_size - before

    assert log_grows_by("key", "one") > 0
    assert log_grows_by("key", "one") == 0
    assert log_grows_by("key", "two") > 0
    connection.close()


@pytest.mark.parametrize("characters", [20, 1_000, 1_000_000])
def test_a_workload_never_repeats_a_value_of_any_size(characters: int) -> None:
    workload = Workload(3, characters=characters)
    assert len({workload.value() for _ in range(50)}) == 50


@pytest.mark.parametrize(("kind", "kept"), [(AiosqliteNaive, None), (AiosqliteCommitEach, "value")])
async def test_a_rollback_of_one_task_discards_what_another_wrote_through_a_shared_transaction(
    tmp_path: Path, kind: type[AiosqliteNaive | AiosqliteCommitEach], kept: str | None
) -> None:
    store = kind()
    await store.open(tmp_path)
    # Both calls of the connection's thread come in this order: the first task's insert, the other's rollback.
    await asyncio.gather(store.set("key", "value"), store.db.rollback())
    assert await store.get("key") == kept
    await store.close()
