"""Names to paths: where everything lies below a root. Pure; nothing is opened here."""

from __future__ import annotations

from prontodb.model.address import Address
from prontodb.model.value import Value

ADDRESSES = "addresses"
REGISTRY = "registry"
LOCKS = "locks"
BACKUPS = "backups"
SANDBOXES = "sandboxes"
KEYSTORE_FILE = "keystore.db"
METADATA_FILE = "metadata.json"
CONFIG_FILE = "global_config.json"
ADDRESS_REGISTRY_FILE = "address_registry.db"
SESSION_REGISTRY_FILE = "active_sessions.db"
BACKUPS_LOCK_FILE = ".backups.lock"
JOB_REGISTRY_FILE = "jobs.db"
JOBS_LOCK_FILE = "jobs.lock"
ADDRESS_LOCK_FILE = "address.lock"
CREATE_LOCK_FILE = "create.lock"
GATE_LOCK_FILE = "gate.lock"
RETIRED_LOCKS = "retired"
SESSION_LOCK_ENDING = ".lock"
REGISTRY_LOCK_FILE = "registry.lock"
SANDBOX_ADDRESS_FILE = "address"
SANDBOX_TEMPORARY = "tmp"

STAGED_PREFIX = ".new-"
OLD_PREFIX = ".old-"
TRASH_PREFIX = ".trash-"


class Layout(Value):
    """The paths below one root (an absolute path). Relative forms are tuples of folder names, walked one by one.

    `sandbox` is the private folder of the `prontodb run --sandbox` around this process, which cannot see the registry:
    the settings lie there, too. None in every other process.
    """

    __slots__ = ("root", "sandbox")

    root: str
    sandbox: str | None

    def __init__(self, root: str, sandbox: str | None = None) -> None:
        self._fill(root, sandbox)

    def user_parts(self, user: str) -> tuple[str, ...]:
        """The folder of a user's addresses."""
        return (ADDRESSES, user)

    def address_parts(self, address: Address) -> tuple[str, ...]:
        """The folder of one address."""
        return (ADDRESSES, address.user, address.cursor)

    def lock_parts(self, address: Address) -> tuple[str, ...]:
        """The folder of an address's locks; never inside a folder that can be deleted."""
        return (REGISTRY, LOCKS, f"{address.user}@{address.cursor}")

    def creation_lock_parts(self, user: str) -> tuple[str, ...]:
        """The folder of the lock under which addresses of this user, in any case, come and go."""
        return (REGISTRY, LOCKS, f"@{user.casefold()}")

    def registry_lock_parts(self) -> tuple[str, ...]:
        """The folder of the lock under which an index is made or set aside; no user has an empty name."""
        return (REGISTRY, LOCKS, "@")

    def jobs_lock_parts(self) -> tuple[str, ...]:
        """The folder of the lock that whoever runs the scheduled jobs holds; a user's name cannot begin so."""
        return (REGISTRY, LOCKS, "@jobs@")

    def settings_path(self) -> str:
        """The absolute path of the settings file that this process reads."""
        return self.path(REGISTRY, CONFIG_FILE) if self.sandbox is None else f"{self.sandbox}/{CONFIG_FILE}"

    def path(self, *parts: str) -> str:
        """The absolute path of `parts` below the root."""
        return "/".join((self.root, *parts))

    def keystore_path(self, address: Address) -> str:
        """The absolute path of an address's SQLite file."""
        return self.path(*self.address_parts(address), KEYSTORE_FILE)
