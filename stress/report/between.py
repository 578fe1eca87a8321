"""What lies between agents: how evenly the work was shared out, and who could read whose tokens."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from ..history import GET_MANY, KEYS, OPEN, TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..aftermath import Aftermath
    from ..history import History

WORKER = "agent"
"""How the names of the agents begin. Others that record, such as whoever makes the faults, are not measured by them."""


def fairness(acknowledged: Mapping[str, int]) -> dict[str, Any] | None:
    """Return the slowest agent against the fastest, and Jain's index: 1 when all got the same, 1/n when one got all."""
    if not acknowledged:
        return None
    ranked = sorted(acknowledged.items(), key=lambda pair: (pair[1], pair[0]))
    (slowest, least), (fastest, most) = ranked[0], ranked[-1]
    squares = sum(n * n for n in acknowledged.values())
    return {
        "slowest": {"agent": slowest, "ok": least},
        "fastest": {"agent": fastest, "ok": most},
        "ratio": round(least / most, 4) if most else None,
        "jain": round(sum(acknowledged.values()) ** 2 / (len(acknowledged) * squares), 4) if squares else None,
    }


def matrix(history: History, aftermath: Aftermath, agents: Sequence[str]) -> dict[str, Any] | None:
    """Return how many tokens of each agent (columns) each agent (rows) could read; None where there were none.

    Counted are the distinct ones that were returned to it, or whose keys were, and those in the bytes of an address
    that it alone uses.
    """
    seen: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    users: defaultdict[str, set[str]] = defaultdict(set)
    for operation in history.operations:
        if operation.op == OPEN and operation.agent.startswith(WORKER):
            users[operation.address].add(operation.agent)
        if operation.family == TOKEN or operation.op in (GET_MANY, KEYS):
            for text in _texts(operation.result):
                kind, separator, owner = _owner_of(text)
                if kind == TOKEN and owner:
                    seen[operation.agent, owner].add(f"{separator}{text}")
    found = Counter({pair: _most_of(texts) for pair, texts in seen.items()})
    for address, owners in aftermath.tokens.items():
        (reader, *others) = users.get(address) or ("",)
        for owner, number in owners.items():
            if reader and not others:
                found[reader, owner] = max(found[reader, owner], number)
    if not found:
        return None
    names = sorted({*agents, *(reader for reader, _ in found), *(owner for _, owner in found)})
    return {"agents": names, "rows": [[found[reader, owner] for owner in names] for reader in names]}


def _owner_of(text: str) -> tuple[str, str, str]:
    """Return (kind, separator, owner) of `token:AGENT:...`, a value, or `token.AGENT.N`, a key."""
    for separator in ":.":
        kind, found, rest = text.partition(separator)
        if found and kind == TOKEN:
            return kind, separator, rest.partition(separator)[0]
    return "", "", ""


def _most_of(texts: set[str]) -> int:
    """Return the number of values or of keys, whichever is larger: a key and its value are one token."""
    values = sum(text.startswith(":") for text in texts)
    return max(values, len(texts) - values)


def _texts(result: object) -> Iterator[str]:
    if isinstance(result, str):
        yield result
    elif isinstance(result, list):
        for part in result:
            yield from _texts(part)
    elif isinstance(result, dict):
        for part in result.values():
            yield from _texts(part)
