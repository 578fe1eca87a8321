"""The command line on an empty root, run in the test's own process."""

from pathlib import Path

import pytest

from tests.unit.cli.harness import Cli


@pytest.fixture
def cli(root: Path) -> Cli:
    """Commands at the default address of an empty root."""
    return Cli(root)
