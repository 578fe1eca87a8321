"""One visit of the doctor: findings are collected, and healed as they come when that is wanted and safe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prontodb.doctor import keystores
from prontodb.doctor.findings import ERROR, MEND, REPAIR, WARNING, DoctorReport, Finding, Problem, error, warning
from prontodb.engine.sqlite import folders
from prontodb.errors import ProntoError
from prontodb.model.layout import CONFIG_FILE, REGISTRY
from prontodb.model.settings import Settings
from prontodb.registry import configuration
from prontodb.storage import reserve
from prontodb.storage.files import open_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prontodb.addresses import AddressBook
    from prontodb.doctor.tree import Tree
    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.model.layout import Layout
    from prontodb.model.limits import Limits

MAX_FINDINGS = 1_000
"""Findings kept of one visit; a root with more has one reason for most of them."""


class Visit:
    """One look at a root: collects findings, and heals as it goes when it may."""

    def __init__(self, layout: Layout, limits: Limits, *, repair: bool, progress: Callable[[str], None]) -> None:
        self._layout, self._limits, self._repair, self.say = layout, limits, repair, progress
        self._findings: list[Finding] = []
        self._repaired: list[str] = []

    def take(self, problems: Iterable[Problem]) -> None:
        """Take problems one by one, healing each before the next is looked for; a step that fails is one itself."""
        try:
            for problem in problems:
                self._take_one(problem)
        except ProntoError as failure:
            self._add(Finding(ERROR, str(failure), MEND))

    def _take_one(self, problem: Problem) -> None:
        finding = problem.finding
        if not self._repair or problem.heal is None:
            self._add(finding)
            return
        try:
            self._repaired.append(problem.heal())
        except ProntoError as failure:
            self._add(Finding(finding.level, f"{finding.what} (not repaired: {failure})", finding.fix))

    def _add(self, finding: Finding) -> None:
        if len(self._findings) < MAX_FINDINGS:
            self._findings.append(finding)
        elif len(self._findings) == MAX_FINDINGS:
            self._findings.append(Finding(WARNING, f"there are more than {MAX_FINDINGS:,} findings", REPAIR))

    def can_enter(self) -> bool:
        """True when the root is a folder of ours that others cannot write; what is wrong else was found already."""
        try:
            open_root(self._layout.root).close()
        except ProntoError as failure:
            if not self._findings:
                self._add(Finding(ERROR, str(failure), MEND))
            return False
        return True

    def settings(self) -> Settings:
        """Return the root's settings, the defaults where its file is damaged."""
        path = self._layout.path(REGISTRY, CONFIG_FILE)
        try:
            settings, warnings = configuration.load(self._layout)
        except ProntoError as failure:
            said = str(failure).removesuffix(f"; {configuration.WAY_OUT}")
            self.take([error(said, f"{path}: {configuration.WAY_OUT}")])
            return Settings()
        self.take(warning(text, f"mend {path}") for text in warnings)
        return settings

    def keystores(self, book: AddressBook, lifecycle: Lifecycle, tree: Tree, *, deep: bool) -> dict[str, object]:
        """Look into every keystore that is safe to open; return how many there are and how large."""
        try:
            sizes = folders.measured(self._layout, [])
        except ProntoError:
            return {}  # the folder of all addresses is a link or worse, which was found before
        addresses = sorted(sizes)
        ward = keystores.Keystores(self._layout, book, lifecycle, self._limits)

        def problems() -> Iterator[Problem]:
            yield from keystores.twins(addresses)
            for address in addresses:
                self.say(f"keystore {address}")
                if address not in tree.unsafe:
                    yield from ward.problems(address, deep=deep)

        self.take(problems())
        return {"addresses": len(addresses), "keystore_bytes": sum(size or 0 for size in sizes.values())}

    def make_room(self) -> None:
        """On a full disk, spend the reserve on this visit: even reading takes SQLite a file of its own."""
        if not self._repair:
            return
        try:
            reserve.spend_if_full(self._layout)
        except ProntoError as failure:
            self.take([warning(f"the reserve for a full disk could not be used: {failure}", REPAIR)])

    def keep_reserve(self) -> None:
        """See that there is room for the next full disk."""
        if not self._repair:
            return
        try:
            done = reserve.make(self._layout, wait_s=self._limits.wait_s)
        except ProntoError as failure:
            self.take([warning(f"the reserve for a full disk could not be made: {failure}", REPAIR)])
            return
        if done is not None:
            self._repaired.append(done)

    def report(self, facts: dict[str, object]) -> DoctorReport:
        """Return what was found and done."""
        return DoctorReport(facts, tuple(self._findings), tuple(self._repaired))
