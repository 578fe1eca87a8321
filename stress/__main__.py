"""`python -m stress`."""

from __future__ import annotations

import sys


def start() -> int:
    """Run the harness; Ctrl-C during its imports is no traceback either."""
    try:
        from .command import main

        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(start())
