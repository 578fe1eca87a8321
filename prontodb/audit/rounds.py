"""The audit of many addresses, one after the other: each by what vouches for it, and whether it is the right one."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from prontodb.audit.report import MISSING, AddressAudit, AuditReport, Finding
from prontodb.audit.verifying import Verifying
from prontodb.audit.witnesses import ACCEPT, Witnesses
from prontodb.engine.sqlite import auditing, opening
from prontodb.errors import AddressNotFoundError, ProntoError, StoppedError
from prontodb.model.moments import text_of
from prontodb.model.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from prontodb.model.address import Address
    from prontodb.model.anchor import Anchor
    from prontodb.model.layout import Layout
    from prontodb.storage.connection import Connection

BUSY_TIMEOUT_MS = 1_000


class Round:
    """One round over addresses: those given, and with `known_too` (and not `only`) all that an anchor knows."""

    def __init__(
        self,
        layout: Layout,
        witnesses: Witnesses,
        addresses: Sequence[Address],
        *,
        only: bool,
        known_too: bool = True,
        stop: Callable[[], bool],
    ) -> None:
        self._layout, self._witnesses, self._only = layout, witnesses, only
        self._stop = stop
        self._expected = witnesses.expected()
        self._addresses = list(addresses) if only or not known_too else sorted({*addresses, *self._expected})

    def steps(self) -> Generator[Progress, None, AuditReport]:
        """Audit one address after the other; one that cannot be read keeps nobody from the next."""
        begun = time.perf_counter()
        done: list[AddressAudit] = []
        failed: list[tuple[str, str]] = []
        for number, address in enumerate(self._addresses):
            try:
                audit = yield from self._one(address, number)
            except StoppedError:
                raise
            except ProntoError as error:
                if self._only and isinstance(error, AddressNotFoundError):
                    raise
                failed.append((str(address), str(error)))
                continue
            if audit is not None:
                done.append(audit)
        here = {one.incarnation for one in done}
        # Renamed behind the registry's back: it is there under another name.
        kept = [one for one in done if not (_is_missing(one) and self._expected[one.address].mark.incarnation in here)]
        return AuditReport(addresses=tuple(kept), failed=tuple(failed), seconds=time.perf_counter() - begun)

    def _one(self, address: Address, number: int) -> Generator[Progress, None, AddressAudit | None]:
        def look(records: int) -> Progress:
            what = f"{address}, {records:,} records" if records else str(address)
            return Progress(what=what, done=number, total=len(self._addresses))

        try:
            connection, _ = opening.open_reader(self._layout, address, busy_timeout_ms=BUSY_TIMEOUT_MS, any_thread=True)
        except AddressNotFoundError:
            newest = self._expected.get(address)
            if newest is None and self._only:
                raise
            return None if newest is None else _missing(newest)
        try:
            verifying = Verifying(connection, address, self._witnesses.points, stop=self._stop)
            # Closed before its connection is: it may hold a snapshot.
            with closing(verifying.steps()) as steps:
                while True:
                    try:
                        yield look(next(steps))
                    except StopIteration as end:
                        audit: AddressAudit = end.value
                        break
            if audit.is_sound and self._witnesses.is_stranger(address, audit.incarnation):
                audit = replace(audit, unknown=True, notes=(*audit.notes, self._strange(connection, address)))
        except auditing.ERRORS as error:
            raise auditing.translated(error, self._layout.keystore_path(address)) from error
        finally:
            connection.close()
        foreign = self._witnesses.judge(address, audit.incarnation)
        if foreign is not None:
            audit = replace(audit, findings=(foreign, *audit.findings))
        yield replace(look(audit.records), done=number + 1)
        return audit

    def _strange(self, connection: Connection, address: Address) -> str:
        """Say what may be said of a keystore that nobody knows: whose history it has, by the chain itself."""
        homes = self._witnesses.homes_along(
            lambda point: auditing.goes_through(connection, point.revision, point.chain)
        )
        others = [str(home) for home in homes if home != address]
        whose = (
            f"its history is that of {', '.join(others)}"
            if others and address not in homes
            else ("its history is that of the address" if homes else "its history is new")
        )
        return (
            f"another keystore lies here than its backups know, and no anchor tells why ({whose}): restored, made anew "
            f"or swapped since; if that was meant, say so: prontodb audit accept {address}"
        )


def _missing(newest: Anchor) -> AddressAudit:
    what = (
        f"no keystore lies here, and nobody of ours deleted it: the anchor of {text_of(newest.at_ms)} ({newest.by}) "
        f"knows {newest.mark.revision:,} records; restore it, or {ACCEPT.format(newest.address)}"
    )
    return AddressAudit(address=newest.address, findings=(Finding(MISSING, None, None, what),))


def _is_missing(audit: AddressAudit) -> bool:
    return any(finding.kind == MISSING for finding in audit.findings)
