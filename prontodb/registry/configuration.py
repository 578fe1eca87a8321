"""The settings file, `registry/global_config.json`: read whole or refused, published by one rename."""

from __future__ import annotations

from prontodb.errors import CorruptError, InvalidSettingsError, NewerFormatError, UnavailableError, shown
from prontodb.model import sections
from prontodb.model.layout import CONFIG_FILE, REGISTRY, REGISTRY_LOCK_FILE
from prontodb.model.settings import Settings
from prontodb.storage.files import make_root, open_root, read_bytes, read_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from prontodb.model.layout import Layout
    from prontodb.storage.files import Folder

FORMAT = 1
WAY_OUT = (
    "mend it; or move it away, and the defaults hold: then everything is open that its access rules close, and no "
    "quota or job of it holds"
)


def load(layout: Layout) -> tuple[Settings, list[str]]:
    """Return the settings of a root and warnings about unknown fields; the defaults when there is no file.

    A file that is there must be right: `CorruptError` when it is no settings file, `InvalidSettingsError`
    when a setting in it has a wrong type or is out of range, `NewerFormatError` when a newer ProntoDB wrote
    it.
    """
    try:
        with _folder(layout) as folder:
            fields = _read(folder)
    except FileNotFoundError:
        return Settings(), []
    if fields is None:
        return Settings(), []
    try:
        settings, warnings = Settings.from_json(fields["settings"])
        warnings += sections.check(fields)
        if "quotas" in fields:
            from prontodb.model import quotas

            settings = settings.replace(quotas=quotas.parse(fields["quotas"]))
        return settings, warnings
    except InvalidSettingsError as error:
        raise InvalidSettingsError(f"{shown(layout.settings_path())}: {error}") from error


def section(layout: Layout, name: str) -> object:
    """Return a section of the file beside the settings, such as "jobs"; an empty object when it says nothing of it."""
    try:
        with _folder(layout) as folder:
            fields = _read(folder)
    except FileNotFoundError:
        return {}
    return {} if fields is None else fields.get(name, {})


def stamp(layout: Layout) -> tuple[int, int, int] | None:
    """Return what changes whenever the file does, without reading it; None when there is none."""
    try:
        with _folder(layout) as folder:
            found = folder.stat(CONFIG_FILE)
    except FileNotFoundError:
        return None
    return None if found is None else (found.st_ino, found.st_size, found.st_mtime_ns)


def save(layout: Layout, settings: Settings) -> None:
    """Make the file hold `settings`: what differs from the defaults, beside every field that is not ours.

    After a crash the file is the old one or the new one. A file that `load` would refuse is refused here too.
    Raises `BusyError` when somebody else is saving for longer than `wait_s`.
    """

    def change(fields: dict[str, Any]) -> None:
        strange = {name: value for name, value in fields["settings"].items() if name not in Settings.__slots__}
        fields["settings"] = strange | settings.changed()
        if settings.quotas or "quotas" in fields:
            fields["quotas"] = [rule.as_json() for rule in settings.quotas]

    rewrite(layout, change, purpose="save the settings", wait_s=settings.wait_s)


def rewrite(layout: Layout, change: Callable[[dict[str, Any]], None], *, purpose: str, wait_s: float) -> None:
    """Read the file, made when missing, have `change` alter its top-level fields, and publish it; under its lock.

    What `change` raises leaves the file as it was.
    """
    import json

    from prontodb.storage import lock

    held = lock.acquire(
        layout.root,
        layout.registry_lock_parts(),
        REGISTRY_LOCK_FILE,
        purpose=purpose,
        wait_s=wait_s,
        one_shot=True,
    )
    with held, make_root(layout.root, REGISTRY) as folder:
        present = _read(folder) or {"format": FORMAT, "settings": {}}
        change(present)
        folder.publish(CONFIG_FILE, (json.dumps(present, indent=2) + "\n").encode())


def _folder(layout: Layout) -> Folder:
    """Open the folder in which this process finds the settings; in a sandbox, that of the run around it."""
    if layout.sandbox is None:
        return open_root(layout.root, REGISTRY)
    try:
        return open_root(layout.sandbox)
    except FileNotFoundError:
        # The defaults would be a guess: whoever made the sandbox may have allowed less.
        raise UnavailableError(
            f"the sandboxed run around this process has ended: {shown(layout.sandbox)}, with its settings, is gone; "
            "start the command without PRONTODB_SANDBOX"
        ) from None


def copy(layout: Layout, target: Folder) -> None:
    """Make the settings file of a root the one in `target`, too; where there is none, there is none."""
    try:
        with open_root(layout.root, REGISTRY) as folder:
            data = None if folder.stat(CONFIG_FILE) is None else read_bytes(folder, CONFIG_FILE)
    except FileNotFoundError:
        data = None
    if data is None:
        target.remove(CONFIG_FILE)
    else:
        target.publish(CONFIG_FILE, data)


def _read(folder: Folder) -> dict[str, Any] | None:
    """Return the top-level fields, their shape checked; None when there is no file."""
    path = f"{folder.path}/{CONFIG_FILE}"
    try:
        fields = read_json(folder, CONFIG_FILE)
    except CorruptError as error:
        raise CorruptError(f"{error}; {WAY_OUT}") from error
    if fields is None and folder.stat(CONFIG_FILE) is None:
        return None
    if not isinstance(fields, dict):
        raise _broken(path, "it holds no JSON object")
    version = fields.get("format")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise _broken(path, "field 'format' must be a whole number from 1 up")
    if version > FORMAT:
        raise NewerFormatError(shown(path), version, FORMAT)
    if not isinstance(fields.setdefault("settings", {}), dict):
        raise _broken(path, "field 'settings' must be a JSON object")
    try:
        sections.check(fields)
    except InvalidSettingsError as error:
        raise InvalidSettingsError(f"{shown(path)}: {error}") from error
    return fields


def _broken(path: str, reason: str) -> CorruptError:
    return CorruptError(f"{shown(path)} is not a settings file: {reason}; {WAY_OUT}")
