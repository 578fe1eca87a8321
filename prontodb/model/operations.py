"""What each operation needs: the table that the documentation, `access explain` and the tests go by."""

from __future__ import annotations

from prontodb.model.access import ADMIN, READ, WRITE

KEY = "key"
PREFIX = "prefix"
ADDRESS = "address"
ROOT = "root"
"""What an operation is of: a key, all keys that begin with a prefix, a whole address, or all addresses."""

_READS = ((READ,), KEY)
_READS_ALL = ((READ,), PREFIX)
_WRITES = ((WRITE,), KEY)
_BOTH = ((READ, WRITE), KEY)

OF_HANDLE: dict[str, tuple[tuple[str, ...], str]] = {
    "get": _READS,
    "entry": _READS,
    "exists": _READS,
    "get_many": _READS,
    "ttl": _READS,
    "wait_for": _READS,
    "scan": _READS_ALL,
    "list_keys": _READS_ALL,
    "count": _READS_ALL,
    "namespaces": _READS_ALL,
    "watch": _READS_ALL,
    "projects": ((READ,), ADDRESS),
    "namespace_ttls": ((READ,), ADDRESS),
    "set": _WRITES,
    "set_many": _WRITES,
    "delete": _WRITES,
    "delete_many": _WRITES,
    "clear": ((WRITE,), PREFIX),
    "set_namespace_ttl": ((WRITE,), PREFIX),
    # These read, decide and write: what they answer tells of the value, the revision or the lifetime.
    "compare_and_set": _BOTH,
    "increment": _BOTH,
    "touch": _BOTH,
    "persist": _BOTH,
}
"""Methods of `Keystore`. `set` with `expect` reads too; a transaction needs what its own reads and writes need."""

OF_MANAGER: dict[str, tuple[tuple[str, ...], str]] = {
    "create": ((ADMIN,), ADDRESS),
    "rename": ((ADMIN,), ADDRESS),
    "delete": ((ADMIN,), ADDRESS),
    "keep_history": ((ADMIN,), ADDRESS),
    "undo_restore": ((ADMIN,), ADDRESS),
    "end_session": ((ADMIN,), ADDRESS),
    "mint_token": ((ADMIN,), ADDRESS),
    "revoke_tokens": ((ADMIN,), ADDRESS),
    "restore": ((ADMIN,), ADDRESS),
    "encrypt": ((ADMIN,), ADDRESS),
    "decrypt": ((ADMIN,), ADDRESS),
    "rekey": ((ADMIN,), ADDRESS),
    "describe": ((READ,), ADDRESS),
    "audit": ((READ,), ADDRESS),
    "verify_audit": ((READ,), ADDRESS),
    "backup": ((READ,), ADDRESS),
    "export": _READS_ALL,
    "import_lines": _BOTH,
    "backups": ((READ,), ROOT),
    "verify": ((READ,), ROOT),
    "jobs": ((READ,), ROOT),
    "job_runs": ((READ,), ROOT),
    "doctor": ((READ,), ROOT),
    "sweep": ((ADMIN,), ROOT),
    "prune": ((ADMIN,), ROOT),
    "compact": ((ADMIN,), ROOT),
    "reap": ((ADMIN,), ROOT),
    "migrate": ((ADMIN,), ROOT),
    "run_job": ((ADMIN,), ROOT),
    "pause_jobs": ((ADMIN,), ROOT),
    "resume_jobs": ((ADMIN,), ROOT),
}
"""Methods of `SessionManager` for one address, all of one user's, or all there are."""

OF_COMMAND_LINE: dict[str, tuple[tuple[str, ...], str]] = {
    "del": _WRITES,
    "incr": _BOTH,
    "cas": _BOTH,
    "keys": _READS_ALL,
    "create-cache": ((WRITE,), PREFIX),
    "import": ((READ, WRITE), PREFIX),
    "history": ((ADMIN,), ADDRESS),
    "check": ((READ,), ADDRESS),
    "copy": _READS,
    "run": ((WRITE,), ADDRESS),
    "token": ((ADMIN,), ADDRESS),
}
"""What the command line calls otherwise."""

OPERATIONS = OF_HANDLE | OF_MANAGER | OF_COMMAND_LINE | {"read": _READS, "write": _WRITES, "admin": ((ADMIN,), ADDRESS)}
"""All of them by name, and the rights themselves. Where a name is both, such as `delete`, the handle's is meant."""
OPERATIONS |= {name: needs for name, needs in OF_HANDLE.items() if name in OF_MANAGER}
