"""The sources that the migration is measured on: what they say must become of each row is what does."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.old_sources import FORMATS
from benchmarks.scenarios.migration import check
from tests.migrating import migrated


@pytest.mark.parametrize("name", FORMATS)
def test_a_made_up_source_has_the_fates_that_it_says(root: Path, tmp_path: Path, name: str) -> None:
    path, expected = FORMATS[name].make(tmp_path / "source", 1_000)
    report = migrated(root, path).as_dict()
    check(report, expected)
    for wrong in ({"migrated": expected.migrated + 1}, {"reasons": [{"reason": "few_parts", "rows": 99}]}, {"read": 9}):
        with pytest.raises(RuntimeError, match="otherwise than expected"):
            check(report | wrong, expected)
