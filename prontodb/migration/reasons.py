"""Why a row was not migrated: each reason with its sentence for people, and the way out."""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """Numbers stand in the ledger, names in `--json`."""

    NONE = 0
    FEW_PARTS = 1
    EMPTY_PART = 2
    DOT_IN_PART = 3
    NOT_TEXT = 4
    NOT_UTF8 = 5
    BAD_KEY = 6
    VALUE_NOT_TEXT = 7
    VALUE_NOT_UTF8 = 8
    VALUE_TOO_LARGE = 9
    NO_ADDRESS = 10
    TWIN_ADDRESS = 11
    TWIN_KEY = 12
    UNCLEAR_WHICH = 13
    KEPT = 14
    DELETED_HERE = 15
    FAILED = 16
    BAD_LIFETIME = 17


TEXTS = {
    Reason.FEW_PARTS: "the address has fewer than four parts; are they separated otherwise? see --delimiter",
    Reason.EMPTY_PART: "a part of the address or key is empty",
    Reason.DOT_IN_PART: "a part has a '.' inside, which separates parts here",
    Reason.NOT_TEXT: "the address or key is no text",
    Reason.NOT_UTF8: "the address or key is not UTF-8",
    Reason.BAD_KEY: "the key cannot be one here",
    Reason.VALUE_NOT_TEXT: "the value is no text (nothing, or a number that has no exact text)",
    Reason.VALUE_NOT_UTF8: "the value is not UTF-8, and only text can be stored",
    Reason.VALUE_TOO_LARGE: "the value is over the setting max_value_bytes",
    Reason.NO_ADDRESS: "no address for it; say which with --map",
    Reason.TWIN_ADDRESS: "its address differs only in case from another; say which is which with --map",
    Reason.TWIN_KEY: "several old keys become this one key",
    Reason.UNCLEAR_WHICH: "several databases hold the key with other values, and no time says which is the newest; "
    "send them to different addresses with --map",
    Reason.KEPT: "the address has the key with something else, which was kept; see --on-conflict",
    Reason.DELETED_HERE: "the address had the key and deleted it since; --on-conflict replace brings it back",
    Reason.FAILED: "its address could not be written",
    Reason.BAD_LIFETIME: "the namespace's default lifetime is no number of seconds up to 100 years",
}
