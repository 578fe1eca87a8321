"""The doctor: looks at all below a root, names what is wrong with the command that heals it, heals on request."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prontodb.addresses import AddressBook
from prontodb.doctor import keys, keystores, machine
from prontodb.doctor.findings import DoctorReport, Finding
from prontodb.doctor.tree import Tree
from prontodb.doctor.visit import Visit
from prontodb.engine.sqlite.lifecycle import Lifecycle
from prontodb.registry.addresses import AddressRegistry
from prontodb.storage.confined import is_kept_out, sandboxed

if TYPE_CHECKING:
    from collections.abc import Callable

    from prontodb.model.clock import Clock
    from prontodb.model.layout import Layout
    from prontodb.model.limits import Limits

__all__ = ["DoctorReport", "Finding", "examine"]


def examine(
    layout: Layout,
    limits: Limits,
    clock: Clock,
    *,
    deep: bool = False,
    repair: bool = False,
    progress: Callable[[str], None] | None = None,
) -> DoctorReport:
    """Look at everything below the root and return what was found; with `repair`, heal what can be healed safely.

    `deep` adds SQLite's whole check, every entry's checksum and the chain of each journal. Never touched: a
    damaged keystore, what is not ours, links, addresses that are missing. Never raises for what it looks at:
    one damaged address does not stop another;
    but `SandboxedError` in a sandbox, which sees next to nothing. `progress` gets a line for each step.
    """
    visit = Visit(layout, limits, repair=repair, progress=progress or _silent)
    exists = os.path.exists(layout.root)
    visit.say("machine")
    facts = machine.facts(layout.root, exists=exists)
    if exists and is_kept_out(layout.root):
        raise sandboxed(layout.root)  # what a sandbox shows is no picture of the root
    if not exists:
        visit.take(machine.problems(facts, unsafe_file_system=False))
        return visit.report(facts)
    tree = Tree(layout, clock.wall_ms(), repair=repair)
    visit.say("files and folders")
    visit.take(tree.problems())
    if tree.blocked or not visit.can_enter():
        return visit.report(facts)
    visit.make_room()
    settings = visit.settings()
    visit.take(machine.problems(facts, unsafe_file_system=settings.unsafe_file_system))

    registry = AddressRegistry(layout, wait_s=limits.wait_s, one_shot=True)
    unsafe = settings.unsafe_file_system
    lifecycle = Lifecycle(layout, clock, registry, wait_s=limits.wait_s, one_shot=True, unsafe_file_system=unsafe)
    book = AddressBook(layout, lifecycle, registry, clock=clock, wait_s=limits.wait_s, limits=limits)
    visit.say("what crashes left")
    visit.take(keystores.left_by_crashes(lifecycle))
    visit.say("key records")
    visit.take(keys.problems(lifecycle))
    visit.say("registry")
    visit.take(keystores.registry(book))
    facts |= visit.keystores(book, lifecycle, tree, deep=deep)
    visit.keep_reserve()
    return visit.report(facts)


def _silent(_line: str) -> None:
    return
