"""The settings file: absent, right, or refused; never half read and never half written."""

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from prontodb.errors import (
    BusyError,
    CorruptError,
    InvalidSettingsError,
    NewerFormatError,
    ProntoError,
    UnsafePathError,
)
from prontodb.model.layout import CONFIG_FILE, REGISTRY_LOCK_FILE, Layout
from prontodb.model.settings import Settings
from prontodb.registry import configuration
from prontodb.storage import lock

DEEP = 100_000


def write(root: Path, data: bytes | dict[str, Any]) -> Path:
    folder = root / "registry"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / CONFIG_FILE
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    path.chmod(0o600)
    return path


def test_without_a_file_or_a_root_the_defaults_hold_and_nothing_is_made(root: Path) -> None:
    assert configuration.load(Layout(str(root))) == (Settings(), [])
    assert configuration.load(Layout(str(root / "absent"))) == (Settings(), [])
    assert list(root.iterdir()) == []


def test_what_the_file_says_holds_and_what_it_leaves_out_has_its_default(root: Path) -> None:
    write(root, {"format": 1, "settings": {"durability": "relaxed", "max_entries": None}, "schedules": [1]})
    expected = Settings(durability="relaxed", max_entries=None)
    assert configuration.load(Layout(str(root))) == (expected, ["section 'schedules' is unknown; it is ignored"])


def test_unknown_settings_are_warned_of(root: Path) -> None:
    write(root, {"format": 1, "settings": {"wait": 1}})
    settings, warnings = configuration.load(Layout(str(root)))
    assert settings == Settings()
    assert warnings == ["setting 'wait' does not exist; did you mean wait_s? it is ignored"]


HOSTILE = {
    "empty": b"",
    "torn": b'{"format": 1, "settings": {"lanes": 2',
    "a null": b"null",
    "a list": b"[]",
    "a string": b'"settings"',
    "no format": b'{"settings": {}}',
    "format zero": b'{"format": 0}',
    "format true": b'{"format": true}',
    "format text": b'{"format": "1"}',
    "format fraction": b'{"format": 1.0}',
    "settings list": b'{"format": 1, "settings": []}',
    "settings null": b'{"format": 1, "settings": null}',
    "a field twice": b'{"format": 1, "format": 1}',
    "a setting twice": b'{"format": 1, "settings": {"lanes": 2, "lanes": 3}}',
    "NaN": b'{"format": 1, "settings": {"wait_s": NaN}}',
    "infinity": b'{"format": 1, "settings": {"wait_s": Infinity}}',
    "deep": b'{"format": 1, "settings": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep objects": b'{"format": 1, "settings": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    "a number of 5,000 digits": b'{"format": 1, "settings": {"lanes": ' + b"9" * 5_000 + b"}}",
    "not UTF-8": b'{"format": 1, "settings": {"\xff": 1}}',
    "NULs, as after a power cut": b"\x00" * 200,
    "too large": b'{"format": 1, "x": "' + b"x" * 1024 * 1024 + b'"}',
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_file_that_is_no_settings_file_is_refused_by_name_and_left_as_it_is(root: Path, data: bytes) -> None:
    path = write(root, data)
    layout = Layout(str(root))
    for use in (lambda: configuration.load(layout), lambda: configuration.save(layout, Settings(lanes=3))):
        with pytest.raises(CorruptError) as caught:
            use()
        assert CONFIG_FILE in str(caught.value)
        assert str(caught.value).isprintable()
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lanes", 0),
        ("lanes", True),
        ("lanes", 2.0),
        ("lanes", "2"),
        ("lanes", 10**4_000),
        ("wait_s", "5"),
        ("wait_s", [5]),
        ("durability", None),
        ("durability", "\ud800"),
        ("inline_reads", 1),
    ],
    ids=[f"wrong-{number}" for number in range(10)],
)
def test_a_wrong_setting_is_refused_with_the_file_and_its_name(root: Path, name: str, value: object) -> None:
    write(root, {"format": 1, "settings": {name: value}})
    with pytest.raises(InvalidSettingsError, match=rf"{CONFIG_FILE}': setting {name} is") as caught:
        configuration.load(Layout(str(root)))
    assert str(caught.value).isprintable()


def test_a_number_that_json_turns_into_infinity_is_refused(root: Path) -> None:
    write(root, b'{"format": 1, "settings": {"wait_s": 1e999}}')
    with pytest.raises(InvalidSettingsError, match="wait_s is inf"):
        configuration.load(Layout(str(root)))


def test_a_newer_format_is_refused_whatever_else_it_holds(root: Path) -> None:
    path = write(root, {"format": 2, "settings": "elsewhere"})
    with pytest.raises(NewerFormatError):
        configuration.load(Layout(str(root)))
    with pytest.raises(NewerFormatError):
        configuration.save(Layout(str(root)), Settings())
    assert json.loads(path.read_text())["format"] == 2


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "open to others"])
def test_what_is_no_private_file_of_ours_is_not_followed(root: Path, kind: str) -> None:
    path = write(root, {"format": 1, "settings": {"lanes": 5}})
    if kind == "open to others":
        path.chmod(0o666)
    else:
        path.rename(root / "elsewhere")
    if kind == "link":
        path.symlink_to(root / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(UnsafePathError):
        configuration.load(Layout(str(root)))


# Saving


def test_saved_settings_are_read_back_and_only_what_differs_is_written(root: Path) -> None:
    layout = Layout(str(root))
    settings = Settings(lanes=4, wait_s=0.5, max_keystore_bytes=2**30, max_entries=None)
    configuration.save(layout, settings)
    assert configuration.load(layout) == (settings, [])
    path = root / "registry" / CONFIG_FILE
    assert json.loads(path.read_text()) == {
        "format": 1,
        "settings": {"wait_s": 0.5, "max_keystore_bytes": 2**30, "lanes": 4},
    }
    assert path.stat().st_mode & 0o777 == 0o600
    configuration.save(layout, Settings())
    assert json.loads(path.read_text()) == {"format": 1, "settings": {}}


def test_saving_makes_a_root_that_is_missing(root: Path) -> None:
    layout = Layout(str(root / "new"))
    configuration.save(layout, Settings(lanes=4))
    assert configuration.load(layout) == (Settings(lanes=4), [])


def test_saving_keeps_what_it_does_not_know(root: Path) -> None:
    path = write(root, {"format": 1, "schedules": {"sweep": "1h"}, "settings": {"lanes": 9, "lnaes": 9, "wait_s": 1}})
    configuration.save(Layout(str(root)), Settings(wait_s=2))
    assert json.loads(path.read_text()) == {
        "format": 1,
        "schedules": {"sweep": "1h"},
        "settings": {"lnaes": 9, "wait_s": 2},
    }


def test_a_save_that_cannot_be_finished_leaves_the_old_file_and_nothing_else(root: Path) -> None:
    layout = Layout(str(root))
    configuration.save(layout, Settings(lanes=4))
    os.remove(root / "registry" / CONFIG_FILE)
    (root / "registry" / CONFIG_FILE).mkdir(mode=0o700)
    with pytest.raises(ProntoError):
        configuration.save(layout, Settings(lanes=5))
    assert sorted(os.listdir(root / "registry")) == [CONFIG_FILE, "locks"]


def test_a_save_waits_for_another_and_gives_up_at_its_deadline(root: Path) -> None:
    layout = Layout(str(root))
    held = lock.acquire(
        layout.root,
        layout.registry_lock_parts(),
        REGISTRY_LOCK_FILE,
        purpose="test",
        wait_s=1,
        one_shot=True,
    )
    with held, pytest.raises(BusyError, match="test"):
        configuration.save(layout, Settings(wait_s=0))


def _save_beside(root: str, number: int) -> None:
    configuration.save(Layout(root), Settings(lanes=number, wait_s=60))


@pytest.mark.slow
def test_processes_that_save_at_once_leave_one_whole_file(root: Path) -> None:
    write(root, {"format": 1, "schedules": ["kept"], "settings": {}})
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_save_beside, args=(str(root), number)) for number in range(1, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    settings, warnings = configuration.load(Layout(str(root)))
    assert settings.lanes in range(1, 5)
    assert warnings == ["section 'schedules' is unknown; it is ignored"]
    assert json.loads((root / "registry" / CONFIG_FILE).read_text())["schedules"] == ["kept"]
