"""Nobody reads another's token: not by asking, not in a list of keys, not in the bytes of any file."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from ..history import COPY, FAILED, KEYS, OK, PEEK, RENAME, SET, SET_MANY, TOKEN, TRANSACT
from .moves import target_of
from .reads import reads
from .tally import Tally

if TYPE_CHECKING:
    from ..aftermath import Aftermath
    from ..history import History
    from ..verdict import Verdict

CHECK = "isolation"
PROMISE = 7


def check(history: History, aftermath: Aftermath) -> Verdict:
    """Check what agents were told at their own addresses, and what lies at each address afterwards."""
    tally, carried, authors = Tally(CHECK), _carried(history), _authors(history)
    _check_peeks(history, carried, tally)
    _check_reads(history, carried, tally)
    _check_keys(history, carried, tally)
    for address, found in sorted(_remains(aftermath).items()):
        tally.count(PROMISE)
        for agent in sorted(found - authors[address] - carried[address]):
            whose = f"a token of {agent}, who never wrote there" if agent else "a token that names nobody"
            tally.violate(PROMISE, f"{address} holds {whose}")
    return tally.verdict()


def matrix(history: History, aftermath: Aftermath) -> tuple[list[str], list[list[int]]]:
    """Return the agents, and in row i, column j how many tokens of agent j agent i could read, or has in its bytes.

    The diagonal is everybody's own; all else should be nought.
    """
    homes, seen = _homes(history), _seen(history, aftermath)
    agents = sorted({*homes, *(author for found in seen.values() for author in found if author)})
    rows = []
    for agent in agents:
        in_bytes = [aftermath.tokens.get(address, {}) for address in homes.get(agent, ())]
        rows.append([max(len(seen[agent][other]), sum(each.get(other, 0) for each in in_bytes)) for other in agents])
    return agents, rows


def _check_peeks(history: History, carried: defaultdict[str, set[str]], tally: Tally) -> None:
    for peek in history.of(PEEK):
        if peek.outcome != OK:
            continue
        tally.count(PROMISE)
        if peek.result is not None and author_of(peek.result) not in carried[peek.address]:
            told = f"asked {peek.address} for {peek.key}, which is another's, and was told '{peek.result}'"
            tally.violate(PROMISE, f"{peek.agent} {told}", peek)


def _check_reads(history: History, carried: defaultdict[str, set[str]], tally: Tally) -> None:
    for read, key, value in reads(history, TOKEN):
        if value is None:
            continue
        tally.count(PROMISE)
        if author_of(value) not in {read.agent} | carried[read.address]:
            told = f"read {key} at {read.address} and was told '{value}', which it never wrote"
            tally.violate(PROMISE, f"{read.agent} {told}", read)


def _check_keys(history: History, carried: defaultdict[str, set[str]], tally: Tally) -> None:
    for listing in history.of(KEYS):
        if listing.outcome != OK:
            continue
        tally.count(PROMISE)
        allowed = {listing.agent} | carried[listing.address]
        others = [key for key in listing.result if _is_token(key) and _owner_of(key) not in allowed]
        if others:
            told = f"listed the keys at {listing.address} and was told of {others[0]}"
            tally.violate(PROMISE, f"{listing.agent} {told}, {len(others)} such in all", listing)


def author_of(value: str) -> str:
    """Return the agent whose token this is; '' when it names nobody."""
    family, _, rest = value.partition(":")
    return rest.partition(":")[0] if family == TOKEN else ""


def _owner_of(key: str) -> str:
    return key.partition(".")[2].partition(".")[0]


def _is_token(key: str) -> bool:
    return key.partition(".")[0] == TOKEN


def _authors(history: History) -> defaultdict[str, set[str]]:
    """Who wrote tokens at each address, or tried to: what was taken back may still lie in a file's free pages."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for write in history.of(SET, SET_MANY, TRANSACT, family=TOKEN):
        found[write.address].add(write.agent)
    return found


def _carried(history: History) -> defaultdict[str, set[str]]:
    """Whose tokens a copy or a renaming may have brought to each address, also by several steps."""
    authors, carried = _authors(history), defaultdict[str, set[str]](set)
    steps = {
        (operation.address, target_of(operation))
        for operation in history.of(COPY, RENAME)
        if operation.outcome != FAILED
    }
    is_growing = True
    while is_growing:
        is_growing = False
        for source, target in sorted(steps):
            brought = authors[source] | carried[source]
            is_growing |= not brought <= carried[target]
            carried[target] |= brought
    return carried


def _remains(aftermath: Aftermath) -> dict[str, set[str]]:
    """Whose tokens lie at each address, by its contents and by its bytes."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for address, counts in aftermath.tokens.items():
        found[address] |= {agent for agent, count in counts.items() if count}
    for address, entries in aftermath.contents.items():
        found[address] |= {_owner_of(key) for key in entries if _is_token(key)}
        found[address] |= {author_of(value) for value, _ in entries.values() if value.startswith(f"{TOKEN}:")}
    return found


def _homes(history: History) -> dict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for address, agents in _authors(history).items():
        for agent in agents:
            found[agent].add(address)
    return found


def _seen(history: History, aftermath: Aftermath) -> defaultdict[str, defaultdict[str, set[str]]]:
    """Each agent's distinct tokens, as it was told them or as they lie at its addresses, by whose they are."""
    found: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    told = [(read.agent, value) for read, _, value in reads(history, TOKEN)]
    told += [(peek.agent, peek.result) for peek in history.of(PEEK) if peek.outcome == OK]
    for agent, addresses in _homes(history).items():
        entries = [entry for address in addresses for entry in aftermath.contents.get(address, {}).values()]
        told += [(agent, value) for value, _ in entries if value.startswith(f"{TOKEN}:")]
    for agent, value in told:
        if value is not None:
            found[agent][author_of(value)].add(value)
    return found
