"""The victim of the rekey tests: one change of the secret of an address.

`python tests/crash/reseal_worker.py ROOT KEY WHAT`
"""

import sys
from pathlib import Path

from prontodb.model.address import Address
from tests.backups import finished
from tests.parts import Parts
from tests.sealed import layout


def main(root: str, key: str, what: str) -> None:
    """Do it and say so."""
    from prontodb.engine.sqlite.resealing import Resealing

    parts = Parts(Path(root))
    parts.lifecycle.layout = layout(Path(root), Path(key))
    report = finished(Resealing(parts.lifecycle, parts.clock, Address.parse("a/x"), what).steps())
    print(report.encryption, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main(*sys.argv[1:])
