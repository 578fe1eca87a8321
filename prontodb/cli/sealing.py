"""secret: what seals the secrets of encrypted addresses, and copies for safe-keeping; address encrypt and its kin."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from prontodb.cli import output, tables
from prontodb.cli.backups import run
from prontodb.cli.environment import Place
from prontodb.cli.environment import address as environment_address
from prontodb.cli.output import DONE, ERROR
from prontodb.cli.parsing import Args, Syntax
from prontodb.cli.piping import read_small
from prontodb.cli.secrets import ask_passphrase
from prontodb.encryption.records import MAX_RECORD_BYTES
from prontodb.encryption.sources import (
    KEY_BYTES,
    KeyCommand,
    KeyFile,
    Passphrase,
    SystemKeyring,
)
from prontodb.engine.sqlite import belonging
from prontodb.errors import InvalidInputError, ProntoError, SecretError, shown
from prontodb.model.access import ADMIN
from prontodb.model.address import Address
from prontodb.model.moments import text_of
from prontodb.model.secret import is_record_id
from prontodb.storage.beside import new_private_file, publish_beside

if TYPE_CHECKING:
    from prontodb.encryption.keyring import Keyring
    from prontodb.encryption.records import Record
    from prontodb.encryption.sources import KeySource

_OTHERS = ("--with-key-file", "--with-command", "--with-keyring", "--with-passphrase")
_SOURCES = (
    "The key comes from PRONTODB_KEY_FILE (a file of ours, closed to all others), PRONTODB_KEY_COMMAND (a command that "
    "prints it), PRONTODB_KEYRING (a name in the system's keyring) or PRONTODB_PASSPHRASE, which processes of the same "
    "user can see; a passphrase is asked for on a terminal."
)
_NAMES = "An address is written user/cursor; user alone is its default cursor, _default."

SYNTAX = {
    "address encrypt": Syntax(
        ("[ADDRESS]",),
        about=(
            "Encrypts an address: written anew under a random secret of its own, and put in by rename; a kill at any "
            "step leaves it as it was, or encrypted. The secret lies in keys/, sealed with a key from elsewhere. "
            "Backups made before stay plain, and blocks that the disk gave back may keep old bytes: prune the ones, "
            "and encrypt the disk where the others matter. What restores put aside of it is removed: 'restore --undo' "
            f"does not reach behind it. Refused while sessions are there. {_SOURCES}"
        ),
        examples=(
            ("prontodb secret make ~/.config/prontodb.key", "a key, once"),
            ("PRONTODB_KEY_FILE=~/.config/prontodb.key prontodb address encrypt agent1/prod", "and from then on"),
        ),
    ),
    "address decrypt": Syntax(
        ("[ADDRESS]",),
        about=(
            "Makes an encrypted address plain. Its key record stays, for the backups of its time and for what restores "
            "put aside: an undo brings that back encrypted. Refused while "
            f"sessions are there. {_NAMES}"
        ),
        examples=(("prontodb address decrypt agent1/prod", "readable by whoever can read the file"),),
    ),
    "address rekey": Syntax(
        ("[ADDRESS]",),
        ("--drop-older",),
        about=(
            "Writes an encrypted address anew under a new secret. The old one stays in the key record for the "
            "backups of its time and for 'restore --undo', unless --drop-older: then nothing can read those any more, "
            "and what restores put aside is removed. To change only the key "
            f"that seals the records, which rewrites no address: 'prontodb secret rotate'. {_NAMES}"
        ),
        examples=(
            ("prontodb address rekey agent1/prod", "old backups can still be restored"),
            ("prontodb address rekey agent1/prod --drop-older", "they cannot"),
        ),
    ),
    "secret list": Syntax(
        about="Lists the key records: id, address, what kind of key seals them, since when. Needs no key.",
        examples=(("prontodb secret list", "one line a record"), ("prontodb secret list --json", "for programs")),
    ),
    "secret make": Syntax(
        ("[FILE]",),
        ("--keyring",),
        about=(
            "Makes a random key: as the new file FILE, closed to all others, or with --keyring under a name in the "
            "system's keyring. Keep a copy of it elsewhere: what is encrypted is lost without it."
        ),
        examples=(
            ("prontodb secret make ~/.config/prontodb.key", "then: export PRONTODB_KEY_FILE=~/.config/prontodb.key"),
            ("prontodb secret make --keyring agents", "then: export PRONTODB_KEYRING=agents"),
        ),
    ),
    "secret export": Syntax(
        ("RECORD|ADDRESS",),
        ("--output", *_OTHERS),
        about=(
            "Prints a key record, or writes it into the file --output, for safe-keeping: sealed as it is, or anew with "
            "another key. It is of use only together with the key that seals it. Records are in no backup."
        ),
        examples=(
            ("prontodb secret export agent1/prod > agent1-prod.key.json", "a copy of the sealed secret"),
            (
                "prontodb secret export agent1/prod --with-passphrase --output /mnt/safe/a.json",
                "sealed with a passphrase",
            ),
        ),
    ),
    "secret import": Syntax(
        ("FILE",),
        ("--for", *_OTHERS),
        about=(
            "Takes an exported record back ('-': from stdin), sealed anew with the present key. One that is here and "
            "holds keys which the file has not is never replaced; one that cannot be read is kept beside it. "
            "--with-key-file and the others name what the file is sealed with, if that is another key; --for ADDRESS "
            "says whose it is now, if that was renamed since."
        ),
        examples=(("prontodb secret import agent1-prod.key.json", "after keys/ was lost, or on another machine"),),
    ),
    "secret rotate": Syntax(
        (),
        _OTHERS,
        about=(
            "Seals every key record with another key: --with-key-file FILE, --with-command COMMAND, --with-keyring "
            "NAME or --with-passphrase. No address is rewritten. Interrupted, it goes on when it is run again with "
            "both keys."
        ),
        examples=(("prontodb secret rotate --with-key-file ~/.config/new.key", "then name the new one from then on"),),
    ),
}


# address encrypt, decrypt, rekey


def do_address_encrypt(args: Args) -> int:
    """Encrypt an address."""
    return _reseal(args, "encrypt")


def do_address_decrypt(args: Args) -> int:
    """Make an address plain."""
    return _reseal(args, "decrypt")


def do_address_rekey(args: Args) -> int:
    """Give an encrypted address a new secret."""
    return _reseal(args, "rekey")


def _reseal(args: Args, what: str) -> int:
    from dataclasses import asdict

    word = args.maybe("ADDRESS")
    where, place = environment_address(args) if word is None else Address.parse(word), Place(args)
    place.allow(ADMIN, where)
    drop = what == "rekey" and args.flag("--drop-older")
    report = run(place.work().resealing(where, what, drop_older=drop), args, "rows", what)
    if args.flag("--json"):
        output.json_line(asdict(report) | {"address": str(report.address)})
        return DONE
    done = {"encrypt": "encrypted", "decrypt": "plain", "rekey": "under a new secret"}[what]
    output.note(
        f"{where} is {done} now: {tables.counted(report.entries, 'entry', 'entries')} in {report.seconds:.2f} s"
    )
    if what == "encrypt":
        output.note("backups made before are still plain: see 'prontodb backup list', and make a new one")
    if report.forgotten:
        states = tables.counted(report.forgotten, "state", "states")
        output.note(f"{states} that restores had put aside went: 'prontodb restore --undo' does not reach behind this")
    if drop:
        output.note("older secrets are forgotten: backups made with them cannot be read any more")
    return DONE


# secret


def _keyring(place: Place) -> Keyring:
    from prontodb.cli.secrets import LazyKeys

    keys = place.layout.keys
    assert isinstance(keys, LazyKeys)
    return keys.keyring


def do_secret_list(args: Args) -> int:
    """List the key records."""
    place = Place(args)
    seen, keyring = place.seen(), _keyring(place)
    failed = False
    rows: list[tuple[str, ...]] = []
    for name in sorted(keyring.ids()):
        try:
            record = keyring.record(name)
        except ProntoError as error:
            output.error(str(error))
            failed = True
            continue
        if not seen(record.address):
            continue
        if args.flag("--json"):
            fields = {"id": record.id, "address": record.address, "kind": record.kind, "check": record.check}
            output.json_line(fields | {"created_at_ms": record.created_at_ms})
        rows.append((record.id, output.escaped(record.address), record.kind, text_of(record.created_at_ms)))
    if not args.flag("--json"):
        tables.show(("record", "address", "sealed with", "since"), rows)
    return ERROR if failed else DONE


def do_secret_make(args: Args) -> int:
    """Make a random key."""
    path, name = args.maybe("FILE"), args.text("--keyring")
    if (path is None) == (name is None):
        raise args.usage_error("name a FILE for the key, or --keyring NAME")
    if name is not None:
        SystemKeyring(name).make()
        output.note(f"the keyring holds a new key; use it with: export PRONTODB_KEYRING={shlex.quote(name)}")
        return DONE
    assert path is not None
    whole = os.path.abspath(path)
    new_private_file(whole, os.urandom(KEY_BYTES).hex().encode() + b"\n")
    output.note(
        f"{shown(whole)} holds a new key; keep a copy elsewhere. "
        f"Use it with: export PRONTODB_KEY_FILE={shlex.quote(whole)}"
    )
    return DONE


def _other(args: Args, prompt: str) -> KeySource | None:
    """Return the other key that is meant, None for none."""
    given = [option for option in _OTHERS if args.flag(option)]
    if len(given) > 1:
        raise args.usage_error(f"{given[0]} and {given[1]} do not go together")
    if not given:
        return None
    text = args.text(given[0]) or ""
    if given[0] == "--with-key-file":
        return KeyFile(os.path.abspath(text))
    if given[0] == "--with-command":
        return KeyCommand(text)
    return SystemKeyring(text) if given[0] == "--with-keyring" else Passphrase(_asked(prompt))


def _asked(prompt: str) -> str:
    """Ask for a passphrase, a new one twice; off a terminal it comes from PRONTODB_OTHER_PASSPHRASE."""
    given = os.environ.get("PRONTODB_OTHER_PASSPHRASE")
    if given:
        return given
    try:
        first = ask_passphrase(f"{prompt}: ")
    except SecretError:
        raise SecretError("set PRONTODB_OTHER_PASSPHRASE, or run it on a terminal to be asked") from None
    if prompt.startswith("new") and ask_passphrase("once more: ") != first:
        raise SecretError("these were two different passphrases; nothing was done")
    return first


def _named(keyring: Keyring, place: Place, name: str) -> Record:
    if is_record_id(name):
        return keyring.record(name)
    where = Address.parse(name)
    found = keyring.of_address(where)
    if not found:
        raise InvalidInputError(f"no key record is of {name}; 'prontodb secret list' shows all")
    if len(found) > 1:
        used = [one for one in found if belonging.uses(place.layout, where, one.id)]
        found = used if len(used) == 1 else found
    if len(found) > 1:
        raise InvalidInputError(
            f"{len(found)} key records are of {name}; name one: {', '.join(one.id for one in found)}"
        )
    return found[0]


def _allowed(place: Place, keyring: Keyring, name: str) -> Record:
    """Return the record that is meant; who may not have it is not told whether there is one."""
    if not is_record_id(name):
        place.allow(ADMIN, Address.parse(name))
        record = _named(keyring, place, name)
        for one in record.addresses:
            place.allow(ADMIN, one)
        return record
    try:
        record = _named(keyring, place, name)
    except ProntoError:
        place.allow(ADMIN)
        raise
    caller = place.caller
    if caller is not None and not all(caller.may(ADMIN, one) for one in record.addresses):
        place.allow(ADMIN)
    return record


def do_secret_export(args: Args) -> int:
    """Export a key record."""
    place = Place(args)
    keyring = _keyring(place)
    record = _allowed(place, keyring, args.word("RECORD|ADDRESS"))
    data = keyring.exported(record, _other(args, "new passphrase"))
    path = args.text("--output")
    if path is None:
        output.write(data)
    else:
        publish_beside(os.path.abspath(path), (data,))
        output.note(f"{record} is in {shown(path)}")
    return DONE


def do_secret_import(args: Args) -> int:
    """Take an exported record back."""
    path, place = args.word("FILE"), Place(args)
    place.allow(ADMIN)
    keyring, whose = _keyring(place), args.text("--for")
    data, other = _read(path), _other(args, "passphrase of the file")
    record, is_new, aside = keyring.imported(data, other, None if whose is None else Address.parse(whose))
    output.note(f"{record} is here again" if is_new else f"{record} was here already")
    if aside is not None:
        output.note(f"what was here and could not be read is kept as {shown(aside)}")
    namers = [str(one) for one in belonging.namers(place.layout, record.id)]
    if namers and record.address not in namers:
        output.note(
            f"{', '.join(namers)} is to be opened with it and may not, for it says it is of {record.address}; if "
            f"that is the same address under another name: prontodb secret import {shlex.quote(path)} --for {namers[0]}"
        )
    return DONE


def _read(path: str) -> bytes:
    data = read_small(path, MAX_RECORD_BYTES + 1)
    if len(data) > MAX_RECORD_BYTES:
        raise InvalidInputError(f"{shown(path)} is no exported key record: it is too large")
    return data


def do_secret_rotate(args: Args) -> int:
    """Seal every record with another key."""
    place = Place(args)
    place.allow(ADMIN)
    other = _other(args, "new passphrase")
    if other is None:
        raise args.usage_error("name the new key: --with-key-file, --with-command, --with-keyring or --with-passphrase")
    rotation = _keyring(place).rotate(other)
    for line in rotation.damaged:
        output.error(f"left as it is: {line}")
    output.note(
        f"sealed with the new key: {tables.counted(rotation.done, 'key record')} now, {rotation.before:,} before. "
        "Name that key from now on. Programs that still run with the old one make new records with it: restart them, "
        "then run this again"
    )
    return ERROR if rotation.damaged else DONE
