"""What every test stands on: the asyncio backend, one deterministic Hypothesis profile, an empty root."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import encrypted

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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--encrypted", action="store_true", help="encrypt every address that a test makes")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "plain: of plain keystores alone; left out with --encrypted, with the reason")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--encrypted"):
        for item in items:
            if (mark := item.get_closest_marker("plain")) is not None:
                item.add_marker(pytest.mark.skip(reason=f"of plain keystores: {mark.args[0]}"))


@pytest.fixture(scope="session", autouse=True)
def _encrypted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    if request.config.getoption("--encrypted"):
        encrypted.begin(tmp_path_factory.mktemp("key"))


@pytest.fixture(autouse=True)
def _nothing_plain(request: pytest.FixtureRequest) -> Iterator[None]:
    """In an encrypted run: no word that a test stored stands in any file below its root."""
    if not encrypted.is_on():
        yield
        return
    encrypted.forget()
    place = request.getfixturevalue("root") if "root" in request.fixturenames else None
    yield
    if place is not None:
        assert encrypted.plain_words(place) == []
