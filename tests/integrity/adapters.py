"""ProntoDB as `agent-memory-integrity` sees it: entries edited in the file, and what `audit verify` says of them.

Run by hand: `agmi-check --adapter tests.integrity.adapters:KeystoreFile`, with the checkout on PYTHONPATH. The attacker
here knows the format: what the store could compute without a secret, such as an entry's checksum, is set right.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from agmi.adapters.base import MemoryAdapter, Record

from prontodb import blocking
from prontodb.errors import ProntoError
from prontodb.model.settings import Settings
from tests.audits import checksum, file_of, looked, tampered

VICTIM, OTHER = "agent/memory", "other/memory"
COLUMNS = "id, namespace_key, value, created_at, updated_at, ttl_expires_at, rev"


class KeystoreFile(MemoryAdapter):  # type: ignore[misc]
    """One address's entries, one record each. The attacker holds the keystore files; the registry is out of reach."""

    name = "ProntoDB, attacker holds the keystore's folder, audit verify"
    detection_point = "audit"
    supports_replay = supports_metadata = supports_snapshot = True

    def __init__(self) -> None:
        self._above: Path | None = None
        self._written = 0

    # Life

    def setup(self) -> None:
        self._above, self._written = Path(tempfile.mkdtemp(prefix="agmi-")), 0

    def teardown(self) -> None:
        if self._above is not None:
            shutil.rmtree(self._above)

    @property
    def above(self) -> Path:
        assert self._above is not None
        return self._above

    @property
    def root(self) -> Path:
        return self.above / "root"

    def _opened(self) -> Any:
        return blocking.open(str(self.root), settings=Settings(durability="relaxed"))

    def _write(self, address: str, count: int) -> None:
        user, _, cursor = address.partition("/")
        with self._opened() as manager, manager.session(user, cursor) as keystore:
            for _ in range(count):
                self._written += 1
                keystore.set(f"memory.note.{self._written:04}", f"{user} remembers fact {self._written}")

    def seed(self, n: int) -> None:
        self._write(VICTIM, n)

    def seed_other(self, n: int) -> None:
        self._write(OTHER, n)

    def append_genuine(self) -> None:
        self._write(VICTIM, 1)

    def reload(self) -> None:
        """An agent comes back: it opens a session, reads all that it remembers, and leaves an anchor behind."""
        with self._opened() as manager:
            for address in (VICTIM, OTHER):
                user, _, cursor = address.partition("/")
                if file_of(self.root, address).exists():
                    try:
                        with manager.session(user, cursor) as keystore:
                            for key in keystore.list_keys():
                                keystore.get(key)
                    except ProntoError:
                        pass  # refused on the read path, too; what counts here is the audit

    def verify(self) -> bool:
        with self._opened() as manager:
            report = manager.verify_audit()
        found = [finding.what for one in report.addresses for finding in one.findings]
        found += [f"{address}: {reason}" for address, reason in report.failed]
        self.verify_detail = found[0] if found else None
        return bool(report.is_sound)

    # The file

    def _records(self, address: str) -> list[Record]:
        names = COLUMNS.split(", ")
        rows = looked(self.root, f"SELECT {COLUMNS} FROM kvstore ORDER BY id", address)
        return [
            Record(number, {**dict(zip(names, row, strict=True)), "address": address})
            for number, row in enumerate(rows)
        ]

    def read_all_raw(self) -> list[Record]:
        return self._records(VICTIM)

    def read_other_raw(self) -> list[Record]:
        return self._records(OTHER)

    def write_raw(self, record: Record) -> None:
        """Put content into the slot at its position, which keeps its key and its revision; or a new slot at the end."""
        slots = self._records(VICTIM)
        if record.seq < len(slots):
            self._put(slots[record.seq].fields | {"value": record.fields["value"]})
            return
        [(head,)] = looked(self.root, "SELECT max(rev) FROM journal", VICTIM)
        self._put(record.fields | {"id": None, "namespace_key": "memory.note.forged", "rev": head + 1})

    def _put(self, row: dict[str, Any]) -> None:
        total = checksum(*(row[name] for name in COLUMNS.split(", ")[1:]))
        values = (*(row[name] for name in COLUMNS.split(", ")), total)
        tampered(
            self.root,
            (f"INSERT OR REPLACE INTO kvstore ({COLUMNS}, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values),
            address=VICTIM,
        )

    def delete_raw(self, seq: int) -> None:
        tampered(
            self.root, ("DELETE FROM kvstore WHERE id = ?", (self._records(VICTIM)[seq].fields["id"],)), address=VICTIM
        )

    def mutate_payload(self, record: Record) -> Record:
        return Record(record.seq, record.fields | {"value": record.fields["value"] + " [TAMPERED]"})

    def forge_record(self, template: Record) -> Record:
        return Record(template.seq + 1, template.fields | {"value": "agent remembers what never was"})

    def replay_onto(self, victim_seq: int, donor: Record) -> None:
        self.write_raw(Record(victim_seq, donor.fields))

    def read_meta(self, seq: int) -> dict[str, Any]:
        fields = self._records(VICTIM)[seq].fields
        return {name: fields[name] for name in ("created_at", "updated_at", "ttl_expires_at")}

    def write_meta(self, seq: int, meta: dict[str, Any]) -> None:
        """Make the record an hour younger."""
        row = self._records(VICTIM)[seq].fields
        self._put(row | {"created_at": row["created_at"] + 3_600_000, "updated_at": row["updated_at"] + 3_600_000})

    # What the suite's own controls ask for

    def identity_of(self, record: Record) -> str:
        return str(record.fields["namespace_key"])

    def payload_of(self, record: Record) -> str:
        return str(record.fields["value"])

    def owner_of(self, record: Record) -> str | None:
        return str(record.fields["address"])

    # An older copy

    def snapshot_store(self) -> object:
        return self._copy_store(file_of(self.root, VICTIM))

    def restore_store(self, token: object) -> None:
        self._restore_store(str(token), file_of(self.root, VICTIM))


class KeystoreTail(KeystoreFile):
    """The same attacker, who also cuts the journal to fit the entries that he deletes."""

    name = "ProntoDB, attacker cuts the journal to fit, audit verify"

    def delete_raw(self, seq: int) -> None:
        row = self._records(VICTIM)[seq].fields
        super().delete_raw(seq)
        tampered(self.root, ("DELETE FROM journal WHERE rev = ?", (row["rev"],)), address=VICTIM)


class JournalFile(KeystoreFile):
    """The audit records themselves, one record each: row by row of the journal, edited without its entries."""

    name = "ProntoDB journal, attacker holds the keystore's folder, audit verify"

    def _records(self, address: str) -> list[Record]:
        rows = looked(
            self.root, "SELECT rev, first_rev, at, session, records, chain FROM journal ORDER BY rev", address
        )
        names = ("rev", "first_rev", "at_ms", "session", "value", "chain")
        return [
            Record(number, {**dict(zip(names, row, strict=True)), "address": address})
            for number, row in enumerate(rows)
        ]

    def _put(self, row: dict[str, Any]) -> None:
        values = tuple(row[name] for name in ("rev", "rev", "at_ms", "session", "value", "chain"))
        tampered(self.root, ("INSERT OR REPLACE INTO journal VALUES (?, ?, ?, ?, ?, ?)", values), address=VICTIM)

    def delete_raw(self, seq: int) -> None:
        revision = self._records(VICTIM)[seq].fields["rev"]
        tampered(self.root, ("DELETE FROM journal WHERE rev = ?", (revision,)), address=VICTIM)

    def identity_of(self, record: Record) -> str:
        return f"{record.fields['address']} {record.fields['rev']}"

    def mutate_payload(self, record: Record) -> Record:
        return Record(record.seq, record.fields | {"value": record.fields["value"].replace("memory", "mammoth")})

    def forge_record(self, template: Record) -> Record:
        value = '[["del","memory.note.0001"]]'
        return Record(template.seq + 1, template.fields | {"value": value})

    def read_meta(self, seq: int) -> dict[str, Any]:
        fields = self._records(VICTIM)[seq].fields
        return {name: fields[name] for name in ("session", "at_ms")}

    def write_meta(self, seq: int, meta: dict[str, Any]) -> None:
        """Let somebody else have done it."""
        self._put(self._records(VICTIM)[seq].fields | {"session": "s-somebody-else"})


class WholeRoot(KeystoreFile):
    """The attacker holds the whole root, registry and all; backups go to a second place, as the schedule would."""

    name = "ProntoDB, attacker holds the whole root, backups in a second place, audit verify"

    def setup(self) -> None:
        super().setup()
        registry = self.root / "registry"
        registry.mkdir(parents=True, mode=0o700)
        self.root.chmod(0o700)
        settings = f'{{"format": 1, "backups": {{"second_place": "{self.above / "elsewhere"}"}}}}'
        (registry / "global_config.json").write_text(settings)
        (registry / "global_config.json").chmod(0o600)
        (self.above / "elsewhere").mkdir(mode=0o700)

    def _write(self, address: str, count: int) -> None:
        super()._write(address, count)
        with self._opened() as manager:
            manager.backup()

    def snapshot_store(self) -> object:
        return self._copy_store(self.root)

    def restore_store(self, token: object) -> None:
        self._restore_store(str(token), self.root)


class RootAlone(WholeRoot):
    """The same without a second place: everything that could vouch for anything rolls back with it."""

    name = "ProntoDB, attacker holds the whole root, no second place, audit verify"

    def setup(self) -> None:
        KeystoreFile.setup(self)
