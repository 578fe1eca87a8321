"""Where the command line begins, as `prontodb` and as `python -m prontodb`."""

from __future__ import annotations

import sys


def start() -> int:
    """Run the command line with the process's arguments; return its exit code."""
    try:
        from prontodb.cli.main import main

        return main()
    except KeyboardInterrupt:
        # While that was imported: from its first line on, `main` answers for itself.
        return 130


if __name__ == "__main__":
    sys.exit(start())
