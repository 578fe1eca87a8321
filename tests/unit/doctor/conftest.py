"""A root for the doctor."""

from pathlib import Path

import pytest

from tests.parts import fill


@pytest.fixture
def filled(root: Path) -> Path:
    """A root with two addresses, both well."""
    fill(root, "agent1/prod", {"app.config.theme": "dark"})
    fill(root, "agent2/test", {"app.config.theme": "light"})
    return root
