"""Named events, silent until somebody asks for them; structlog is imported only then.

Values never appear in an event; keys go through `errors.shown`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from typing import Any, TextIO

_emit: list[Callable[..., None]] = []
_heard: dict[str, tuple[Callable[..., None], ...]] = {}


def event(name: str, **fields: object) -> None:
    """Report that something happened, such as `address.created`; costs a list test when logging is off."""
    for emit in _emit:
        emit(name, **fields)
    for hear in _heard.get(name, ()) if _heard else ():
        hear(**fields)


def listen(name: str, hear: Callable[..., None]) -> None:
    """Call `hear(**fields)` with every event of this name, whether or not events are shown; it must not raise."""
    _heard[name] = (*_heard.get(name, ()), hear)


def stop_listening(name: str, hear: Callable[..., None]) -> None:
    """Take `listen` back."""
    _heard[name] = tuple(other for other in _heard.get(name, ()) if other != hear)
    if not _heard[name]:
        del _heard[name]


def enable(stream: TextIO, *, as_json: bool = False) -> None:
    """Write events to `stream`, one a line: readable, or JSON for machines.

    An event that `stream` cannot take (closed, full) is dropped: talk never fails the work it tells of.
    """
    import contextlib

    import structlog

    renderer = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=0)
    )
    encoding = getattr(stream, "encoding", None) or "utf-8"

    def encodable(_logger: object, _method: str, line: Any) -> str:
        return str(line).encode(encoding, "backslashreplace").decode(encoding)

    logger = structlog.wrap_logger(
        structlog.PrintLogger(stream),
        processors=[structlog.processors.TimeStamper(fmt="iso", utc=True), _escape, renderer, encodable],
    )

    def emit(name: str, **fields: object) -> None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
            logger.msg(name, **{field: _plain(value) for field, value in fields.items()})

    _emit[:] = [emit]


def use(emit: Callable[..., None]) -> None:
    """Hand events to the application's own function, called as `emit(name, **fields)`."""
    _emit[:] = [emit]


def disable() -> None:
    """Stop reporting events."""
    _emit.clear()


def _plain(value: object) -> object:
    return value if isinstance(value, (int, float, bool, type(None))) else str(value)


def _escape(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep one event on one line, whatever an address or a message holds."""
    return {
        name: "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in value)
        if isinstance(value, str)
        else value
        for name, value in fields.items()
    }
