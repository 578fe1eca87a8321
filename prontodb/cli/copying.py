"""copy: one entry, or all that begin with a prefix, also to another address."""

from __future__ import annotations

from prontodb.cli import output
from prontodb.cli.data import exists_already, missed
from prontodb.cli.environment import Place, address
from prontodb.cli.output import DONE
from prontodb.cli.parsing import PATH, Args, Syntax
from prontodb.cli.piping import RESCUE_PREFIX
from prontodb.direct import run
from prontodb.errors import ConflictError, RevisionConflictError, shown
from prontodb.model.address import Address
from prontodb.model.operation import ABSENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from prontodb.keystore import Keystore

SYNTAX = {
    "copy": Syntax(
        ("[SRC]", "[DST]"),
        (*PATH, "--to-user", "--to-cursor", "--overwrite", "--prefix", "--on-conflict"),
        about=(
            "Copies the entry SRC to DST with its expiry, at the same address or at --to-user and "
            "--to-cursor (what is left out there is as in the source); DST may be left out when the "
            "address differs. The target address is made when it does not exist; its entry is written "
            "over only with --overwrite. A value kept under pipe.cache.* is copied without its 15 "
            "minutes. copy --prefix TEXT copies every key that begins with TEXT ('' for all) to "
            "another address; --on-conflict says what happens to keys that are there: fail (nothing "
            "is copied), keep or replace. Exit 2 when SRC is absent or expired."
        ),
        examples=(
            ("prontodb copy app.config.theme app.backup.theme", "at the same address"),
            ("prontodb copy app.config.theme --to-cursor staging", "the same key at another cursor"),
            ("prontodb --user a copy --prefix app. --to-user b", "a whole project, to another agent"),
        ),
    ),
}


def do_copy(args: Args) -> int:
    """Copy one entry or many."""
    source, source_word = address(args), args.maybe("SRC")
    target = Address(args.text("--to-user") or source.user, args.text("--to-cursor") or source.cursor)
    place = Place(args)
    if args.text("--prefix") is not None:
        if source_word is not None:
            raise args.usage_error("copy takes SRC and DST, or --prefix TEXT")
        return _copy_many(args, place, source, target)
    if source_word is None:
        raise args.usage_error("copy needs SRC")
    if args.text("--on-conflict") is not None:
        raise args.usage_error("--on-conflict goes with --prefix; one entry takes --overwrite")
    key = place.key(args, source_word)
    target_word = args.maybe("DST")
    if target_word is None and source == target:
        raise args.usage_error("copy needs DST, or another address with --to-user or --to-cursor")
    new_key = key if target_word is None else place.key(args, target_word)
    shot = place.one_shot(source, create=False)
    with shot as original, place.one_shot(target) as copy:
        try:
            copied = run(_copy_one(original, key, copy, new_key, overwrite=args.flag("--overwrite")))
        except RevisionConflictError:
            raise ConflictError(
                f"key {shown(new_key)} exists already at {target}; nothing was copied (--overwrite writes over it)"
            ) from None
        if copied:
            return DONE
        known = shot.exists()
    return missed(key if known else None, source)


async def _copy_one(source: Keystore, key: str, target: Keystore, new_key: str, *, overwrite: bool) -> bool:
    from prontodb.copying import copy_key

    if not key.startswith(RESCUE_PREFIX):
        return await copy_key(source, key, target, new_key, overwrite=overwrite)
    # What was rescued from a pipe comes to stay: set anew, without the rescue's own lifetime.
    value = await source.get(key)
    if value is None:
        return False
    await target.set(new_key, value, expect=None if overwrite else ABSENT)
    return True


def _copy_many(args: Args, place: Place, source: Address, target: Address) -> int:
    from prontodb.copying import copy_many

    prefix = args.text("--prefix") or ""
    on_conflict = args.text("--on-conflict")
    if on_conflict is None:
        on_conflict = "replace" if args.flag("--overwrite") else "fail"
    shot = place.one_shot(source, create=False)
    with shot as original, place.one_shot(target) as copy:
        try:
            report = run(copy_many(original, copy, prefix=prefix, on_conflict=on_conflict))
        except RevisionConflictError as error:
            raise exists_already(error.key, target, "copied") from None
        known = shot.exists()
    if not known:
        return missed(None, source)
    if args.flag("--json"):
        output.json_line({"copied": report.copied, "kept": report.kept, "expired": report.expired})
    output.note(f"copied {report.copied:,}, kept {report.kept:,} from {source} to {target}")
    return DONE
