"""What every test stands on: the asyncio backend, one deterministic Hypothesis profile, an empty root."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The gate gives the same verdict twice. To search further: pytest --hypothesis-profile=explore
settings.register_profile(
    "ci",
    derandomize=True,
    print_blob=True,
    # Nothing in tests/ judges time: a slow machine is not a bug.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", deadline=None, print_blob=True, max_examples=2_000)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """asyncio, since aiosqlite awaits its futures; a test of a pure floor may override this with trio."""
    return "asyncio"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty data root, closed to others under any umask."""
    path = tmp_path / "root"
    path.mkdir(mode=0o700)
    return path
