"""JSON from outside: strict, or refused in one line that holds no contents."""

import pytest

from prontodb.model import strict_json

DEEP = 100_000

HOSTILE = {
    "empty": b"",
    "torn": b'{"a": [1, 2',
    "torn in a string": b'{"a": "secret',
    "two values": b"{} {}",
    "a field twice": b'{"a": 1, "b": {"secret": 1, "secret": 2}}',
    "NaN": b'{"a": NaN}',
    "an infinity": b"-Infinity",
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "a long number": b"1" * 5_000,
    "a control character": b'"secret\x00"',
    "a bad escape": b'"secret\\x"',
    "not UTF-8": b'"secret\xff"',
    "an encoded surrogate": b'"\xed\xa0\x80"',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "a comment": b"{} // secret",
    "a trailing comma": b"[1,]",
    "single quotes": b"{'a': 1}",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_json_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        strict_json.loads(data)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 200
    assert "secret" not in message.replace("field 'secret' stands twice", "")


def test_many_fields_of_which_the_last_stands_twice_cost_no_more_than_their_number() -> None:
    # A quadratic search for the name would run for hours here.
    fields = ",".join(f'"f{number}":0' for number in range(200_000))
    with pytest.raises(ValueError, match="field 'f199999' stands twice"):
        strict_json.loads("{" + fields + ',"f199999":0}')


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b' {"a": [1, 2.5, true, null, "\xc3\xa4"]} ', {"a": [1, 2.5, True, None, "ä"]}),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        (b"null", None),
        (b'{"a": {"b": 1}, "b": {"b": 2}}', {"a": {"b": 1}, "b": {"b": 2}}),
    ],
)
def test_strict_json_is_read(data: bytes | str, value: object) -> None:
    assert strict_json.loads(data) == value
