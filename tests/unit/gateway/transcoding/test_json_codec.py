"""JSON of messages both ways, against google.protobuf.json_format as the oracle."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.transcoding.field_error import FieldError
from gateway.transcoding.json_parser import parse_json
from gateway.transcoding.json_reader import JsonReaders, built
from gateway.transcoding.json_writer import JsonWriters
from tests.unit.gateway.transcoding.kinds_pool import POOL, message_class
from tests.unit.gateway.transcoding.random_messages import messages

EVERYTHING = POOL.FindMessageTypeByName("kinds.Everything")
TYPES = "type.googleapis.com/google.protobuf"
LARGEST_FLOAT = "3.4028235e+38"
READERS, WRITERS = JsonReaders(POOL), JsonWriters(POOL)


def read(tree: Any, name: str = "kinds.Everything") -> Any:
    return built(message_class(name), READERS.of_message(POOL.FindMessageTypeByName(name))(tree))


def write(message: Any) -> Any:
    return json.loads(msgspec.json.encode(WRITERS.of_message(message.DESCRIPTOR)(message)))


def oracle_read(tree: Any) -> Any:
    return json_format.ParseDict(tree, message_class("kinds.Everything")(), descriptor_pool=POOL)


def oracle_write(message: Any) -> Any:
    return json.loads(json_format.MessageToJson(message, descriptor_pool=POOL))


@settings(max_examples=300)
@given(messages(EVERYTHING))
def test_messages_are_written_as_json_format_writes_them(message: Any) -> None:
    assert write(message) == oracle_write(message)


@settings(max_examples=300)
@given(messages(EVERYTHING))
def test_what_was_written_reads_back(message: Any) -> None:
    tree = oracle_write(message)
    ours = outcome_of(lambda tree: read(parse_json(json.dumps(tree).encode())), tree)
    if LARGEST_FLOAT in json.dumps(tree):  # json_format refuses to read what it wrote
        assert ours != "refused"
    else:
        assert ours == oracle_read(tree).SerializeToString(deterministic=True)


@settings(max_examples=300)
@given(messages(EVERYTHING), st.data())
def test_what_is_read_is_what_json_format_reads(message: Any, data: st.DataObject) -> None:
    """One value of a right message is exchanged for another: both accept it, with the same result, or both refuse."""
    tree = oracle_write(message)
    tree = exchange_one(tree, data) if tree else tree
    ours, theirs = outcome_of(read, tree), outcome_of(oracle_read, tree)
    # json_format takes true, false and fractions for enums, [] and "" for messages, and refuses the largest float,
    # which it writes itself.
    is_odd = ours == "refused" and any(text in json.dumps(tree) for text in ("true", "false", "[]", '""', "1.5"))
    assert ours == theirs or is_odd or LARGEST_FLOAT in json.dumps(tree)


ODD = [None, True, False, 0, 1, -1, 1.5, 1.0, 2**31, -(2**31) - 1, 2**63, 2**64, 1e300, "", "1", "-7", "1.5", "true"]
ODD += ["NaN", "-Infinity", "RED", "NO_COLOR", "AQ==", "_-8", [], {}, [1], [None], {"a": 1}, {"1": "x"}, "1.5s"]
ODD += ["2020-01-01T00:00:00Z", "aB,c"]


TAKEN_LOOSELY = {"nothing", "null", "someBytes", "blobs", "wrappedBytes"}
"""json_format takes any number for null, and skips what is not base64 in bytes."""


def exchange_one(tree: Any, data: st.DataObject) -> Any:
    if isinstance(tree, dict) and tree:
        key = data.draw(st.sampled_from(sorted(tree)))
        if key in TAKEN_LOOSELY:
            return tree
        return tree | {key: exchange_one(tree[key], data)}
    if isinstance(tree, list) and tree:
        return [exchange_one(tree[0], data), *tree[1:]]
    return data.draw(st.sampled_from(ODD))


def outcome_of(reader: Any, tree: Any) -> Any:
    try:
        return reader(tree).SerializeToString(deterministic=True)
    except (FieldError, json_format.ParseError, ValueError, TypeError, AttributeError):
        return "refused"


def test_both_spellings_of_a_field_are_read_and_the_json_name_is_written() -> None:
    assert read({"an_int32": 1, "aString": "x", "other-name": "y"}) == read(
        {"anInt32": 1, "a_string": "x", "renamed": "y"}
    )
    assert write(read({"an_int32": 1, "renamed": "y"})) == {"anInt32": 1, "other-name": "y"}


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        ([], "expected an object, found an array"),
        ({"anInt3": 1}, "anInt3: is not a field of kinds.Everything; did you mean anInt32?"),
        ({"anInt32": "x"}, "anInt32: expected an integer, found 'x'"),
        ({"anInt32": True}, "anInt32: expected an integer, found true"),
        ({"anInt32": 1.5}, "anInt32: expected an integer, found 1.5"),
        ({"anInt32": 2**31}, "anInt32: 2147483648 is not between -2147483648 and 2147483647"),
        ({"aUint64": "-1"}, "aUint64: -1 is not between 0 and 18446744073709551615"),
        ({"aFloat": 1e300}, "aFloat: 1e+300 is too large for a float"),
        ({"aDouble": "1e999"}, "aDouble: '1e999' is too large for a double"),
        ({"aDouble": False}, "aDouble: expected a number, found false"),
        ({"aBool": "true"}, "aBool: expected true or false, found 'true'"),
        ({"aString": 1}, "aString: expected a string, found 1"),
        ({"someBytes": "ä"}, "someBytes: expected base64, found 'ä'"),
        ({"color": "REDD"}, "color: 'REDD' is not a value of enum kinds.Color; did you mean RED?"),
        (
            {"inner": {"inners": [{}, {"doubles": [1, "x"]}]}},
            "inner.inners[1].doubles[1]: expected a number, found 'x'",
        ),
        ({"strings": "x"}, "strings: expected an array, found 'x'"),
        ({"strings": [None]}, "strings[0]: null is not an element"),
        ({"byInt": {"x": "y"}}, "byInt['x']: expected an integer, found 'x'"),
        ({"byLong": {"1": {"aBool": 1}}}, "byLong['1'].aBool: expected true or false, found 1"),
        ({"byString": {"x": None}}, "byString['x']: null is not a value of a map"),
        ({"left": "x", "right": 1}, "right: is given beside left; of oneof choice only one may be set"),
        ({"aString": "x", "a_string": "y"}, "a_string: is given in both spellings"),
        ({"at": 5}, "at: expected a string, found 5"),
        (
            {"any": {"@type": f"{TYPES}.Timestamp"}},
            "any: google.protobuf.Any lacks the key 'value', which its @type needs",
        ),
        (
            {"any": {"@type": f"{TYPES}.Int32Value"}},
            "any: google.protobuf.Any lacks the key 'value', which its @type needs",
        ),
    ],
)
def test_an_error_names_the_field_and_what_was_expected(tree: Any, text: str) -> None:
    with pytest.raises(FieldError) as caught:
        read(tree)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    "text", ["1_0s", " 1s", "1s\n", "+1s", "\N{ARABIC-INDIC DIGIT ONE}s", "1.s", "1e3s", "1", "s", "1.0000000001s"]
)
def test_a_duration_has_ascii_digits_and_nothing_else(text: str) -> None:
    """Python's reader of protobuf takes some of these."""
    with pytest.raises(FieldError, match=r'^durations\[\'x\'\]: expected a Duration, such as "1\.5s", found'):
        read({"durations": {"x": text}})


@pytest.mark.parametrize(
    "text",
    [
        "1972-1-01T10:00:20Z",
        "1972-01-01T10:00:20.1_0Z",
        "1972-01-01T10:00:20+1_0:00",
        "\N{ARABIC-INDIC DIGIT ONE}972-01-01T10:00:20Z",
        "1972-01-01T10:00:20",
        "1972-01-01t10:00:20Z",
    ],
)
def test_a_timestamp_has_two_digits_in_each_of_its_fields(text: str) -> None:
    with pytest.raises(FieldError, match=r"^at: expected a Timestamp, such as "):
        read({"at": text})


def test_durations_and_timestamps_of_every_valid_form_are_read() -> None:
    message = read({"durations": {"a": "-3.1s", "b": "315576000000s"}, "times": ["1972-01-01T10:00:20.021-05:00"]})
    assert [message.durations["a"].nanos, message.durations["b"].seconds] == [-100_000_000, 315_576_000_000]
    assert message.times[0].ToJsonString() == "1972-01-01T15:00:20.021Z"


def test_an_any_whose_bytes_are_not_of_its_type_cannot_be_written() -> None:
    message = message_class("kinds.Everything")()
    message.any.type_url, message.any.value = f"{TYPES}.Timestamp", b"\xff\xff"
    with pytest.raises(ValueError, match=r"google\.protobuf\.Timestamp"):
        write(message)


@pytest.mark.parametrize("text", ["-_8=", "+/8=", "-_8", "+/8"])
def test_bytes_are_read_in_both_alphabets_with_or_without_padding(text: str) -> None:
    assert read({"someBytes": text}).some_bytes == b"\xfb\xff"


def test_null_is_the_default_but_for_types_that_are_null() -> None:
    assert read({"anInt32": None, "inner": None, "strings": None}) == read({})
    assert read({"value": None}).HasField("value")
    assert read({"nothing": None}).WhichOneof("choice") == "nothing"


@given(st.floats(width=32, allow_nan=False))
def test_a_float_is_written_with_the_digits_it_needs(number: float) -> None:
    message = message_class("kinds.Everything")(floats=[number])
    (written,) = write(message)["floats"]
    assert math.isinf(number) or written == json_format.MessageToDict(message)["floats"][0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b'{"a": }', "byte 6"),
        (b"", "truncated"),
        (b'{"a": NaN}', "byte 6"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b'{"a": "\\ud800"}', "not JSON"),
        (b"[" * 101 + b"]" * 101, "100 objects and arrays"),
        (b"[" * 100_000, "inside each other|truncated"),
        (b'{"inner":' * 101 + b"1" + b"}" * 101, "100 objects and arrays"),
        (b'{"a": 1, "a": 1}', "^a: is given twice in one object$"),
        (b'{"a": 1, "b": "::", "\\u0061": 2}', "a: is given twice"),
        (b'{"list": [1, {"b": [], "b": {}}]}', "b: is given twice"),
        (b'{"a": {"deep": [{"c": 1}, {"c": 1, "c": ":"}]}}', "c: is given twice"),
        (b'{"a": ' + b"9" * 5_000 + b', "a": 1}', "a: is given twice|not JSON"),
    ],
)
def test_what_is_no_json_is_refused_with_the_place(text: bytes, problem: str) -> None:
    with pytest.raises(FieldError, match=problem):
        parse_json(text)


def test_as_deep_as_protobuf_itself_allows_is_read() -> None:
    assert parse_json(b"[" * 100 + b"]" * 100)


def test_messages_that_are_any_json_are_read_without_json_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes down the place of each value: 4 million numbers below a key of 8 MB would take it seven hours."""
    inner = {"k" * 1_000: [None, True, 1, 1.5, "x", {}, [], {"": [{}]}]}
    tree = {"struct": inner, "value": inner, "list": [inner], "values": [inner, None], "free": inner}
    expected = oracle_read(tree)
    monkeypatch.setattr(json_format, "ParseDict", lambda *_, **__: pytest.fail("json_format was used"))
    assert read(tree) == expected


def test_what_would_take_json_format_long_is_refused() -> None:
    def packed(key: str) -> Any:
        return {"any": {"@type": f"{TYPES}.Struct", "value": {key: [0] * 300}}}

    assert read(packed("k" * 1_000)).ByteSize() > 1_000
    with pytest.raises(FieldError, match="keys are too long"):
        read(packed("k" * 1_000_000))


@pytest.mark.parametrize(
    "tree",
    [
        {"value": 10**400},
        {"values": [10**400]},
        {"struct": {"a": [10**400]}},
        {"list": [10**400]},
        {"free": {"a": 10**400}},
        {"any": {"@type": f"{TYPES}.Value", "value": 10**400}},
    ],
)
def test_a_number_that_no_double_holds_is_refused(tree: Any) -> None:
    with pytest.raises(FieldError, match="too large"):
        read(tree)


@settings(max_examples=300)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(alphabet=':"a\\', max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(st.tuples(st.sampled_from(["a", "b", "c:"]), inner), max_size=3).map(
                lambda pairs: Pairs((key, value) for key, value in pairs)
            )
        ),
        max_leaves=8,
    )
)
def test_a_key_is_refused_twice_where_json_format_refuses_it(tree: Any) -> None:
    text = write_pairs(tree)
    assert parsed(parse_json, text.encode()) == parsed(lambda text: json_format.Parse(text, struct_pb2.Value()), text)


def parsed(reader: Callable[[Any], Any], text: str | bytes) -> Any:
    try:
        reader(text)
    except (FieldError, json_format.ParseError):
        return "refused"
    return json.loads(text)


class Pairs(tuple[tuple[str, Any], ...]):
    """An object of JSON whose keys need not differ."""


def write_pairs(tree: Any) -> str:
    if isinstance(tree, Pairs):
        return "{" + ", ".join(f"{json.dumps(key)}: {write_pairs(value)}" for key, value in tree) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(write_pairs, tree)) + "]"
    return json.dumps(tree)
