"""What lies there is sound: `doctor` finds nothing after one repair, and every journal holds together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .tally import Tally

if TYPE_CHECKING:
    from ..aftermath import Aftermath
    from ..history import History
    from ..verdict import Verdict

CHECK = "soundness"
PUT_ASIDE = "registry that was set aside"
ONE_HARMS_NO_OTHER, NEVER_TORN, AUDITED = 5, 6, 43


def check(history: History, aftermath: Aftermath) -> Verdict:
    """Check what the product's own examinations say, and that everything could be read."""
    tally = Tally(CHECK)
    tally.count(ONE_HARMS_NO_OTHER, aftermath.examined)
    tally.count(NEVER_TORN, aftermath.examined)
    tally.count(AUDITED, aftermath.audited)
    for problem in aftermath.problems:
        if PUT_ASIDE in problem and history.faults_of("registry"):
            continue  # an index whose log lost its database is put aside for somebody to look at, and said to be there
        promise = NEVER_TORN if ".json" in problem else ONE_HARMS_NO_OTHER
        tally.violate(promise, f"doctor still finds after a repair: {problem}")
    for error in aftermath.errors:
        tally.violate(ONE_HARMS_NO_OTHER, f"could not be read after all faults were taken back: {error}")
    for problem in aftermath.audit_problems:
        tally.violate(AUDITED, f"the audit finds: {problem}")
    return tally.verdict()
