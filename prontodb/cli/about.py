"""settings, doctor, version, inspect: what can be said about this root and this program."""

from __future__ import annotations

from prontodb.cli import output
from prontodb.cli.commands import COMMANDS
from prontodb.cli.environment import Place, layout, principal, token
from prontodb.cli.output import DONE, ERROR
from prontodb.cli.parsing import Args, Syntax
from prontodb.errors import InvalidSettingsError, ProntoError
from prontodb.log import event
from prontodb.model.access import ADMIN, EVERYWHERE, READ
from prontodb.model.limits import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from prontodb.model.layout import Layout

SYNTAX = {
    "settings show": Syntax(
        about=(
            "Prints every setting of this root as name=value, and what differs from the default on "
            "stderr, then the rules of its quotas; --json adds default and meaning. Settings stand in "
            "registry/global_config.json:\n"
            '{"format": 1, "settings": {"max_value_bytes": 1048576},\n'
            ' "quotas": [{"addresses": "agent1/*", "max_entries": 1000}]}'
        ),
        examples=(("prontodb settings show", "max_value_bytes=16777216, ..."),),
    ),
    "settings check": Syntax(
        about="Reads the settings file; exit 1 when it is wrong. Unknown settings are named on stderr.",
        examples=(("prontodb settings check && systemctl reload agents", "before using a new file"),),
    ),
    "doctor": Syntax(
        (),
        ("--deep", "--repair"),
        about=(
            "Examines versions, file system, modes, formats, the registry and every keystore; --deep "
            "reads every entry and tests its checksum; --repair heals what can be healed safely and "
            "says what it did. Facts and findings go to stdout; exit 1 when an error is left."
        ),
        examples=(
            ("prontodb doctor", "a look at everything"),
            ("prontodb doctor --repair", "rebuild the registry, finish what crashes left"),
        ),
    ),
    "version": Syntax(
        about=(
            "Prints the versions of ProntoDB, Python, SQLite and the format on disk, and whether "
            "'prontodb run --sandbox' is possible."
        ),
        examples=(("prontodb version --json", "for programs"),),
    ),
    "inspect": Syntax(
        about="Lists all commands, one a line; --json adds heading, usage and options.",
        examples=(("prontodb inspect --json", "for programs that call this one"),),
    ),
}


_QUOTA = "what the addresses that match may use; for each limit the most exact rule that sets it counts"


def do_settings_show(args: Args) -> int:
    """Print every setting."""
    settings = Place(args).settings
    for name, value, default, meaning in settings.describe():
        if args.flag("--json"):
            output.json_line({"name": name, "value": value, "default": default, "meaning": meaning})
        else:
            output.line(f"{name}={_plain(value)}")
            if value != default:
                output.note(f"{name} differs from its default, {_plain(default)}")
    for number, rule in enumerate(settings.quotas):
        if args.flag("--json"):
            output.json_line({"name": f"quotas[{number}]", "value": rule.as_json(), "default": None, "meaning": _QUOTA})
        else:
            output.line(f"quotas[{number}]={output.escaped(str(rule))}")
    return DONE


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "none" if value is None else str(value)


def _sections(at: Layout) -> list[str]:
    """Check what the file says of jobs and backups; return warnings of what is unknown there."""
    from prontodb.backup.retention import Policy
    from prontodb.jobs import plan
    from prontodb.registry import configuration, grants

    _, of_jobs = plan.schedules_of(configuration.section(at, "jobs"))
    grants.rules(at)
    backups, of_backups = plan.backups_of(configuration.section(at, "backups"))
    return [*of_jobs, *of_backups, *Policy.parse(backups.retention)[1]]


def do_settings_check(args: Args) -> int:
    """Say whether the settings file is right."""
    from prontodb.registry import configuration

    at = layout(args)
    _, warnings = configuration.load(at)
    warnings += _sections(at)
    for warning in warnings:
        output.note(warning)
    if not warnings:
        output.note("the settings are right")
    return DONE


def _check_may_examine(args: Args, layout: Layout) -> None:
    """Raise where access rules do not allow it, or are there and wrong."""
    from prontodb.access import Access, Caller
    from prontodb.model.clock import Clock

    caller_name, shown_token = principal(args), token(args)
    try:
        access = Access(layout, Clock())
    except InvalidSettingsError:
        raise
    except ProntoError:
        return  # what is no settings file at all is a finding, and does not say that there are rules
    Caller(access, caller_name, shown_token).allow(ADMIN if args.flag("--repair") else READ, EVERYWHERE)


def do_doctor(args: Args) -> int:
    """Examine the root."""
    from prontodb.doctor import examine
    from prontodb.model.clock import Clock

    at, limits = layout(args), Limits()
    _check_may_examine(args, at)
    try:
        place = Place(args)
        at, limits = place.layout, place.limits
    except ProntoError as error:
        event("settings.refused", reason=str(error))  # one of the findings, and no reason not to look
    report = examine(at, limits, Clock(), deep=args.flag("--deep"), repair=args.flag("--repair"))
    failed = any(finding.level == "error" for finding in report.findings)
    if args.flag("--json"):
        output.json_line(report.as_dict())
        return ERROR if failed else DONE
    for name, value in dict(report.facts).items():
        output.line(f"{name}: {output.escaped(str(value))}")
    for done in report.repaired:
        output.line(f"repaired: {output.escaped(done)}")
    for finding in report.findings:
        fix = f"; {finding.fix}" if finding.fix else ""
        output.line(f"{finding.level}: {output.escaped(finding.what + fix)}")
    return ERROR if failed else DONE


def do_version(args: Args) -> int:
    """Print versions."""
    import platform

    from prontodb import __version__
    from prontodb.engine.sqlite.schema import FORMAT
    from prontodb.storage.connection import LIBRARY_VERSION
    from prontodb.storage.landlock import described

    versions = {
        "prontodb": __version__,
        "python": platform.python_version(),
        "sqlite": LIBRARY_VERSION,
        "format": str(FORMAT),
        "sandbox": described(),
    }
    if args.flag("--json"):
        output.json_line(versions)
    else:
        for name, version in versions.items():
            output.line(f"{name} {version}")
    return DONE


def do_inspect(args: Args) -> int:
    """List all commands."""
    from prontodb.cli.help import syntax_of, usage

    width = max(map(len, COMMANDS))
    for name, (_, _, summary, group) in COMMANDS.items():
        if args.flag("--json"):
            syntax = syntax_of(name)
            output.json_line(
                {
                    "name": name,
                    "group": group,
                    "summary": summary,
                    "usage": usage(name, syntax),
                    "options": sorted(syntax.options),
                }
            )
        else:
            output.line(f"{name:{width}}  {summary}")
    return DONE
