"""`python -m prontodb`: the command line without its installed script."""

from __future__ import annotations

import sys

from prontodb.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
