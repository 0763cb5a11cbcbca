"""Requests bound into messages: path variables, query parameters and bodies, by the rules of a method."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import pytest
from google.api import annotations_pb2
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from gateway.transcoding.field_error import FieldError
from gateway.transcoding.http_rules import TranscodingRule, method_rule, read_rules
from gateway.transcoding.json_reader import JsonReaders
from gateway.transcoding.query_parameters import DEPTH_MAX, PARAMETERS_MAX, place_parameter
from gateway.transcoding.request_binding import RequestBinding
from gateway.transcoding.rule_index import RuleIndex
from tests.unit.gateway.transcoding.kinds_pool import POOL, message_class, method
from tests.unit.protos import kinds_pb2

READERS = JsonReaders(POOL)


def bound(name: str, http_method: str, path: str, body: bytes = b"") -> Any:
    """The message that a request gives by the rules of a method, as a dict."""
    descriptor = method(name)
    rules = read_rules(descriptor).rules
    index = RuleIndex([(rule.template, rule.http_method, rule) for rule in rules])
    raw_path, _, query = path.partition("?")
    found = index.find(http_method, raw_path)
    assert found is not None
    assert found.best is not None
    template, rule = found.best.template, found.best.rule
    binding = RequestBinding(descriptor, rule, READERS)
    variables = [each.value(found.segments) for each in template.variables]
    return parsed(name, binding.bind(variables, query.encode(), body))


def parsed(name: str, message: bytes) -> dict[str, Any]:
    request = message_class(method(name).input_type.full_name).FromString(message)
    return json_format.MessageToDict(request, descriptor_pool=POOL)


def problem(name: str, http_method: str, path: str, body: bytes = b"") -> str:
    with pytest.raises(FieldError) as caught:
        bound(name, http_method, path, body)
    return str(caught.value)


def test_a_path_variable_of_several_segments_is_bound() -> None:
    assert bound("GetBook", "GET", "/v1/shelves/a%20b/books/2") == {"name": "shelves/a b/books/2"}


def test_additional_bindings_are_rules_too() -> None:
    assert bound("GetBook", "GET", "/v1/books/x%2Fy") == {"name": "x/y"}


def test_variables_may_be_nested_fields_of_any_scalar_type() -> None:
    assert bound("GetBook", "GET", "/v1/places/top/3") == {"place": {"shelf": "top", "row": 3}}
    assert problem("GetBook", "GET", "/v1/places/top/x") == "place.row: expected an integer, found 'x'"


def test_query_parameters_reach_nested_repeated_and_wrapped_fields_in_both_spellings() -> None:
    query = "validate_only=true&updateMask=name,book.title&colors=RED&colors=2&place.next.shelf=z&signed=true&year=7"
    assert bound("ListBooks", "GET", f"/v1/books?{query}") == {
        "validateOnly": True,
        "updateMask": "name,book.title",
        "colors": ["RED", "DEEP_BLUE"],
        "place": {"next": {"shelf": "z"}},
        "signed": True,
        "year": 7,
    }


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("nme=x", "nme: is not a field of kinds.BookRequest; did you mean name?"),
        ("book=x", "book: is a message or map, which a query cannot hold; name one of its fields"),
        ("place.nxt.row=1", "place.nxt.row: is not a field of kinds.Place; did you mean next?"),
        ("name.x=1", "name.x: name has no fields that a query can name"),
        ("colors.x=1", "colors.x: colors has no fields that a query can name"),
        ("updateMask.paths=x", "updateMask.paths: updateMask has no fields that a query can name"),
        ("name=a&name=b", "name: is given twice"),
        ("author=a&year=1", "year: is given beside author; of oneof filter only one may be set"),
        ("validateOnly=yes", "validateOnly: expected true or false, found 'yes'"),
        ("colors=PINK", "colors: 'PINK' is not a value of enum kinds.Color"),
        ("place.row=9999999999", "place.row: 9999999999 is not between -2147483648 and 2147483647"),
        ("name=%ff", "the query is not UTF-8 in percent escapes"),
        ("&".join(["colors=1"] * (PARAMETERS_MAX + 1)), "the query has more than 1000 parameters"),
        ("place" + ".next" * DEPTH_MAX + ".row=1", None),
    ],
)
def test_a_wrong_query_parameter_is_named(query: str, text: str | None) -> None:
    found = problem("ListBooks", "GET", f"/v1/books?{query}")
    assert found == text if text is not None else "too long" in found


@pytest.mark.parametrize("name", ["struct", "value", "list", "values", "any", "inners", "byString", "inner.free"])
def test_what_no_query_can_hold_is_to_be_sent_in_a_body(name: str) -> None:
    """None of its fields can be named."""
    message = READERS.of(message_class("kinds.Everything").DESCRIPTOR)
    with pytest.raises(FieldError) as caught:
        place_parameter({}, name, "1", message)
    assert str(caught.value) == f"{name}: is a message or map, which a query cannot hold; send it in a body"


def extended_method(path: str, body: str) -> MethodDescriptor:
    """A method whose request, of proto2, has extensions."""
    file = FileDescriptorProto(name="extended.proto", package="extended", syntax="proto2")
    request = file.message_type.add(name="Item")
    request.field.add(name="name", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    request.field.add(name="count", number=2, type="TYPE_INT32", label="LABEL_OPTIONAL")
    request.extension_range.add(start=100, end=200)
    file.extension.add(name="note", number=100, type="TYPE_STRING", label="LABEL_OPTIONAL", extendee=".extended.Item")
    called = file.service.add(name="Store").method.add(name="Put", input_type="Item", output_type="Item")
    called.options.Extensions[annotations_pb2.http].put = path
    called.options.Extensions[annotations_pb2.http].body = body
    pool = DescriptorPool()
    pool.Add(file)
    return pool.FindMethodByName("extended.Store.Put")


@pytest.mark.parametrize(
    ("body_field", "query", "body", "expected"),
    [
        ("*", b"", b'{"name": "body", "count": 3, "[extended.note]": "n"}', {"name": "path", "count": 3, "note": "n"}),
        ("*", b"", b"", {"name": "path"}),
        ("", b"count=4", b"", {"name": "path", "count": 4}),
    ],
)
def test_a_message_with_extensions_has_path_variables_and_query(
    body_field: str, query: bytes, body: bytes, expected: dict[str, Any]
) -> None:
    method = extended_method("/v1/{name}", body_field)
    (rule,) = read_rules(method).rules
    pool = method.containing_service.file.pool
    data = RequestBinding(method, rule, JsonReaders(pool)).bind(["path"], query, body)
    item = GetMessageClass(method.input_type).FromString(data)
    assert {field.name: value for field, value in item.ListFields()} == expected


def test_a_body_is_the_whole_message_with_variables_on_top() -> None:
    assert bound("CreateBook", "POST", "/v1/books", b'{"title": "t", "place": {"row": 1}}') == {
        "title": "t",
        "place": {"row": 1},
    }
    assert bound("CreateBook", "POST", "/v1/books") == {}
    assert "takes no query" in problem("CreateBook", "POST", "/v1/books?title=x", b"{}")


def test_a_body_may_be_one_field_and_the_query_the_others() -> None:
    assert bound("UpdateBook", "PATCH", "/v1/shelves/a/b%2Fc?validateOnly=true", b'{"pages": 7}') == {
        "name": "shelves/a/b%2Fc",
        "book": {"pages": "7"},
        "validateOnly": True,
    }
    assert bound("UpdateBook", "PATCH", "/v1/shelves/a", b"null") == {"name": "shelves/a"}
    assert (
        problem("UpdateBook", "PATCH", "/v1/shelves/a", b'{"pages": "x"}')
        == "book.pages: expected an integer, found 'x'"
    )


def test_a_custom_method_and_a_verb_are_a_rule() -> None:
    assert bound("UpdateBook", "REPORT", "/v1/x:report") == {"name": "x"}


def test_a_raw_body_goes_into_its_field_as_it_is() -> None:
    descriptor = method("PutContent")
    (rule,) = read_rules(descriptor).rules
    binding = RequestBinding(descriptor, rule, READERS)
    assert binding.is_raw
    message = binding.bind_raw(["a/b"], b"", "image/png", b"\x00\xff")
    assert parsed("PutContent", message) == {"name": "a/b", "content": {"contentType": "image/png", "data": "AP8="}}


def test_the_path_of_the_method_itself_takes_the_request_as_json() -> None:
    rule = method_rule("/kinds.Library/GetBook")
    assert (rule.http_method, rule.template.segments) == ("POST", ("kinds.Library", "GetBook"))
    assert parsed("GetBook", RequestBinding(method("GetBook"), rule, READERS).bind((), b"", b'{"name":"x"}')) == {
        "name": "x"
    }


PLAIN = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@given(shelf=PLAIN, row=st.integers(-(2**31), 2**31 - 1))
def test_any_text_passes_a_path(shelf: str, row: int) -> None:
    path = f"/v1/places/{quote(shelf, safe='')}/{row}"
    assert bound("GetBook", "GET", path) == {"place": {"shelf": shelf} | ({"row": row} if row else {})}


@given(author=st.text(st.characters(codec="utf-8")), colors=st.lists(st.sampled_from(["RED", "DEEP_BLUE"])))
def test_any_text_passes_a_query(author: str, colors: list[str]) -> None:
    query = urlencode([("author", author), *(("colors", each) for each in colors)])
    assert bound("ListBooks", "GET", f"/v1/books?{query}") == {"author": author} | (
        {"colors": colors} if colors else {}
    )


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_any_bytes_are_bound_or_refused_as_wrong_fields(query: bytes, body: bytes) -> None:
    descriptor = method("UpdateBook")
    binding = RequestBinding(descriptor, read_rules(descriptor).rules[0], READERS)
    try:
        outcome = parsed("UpdateBook", binding.bind(["x"], query, body))
    except FieldError as error:
        outcome = {"name": "x", "problem": error.problem}
    assert outcome["name"] == "x"


def wrong_rule(**pattern: Any) -> str:
    """What read_rules says of a rule like this on GetBook."""
    proto = FileDescriptorProto()
    kinds_pb2.DESCRIPTOR.CopyToProto(proto)
    rpc = proto.service[0].method[0]
    rpc.options.ClearExtension(annotations_pb2.http)
    for key, value in pattern.items():
        setattr(rpc.options.Extensions[annotations_pb2.http], key, value)
    pool = DescriptorPool()

    def add(file: Any) -> None:
        for each in file.dependencies:
            add(each)
        if file.name != proto.name:
            pool.AddSerializedFile(file.serialized_pb)

    add(kinds_pb2.DESCRIPTOR)
    pool.AddSerializedFile(proto.SerializeToString())
    found = read_rules(pool.FindMethodByName("kinds.Library.GetBook"))
    assert not found.rules
    return "; ".join(found.problems)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ({"get": "/v1/{nme}"}, "has no field 'nme'"),
        ({"get": "/v1/{place}"}, "is not a single scalar"),
        ({"get": "/v1/{colors}"}, "is not a single scalar"),
        ({"get": "/v1/{name.x}"}, "is not a single message"),
        ({"get": "v1"}, "does not start with '/'"),
        ({"post": "/v1", "body": "nothing"}, "has no field 'nothing'"),
        ({"post": "/v1", "body": "place.row"}, "fields of the message itself"),
        ({"get": "/v1", "response_body": "nothing"}, "has no field 'nothing'"),
        ({"body": "*"}, "has no pattern"),
    ],
)
def test_a_wrong_rule_is_left_out_and_says_why(pattern: dict[str, str], text: str) -> None:
    found = wrong_rule(**pattern)
    assert text in found
    assert "kinds.Library.GetBook" in found


def test_the_rules_of_a_method_are_read_in_their_order() -> None:
    rules: tuple[TranscodingRule, ...] = read_rules(method("GetBook")).rules
    assert [rule.path for rule in rules] == [
        "/v1/{name=shelves/*/books/*}",
        "/v1/books/{name}",
        "/v1/places/{place.shelf}/{place.row}",
    ]
    assert read_rules(method("Chat")).rules == ()
