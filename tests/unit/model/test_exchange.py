"""The export format and its strict reading: a wrong line is named by number, a value is never shown."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prontodb.errors import InvalidImportError, NewerFormatError, ProntoError
from prontodb.model import exchange
from prontodb.model.address import Address
from prontodb.model.entry import Entry
from prontodb.model.exchange import LineReader, end, head, line_of
from prontodb.model.limits import Limits
from prontodb.model.operation import FOREVER, INHERIT, Op

SMALL = Limits(max_key_bytes=16, max_value_bytes=100)
HEAD = '{"prontodb":"export","format":1,"address":"a/b"}'
SECRET = "hunter2"


def read(*lines: bytes | str, limits: Limits = SMALL) -> list[Op]:
    reader = LineReader(limits)
    ops = [op for line in lines if (op := reader.feed(line)) is not None]
    reader.finish()
    return ops


def entry(**fields: Any) -> str:
    return json.dumps({"key": "k", "value": SECRET} | fields)


def test_an_export_is_read_back_with_head_and_end() -> None:
    first, second = Entry("a", "ä\n", 1, 2, None, 3), Entry("b", "", 1, 2, 9, 4)
    assert read(head(Address("a", "b")), line_of(first), line_of(second), end(2)) == [
        Op("a", "ä\n", FOREVER),
        Op("b", "", INHERIT, None, 9),
    ]
    assert read(head(Address()), end(0)) == []


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_value_is_one_line_of_ascii_and_comes_back(value: str) -> None:
    line = line_of(Entry("k", value, 1, 2, None, 3))
    assert line.isascii()
    assert line.splitlines() == [line]
    assert [op.value for op in read(line.encode() + b"\r\n", limits=Limits())] == [value]


def test_the_longest_line_an_entry_can_have_is_read() -> None:
    # A NUL is six characters in JSON, and so is a control character of a key's two bytes at most.
    largest = Entry("\U0001f600" * 4, "\x00" * 100, 10**14, 10**14, 10**14, 2**63 - 1)
    assert len(read(line_of(largest))) == 1


def test_hand_made_lines_need_key_and_value_only() -> None:
    assert read(
        b'{"key": "a", "value": "1"}\n',
        b"\n",
        b'\t{ "value" : "2" , "key" : "b", "ttl": 90 } \r\n',
        '{"key":"c","value":"3","ttl":"15m"}',
        '{"key":"d","value":"4","ttl":"never"}',
        '{"key":"e","value":"5","ttl":null}',
        '{"key":"f","value":"6","expires_at":5}',
        '{"key":"g","value":"7","expires_at":null}',
    ) == [
        Op("a", "1", INHERIT),
        Op("b", "2", 90_000),
        Op("c", "3", 900_000),
        Op("d", "4", FOREVER),
        Op("e", "5", INHERIT),
        Op("f", "6", INHERIT, None, 5),
        Op("g", "7", FOREVER),
    ]


WRONG_LINES: dict[str, bytes | str] = {
    "torn": entry()[:-1],
    "torn in the value": entry()[:-3],
    "no object": f'"{SECRET}"',
    "a list": f'["{SECRET}"]',
    "a null": "null",
    "text": SECRET,
    "two objects": entry() + entry(),
    "an empty object": "{}",
    "no key": json.dumps({"value": SECRET}),
    "no value": '{"key":"k"}',
    "a null value": entry(value=None),
    "a number as value": entry(value=7),
    "a bool as key": entry(key=True),
    "an object as value": entry(value={"a": SECRET}),
    "a list as value": entry(value=[SECRET]),
    "an empty key": entry(key=""),
    "a key with a line end": entry(key="a\nb"),
    "a key too long": entry(key="k" * 17),
    "a value too long": entry(value=SECRET * 20_000),
    "a lone surrogate as value": entry(value=SECRET + "\ud800"),
    "a lone surrogate as key": entry(key="\udfff"),
    "surrogates the wrong way round": entry(value="\ude00\ud83d"),
    "a field twice": f'{{"key":"k","value":"{SECRET}","value":"{SECRET}"}}',
    "an unknown field": entry(expire_at=5),
    "NaN": entry(ttl=float("nan")),
    "an infinity": entry(ttl=float("inf")),
    "a number that overflows": entry()[:-1] + ',"ttl":1e999}',
    "a ttl of zero": entry(ttl=0),
    "a ttl below zero": entry(ttl=-5),
    "a ttl of a thousand years": entry(ttl="52000w"),
    "a ttl of words": entry(ttl="soon"),
    "a bool as ttl": entry(ttl=True),
    "a ttl of many digits": entry()[:-1] + ',"ttl":' + "9" * 900 + "}",
    "both lifetimes": entry(ttl=5, expires_at=5),
    "an expiry as text": entry(expires_at="5"),
    "a fraction as expiry": entry(expires_at=5.0),
    "a bool as expiry": entry(expires_at=True),
    "an expiry before time": entry(expires_at=-1),
    "an expiry after the year 9999": entry(expires_at=253_402_300_800_000),
    "an expiry of many digits": entry(expires_at=10**800),
    "a number of 5,000 digits": entry(expires_at=0)[:-1] + "0" * 5_000 + "}",
    "created at text": entry(created_at="yesterday"),
    "updated at null": entry(updated_at=None),
    "revision zero": entry(revision=0),
    "not UTF-8": entry().encode() + b"\xff",
    "an encoded surrogate": entry().encode().replace(b"hunter2", b"\xed\xa0\x80"),
    "UTF-16": entry().encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + entry().encode(),
    "deep lists": '{"key":' + "[" * 100_000 + "]" * 100_000 + "}",
    "deep objects": '{"key":' * 100_000 + "1" + "}" * 100_000,
    "many fields": "{" + ",".join(f'"f{number}":1' for number in range(100)) + "}",
    "a wrong mark": '{"prontodb":"import"}',
    "a mark that is no text": '{"prontodb":1}',
    "an end without a head": '{"prontodb":"end","count":1}',
    "a head in the middle": HEAD,
}


@pytest.mark.parametrize("line", WRONG_LINES.values(), ids=WRONG_LINES.keys())
def test_a_wrong_line_is_named_by_its_number_and_shows_no_value(line: bytes | str) -> None:
    with pytest.raises(InvalidImportError, match=r"^line 3 cannot be imported: ") as caught:
        # Lines may be long here, so that each fails for its own reason.
        read('{"key":"first","value":""}', "", line, limits=Limits(max_key_bytes=16, max_value_bytes=100_000))
    message = str(caught.value)
    assert message.isprintable()
    assert SECRET not in message
    assert len(message) < 400


def test_a_line_longer_than_any_entry_is_refused_unread() -> None:
    most = exchange.max_line_bytes(SMALL)
    assert len(read(entry().ljust(most))) == 1
    with pytest.raises(InvalidImportError, match=f"longer than {most:,} bytes"):
        read(b" " * (most + 1))


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(InvalidImportError, match=r"^line 2 .* 'k' stands twice"):
        read(entry(), entry(value="another"))


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "nothing to import"),
        (["", " "], "nothing to import"),
        ([HEAD], "cut"),
        ([HEAD, entry()], "cut"),
        ([HEAD, entry(), end(2)], "^line 3 .* had 2 entries, but 1 are here"),
        ([HEAD, end(1)], "^line 2 .* had 1 entries, but 0"),
        ([HEAD, entry(), end(1), entry(key="z")], "^line 4 .* after the end"),
        ([HEAD, end(0), HEAD, end(0)], "^line 3 .* after the end"),
        ([HEAD, HEAD], "^line 2 .* may only stand first"),
        ([entry(), HEAD], "^line 2 .* may only stand first"),
        ([entry(), end(1)], "^line 2 .* head is missing"),
        ([HEAD, '{"prontodb":"end"}'], "^line 2 .* 'count' must be a whole number"),
        ([HEAD, '{"prontodb":"end","count":true}'], "^line 2 .* 'count' must be a whole number"),
        (['{"prontodb":"export"}'], "^line 1 .* 'format' must be a whole number"),
        (['{"prontodb":"export","format":0}'], "^line 1 .* 'format' must be a whole number"),
    ],
)
def test_heads_and_ends_must_match_what_is_between(lines: list[str], reason: str) -> None:
    with pytest.raises(InvalidImportError, match=reason):
        read(*lines)


def test_a_newer_export_is_refused_as_such() -> None:
    with pytest.raises(NewerFormatError):
        read('{"prontodb":"export","format":2,"packed":"yes"}')


def test_an_import_has_a_greatest_number_of_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MAX_IMPORT_ENTRIES", 2)
    with pytest.raises(InvalidImportError, match=r"^line 3 .* 2 entries at most"):
        read(entry(key="a"), entry(key="b"), entry(key="c"))


@given(st.binary(max_size=60) | st.text(max_size=60) | st.text('{}[]":,0\\ueky val', max_size=40))
def test_whatever_a_line_holds_it_is_read_or_refused_with_our_error(line: bytes | str) -> None:
    message = ""
    try:
        read(line)
    except ProntoError as error:
        message = str(error)
    assert message.isprintable()
