"""The victim of the migration tests: one migration into one root.

`python tests/crash/migration_worker.py ROOT SOURCE SCRATCH`
"""

import sys
from pathlib import Path

from tests.migrating import migrated


def main(root: str, source: str, scratch: str) -> None:
    """Migrate and say so."""
    report = migrated(Path(root), Path(source), scratch=Path(scratch))
    print(report.migrated, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main(*sys.argv[1:])
