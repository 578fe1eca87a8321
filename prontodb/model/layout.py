"""Names to paths: where everything lies below a root. Pure; nothing is opened here."""

from __future__ import annotations

from prontodb.model.address import Address
from prontodb.model.value import Value

ADDRESSES = "addresses"
REGISTRY = "registry"
LOCKS = "locks"
BACKUPS = "backups"
KEYS = "keys"
SANDBOXES = "sandboxes"
DUES = "due"
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
KEYS_LOCK_FILE = "keys.lock"
SANDBOX_ADDRESS_FILE = "address"
SANDBOX_TOKEN_FILE = "token"  # noqa: S105 - the name of a file
SANDBOX_TEMPORARY = "tmp"

STAGED_PREFIX = ".new-"
OLD_PREFIX = ".old-"
TRASH_PREFIX = ".trash-"


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from prontodb.model.secret import Secret

    class Keys(Protocol):
        """Who brings what opens the encrypted addresses of a root; see `encryption.keyring`."""

        @property
        def encrypts_new(self) -> bool: ...
        def secret(self, name: str, address: object = None) -> Secret: ...
        def secrets_of(self, address: object) -> list[Secret]: ...
        def newest(self, record: str) -> Secret: ...
        def ids(self) -> list[str]: ...
        def has(self, record: str) -> bool: ...
        def is_of(self, record: str, address: object) -> bool: ...
        def is_damaged(self, record: str) -> bool: ...
        def of_address(self, address: object) -> list[Any]: ...
        def make(self, address: object, now_ms: int) -> Secret: ...
        def add(self, record: str, *, forgetting: bool = False) -> Secret: ...
        def drop_older(self, secret: Secret) -> None: ...
        def renaming(self, record: str, old: object, new: object) -> None: ...
        def settle(self, record: str, address: object) -> None: ...
        def destroy(self, record: str) -> None: ...
        def elsewhere(self, root: str) -> Keys: ...
        def lend(self, secret: Secret, address: object, keyring: Any) -> None: ...


class Layout(Value):
    """The paths below one root (an absolute path). Relative forms are tuples of folder names, walked one by one.

    `keys` goes where the paths go: who may open an address knows how. `sandbox` is the private folder of the
    `prontodb run --sandbox` around this process, which cannot see the registry: the settings lie there, too. None in
    every other process.
    """

    __slots__ = ("root", "keys", "sandbox")

    root: str
    keys: Keys | None
    sandbox: str | None

    def __init__(self, root: str, keys: Keys | None = None, sandbox: str | None = None) -> None:
        self._fill(root, keys, sandbox)

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

    def keys_lock_parts(self) -> tuple[str, ...]:
        """The folder of the lock under which key records are changed; a user's name cannot begin so."""
        return (REGISTRY, LOCKS, "@keys@")

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
