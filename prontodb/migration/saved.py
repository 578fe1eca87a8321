"""A plan as data: saved as JSON, looked at by people, and applied later to the very same source."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from prontodb.errors import ConflictError, InvalidInputError, NewerFormatError, ProntoError, shown
from prontodb.migration.plan import Options
from prontodb.model import strict_json
from prontodb.model.address import Address

if TYPE_CHECKING:
    from prontodb.migration.plan import Plan
    from prontodb.migration.report import MigrationReport

FORMAT = 1
MARK = "prontodb_migration_plan"
MAX_PLAN_BYTES = 64 * 1024 * 1024


class SavedPlan:
    """What was decided, and about what: the source with its files' hashes, the options, and where each place goes."""

    def __init__(self, source: str, options: Options, files: dict[str, str], places: dict[str, str | None]) -> None:
        self.source, self.options, self.files, self.places = source, options, files, places

    def check(self, plan: Plan) -> None:
        """Raise `ConflictError` when a plan made just now is about other files, or sends places elsewhere."""
        files = {file.name: file.sha256 for file in plan.source.files}
        changed = sorted(name for name in files.keys() | self.files.keys() if files.get(name) != self.files.get(name))
        if changed:
            raise ConflictError(
                f"{shown(changed[0])} is not as it was when the plan was made; nothing was written: make a new plan"
            )
        places = _places_of(plan)
        for old in sorted(places.keys() | self.places.keys()):
            if places.get(old) != self.places.get(old):
                raise ConflictError(
                    f"{shown(old)} would go to {places.get(old)} now, and went to {self.places.get(old)} in the plan; "
                    "nothing was written: make a new plan"
                )


def text_of(plan: Plan, report: MigrationReport) -> str:
    """Return a plan as the text of its file."""
    fields = {
        MARK: FORMAT,
        "source": plan.source.path,
        "made_at_ms": plan.now_ms,
        "options": {
            "map": {old: str(address) for old, address in sorted(plan.options.mapping.items())},
            "delimiter": plan.options.delimiter,
            "on_conflict": plan.options.on_conflict,
            "skip": sorted(plan.options.skip),
        },
        "files": {file.name: file.sha256 for file in plan.source.files},
        "places": _places_of(plan),
        "counts": {
            name: count for name, count in asdict(report).items() if isinstance(count, int) and name != "dry_run"
        },
    }
    return json.dumps(fields, indent=2, ensure_ascii=True) + "\n"


def _places_of(plan: Plan) -> dict[str, str | None]:
    return {one.old: None if one.address is None else str(one.address) for one in plan.places.places}


def read(data: bytes, name: str) -> SavedPlan:
    """Return a saved plan; `InvalidInputError` for what is none."""
    try:
        fields = strict_json.loads(data)
        assert_is(isinstance(fields, dict) and isinstance(fields.get(MARK), int))
        assert isinstance(fields, dict)
        if fields[MARK] > FORMAT:
            raise NewerFormatError(f"the plan {shown(name)}", fields[MARK], FORMAT)
        options, source = fields["options"], fields["source"]
        files, places = fields["files"], fields["places"]
        assert_is(isinstance(source, str) and isinstance(options, dict))
        for found in (options["map"], files, places):
            assert_is(isinstance(found, dict))
        assert_is(all(isinstance(value, str) for value in (*options["map"].values(), *files.values())))
        assert_is(all(isinstance(value, str | None) for value in places.values()))
        assert_is(isinstance(options["skip"], list) and all(isinstance(one, str) for one in options["skip"]))
        assert_is(isinstance(options["delimiter"], str) and isinstance(options["on_conflict"], str))
        mapping = {old: Address.parse(address) for old, address in options["map"].items()}
        chosen = Options(
            mapping=mapping,
            delimiter=options["delimiter"],
            on_conflict=options["on_conflict"],
            skip=tuple(options["skip"]),
        )
    except NewerFormatError:
        raise
    except (ValueError, KeyError, TypeError, ProntoError) as error:
        raise InvalidInputError(
            f"{shown(name)} is no plan of a migration ({type(error).__name__}); 'prontodb migrate SOURCE --dry-run "
            "--save-plan FILE' makes one"
        ) from None
    return SavedPlan(source, chosen, files, places)


def assert_is(condition: object) -> None:
    """Raise `ValueError` unless a field is what it must be."""
    if not condition:
        raise ValueError("a field is of another kind")
