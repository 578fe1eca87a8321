"""The promises that checkers count, in a few words each; the numbers are those of the full list of forty-five."""

from __future__ import annotations

PROMISES: dict[int, str] = {
    1: "what was acknowledged survives a kill",
    3: "a killed or failed operation has all of its effect or none",
    4: "what was cancelled says that its outcome is unknown, and leaves nothing open",
    5: "what one address suffers, no other address feels",
    6: "no file is ever half written",
    7: "nobody reads what lies at another's address",
    10: "each key behaves as if operations came one after the other; counters are exact",
    11: "nobody sees half a transaction",
    12: "nothing waits for ever",
    13: "one exclusive session at an address; who lost it writes no more",
    15: "what ends leaves no process and no unfinished file behind",
    17: "what has expired is never returned",
    18: "what has not expired is never swept or hidden",
    19: "a wrong wall clock makes nothing expire for good",
    22: "no session is listed that does not exist",
    23: "the registry lists what the folders hold, also when it was deleted",
    24: "a crash while an address is made, deleted or renamed leaves one or the other",
    25: "an address that went without a deletion is shown as missing, not dropped",
    26: "a listed backup is whole",
    27: "what is restored is the source at one instant",
    33: "an imported database is byte for byte what it was",
    34: "every row of an imported database comes over as it was",
    35: "an import takes nothing's place",
    43: "every acknowledged change has its audit record",
    44: "an operation ends in success or in a typed error that something explains",
}
