"""OpenAPI documents of applications: valid, complete, and true of what the gateway writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from hypothesis import assume, given, settings
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.openapi.openapi_document import DocumentedApplication, openapi_document
from gateway.openapi.openapi_paths import openapi_path
from gateway.openapi.source_comments import source_comments
from gateway.transcoding.json_writer import JsonWriters
from gateway.transcoding.path_template import parse_template
from tests.unit.gateway.transcoding.kinds_pool import POOL
from tests.unit.gateway.transcoding.random_messages import messages

ROOT = Path(__file__).parents[4]
LIBRARY = POOL.FindServiceByName("kinds.Library")
METHODS = tuple((f"/kinds.Library/{method.name}", method) for method in LIBRARY.methods)


def document(comments: dict[str, str] | None = None) -> dict[str, Any]:
    application = DocumentedApplication(name="books", methods=METHODS, comments=comments or {})
    return json.loads(msgspec.json.encode(openapi_document(application)))  # type: ignore[no-any-return]


DOCUMENT = document()


def operation(path: str, method: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][path][method]
    return found


def problems(document: dict[str, Any]) -> list[str]:
    """What is wrong with it as an OpenAPI document."""
    return [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()]


def test_the_document_is_valid() -> None:
    assert problems(DOCUMENT) == []


def test_every_method_is_there_at_its_own_path_and_by_its_rules() -> None:
    by_method = {(path, method) for path, item in DOCUMENT["paths"].items() for method in item}
    assert {(name, "post") for name, _ in METHODS} <= by_method
    assert {
        ("/v1/shelves/{name}/books/{name_2}", "get"),
        ("/v1/books/{name}", "get"),
        ("/v1/places/{place_shelf}/{place_row}", "get"),
        ("/v1/books", "get"),
        ("/v1/books", "post"),
        ("/v1/shelves/{name}", "patch"),
        ("/v1/books:add", "post"),
        ("/v1/content/{name}", "put"),
    } <= by_method


def test_literal_segments_are_written_as_clients_have_to_send_them() -> None:
    path, parameters = openapi_path(parse_template("/v1/caf%C3%A9 list/~a%2Fb@c/{name}:go"))
    assert path == "/v1/caf%C3%A9%20list/~a%2Fb@c/{name}:go"
    assert [each.name for each in parameters] == ["name"]


def test_operations_have_ids_of_their_own() -> None:
    ids = [each["operationId"] for item in DOCUMENT["paths"].values() for each in item.values()]
    assert len(ids) == len(set(ids))
    assert "kinds.Library.GetBook" in ids


def test_path_parameters_have_the_type_of_their_field() -> None:
    shelf, row = operation("/v1/places/{place_shelf}/{place_row}", "get")["parameters"][:2]
    assert shelf == {"name": "place_shelf", "in": "path", "required": True, "schema": {"type": "string"}}
    assert row["schema"] == {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1}
    (rest, *_) = operation("/v1/content/{name}", "put")["parameters"]
    assert "slashes" in rest["description"]


def test_query_parameters_are_the_fields_that_path_and_body_leave() -> None:
    names = {each["name"] for each in operation("/v1/books", "get")["parameters"]}
    assert {"name", "validateOnly", "updateMask", "place.shelf", "place.next.row", "colors", "signed"} <= names
    assert "place.next.next.next.row" not in names
    patch = {each["name"] for each in operation("/v1/shelves/{name}", "patch")["parameters"] if each["in"] == "query"}
    assert "validateOnly" in patch
    assert not {"name", "book", "book.title"} & patch
    assert "parameters" not in operation("/v1/books", "post")


def test_bodies_and_responses_have_the_types_that_are_spoken() -> None:
    book = {"$ref": "#/components/schemas/kinds.Book"}
    patch = operation("/v1/shelves/{name}", "patch")
    assert patch["requestBody"]["content"] == {"application/json": {"schema": book}}
    assert patch["responses"]["200"]["content"] == {"application/json": {"schema": book}}
    stream = operation("/v1/books", "get")["responses"]["200"]["content"]
    assert stream["application/json"]["schema"] == {"type": "array", "items": book}
    assert set(stream) == {"application/json", "application/x-ndjson", "text/event-stream"}
    assert operation("/v1/books:add", "post")["requestBody"]["content"]["application/x-ndjson"] == {"schema": book}
    raw = operation("/v1/content/{name}", "put")
    assert raw["requestBody"]["content"] == raw["responses"]["200"]["content"] == {"*/*": {}}


def test_errors_are_described_as_statuses() -> None:
    default = operation("/v1/books", "get")["responses"]["default"]["content"]["application/json"]["schema"]
    assert default == {"$ref": "#/components/schemas/google.rpc.Status"}
    assert "google.rpc.Status" in DOCUMENT["components"]["schemas"]


EVERYTHING = POOL.FindMessageTypeByName("kinds.Everything")
VALIDATOR = Draft202012Validator(
    {"$ref": "#/components/schemas/kinds.Everything", "components": DOCUMENT["components"]}
)


@settings(max_examples=150, deadline=None)
@given(messages(EVERYTHING))
def test_what_is_written_fits_its_schema(message: Any) -> None:
    text = msgspec.json.encode(JsonWriters(POOL).of_message(EVERYTHING)(message))
    assume(b"77" not in text)  # the number of no enum value, which is written as a number
    assert [error.message for error in VALIDATOR.iter_errors(json.loads(text))] == []


BOTH = {"left": "x", "right": 1}
"""Two fields of a oneof."""


def test_what_is_no_everything_does_not_fit_its_schema() -> None:
    for tree in (
        {"anInt32": "x"},
        {"nothing-like-it": 1},
        {"inner": {"colors": ["PINK"]}},
        {"at": 5},
        {"wrappedLongs": [None]},
        BOTH,
    ):
        assert not VALIDATOR.is_valid(tree)


def test_comments_are_there_if_the_descriptors_have_them(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc")
    (tmp_path / "shop.proto").write_text(
        """syntax = "proto3"; package shop;
        // Sells things.
        // Day and night.
        service Shop {
          // Says what a thing costs.
          rpc Price(Thing) returns (Thing);
        }
        // Something to buy.
        message Thing {
          // As people call it.
          string name = 1;
          Kind kind = 2;  // Which sort.
          // Sorts of things.
          enum Kind { NONE = 0; }
        }
        """
    )
    output = tmp_path / "set.binpb"
    arguments = ["protoc", f"-I{tmp_path}", "--include_source_info", f"--descriptor_set_out={output}", "shop.proto"]
    assert protoc.main(arguments) == 0
    assert source_comments(FileDescriptorSet.FromString(output.read_bytes()).file) == {
        "shop.Shop": "Sells things.\nDay and night.",
        "shop.Shop.Price": "Says what a thing costs.",
        "shop.Thing": "Something to buy.",
        "shop.Thing.name": "As people call it.",
        "shop.Thing.kind": "Which sort.",
        "shop.Thing.Kind": "Sorts of things.",
    }
    assert source_comments(FileDescriptorSet().file) == {}


def test_comments_are_part_of_the_document() -> None:
    comments = {
        "kinds.Library": "Books.",
        "kinds.Library.GetBook": "Gets one.",
        "kinds.Book": "Pages.",
        "kinds.Book.title": "On its cover.",
        "kinds.BookRequest.name": "Of the book.",
    }
    commented = document(comments)
    assert problems(commented) == []
    assert commented["tags"] == [{"name": "kinds.Library", "description": "Books."}]
    assert commented["paths"]["/kinds.Library/GetBook"]["post"]["description"] == "Gets one."
    book = commented["components"]["schemas"]["kinds.Book"]
    assert (book["description"], book["properties"]["title"]["description"]) == ("Pages.", "On its cover.")
    assert commented["paths"]["/v1/books/{name}"]["get"]["parameters"][0]["description"] == "Of the book."


@pytest.mark.parametrize("path", ["/v1/{name}:report"])
def test_methods_that_openapi_does_not_know_are_left_out(path: str) -> None:
    assert path not in DOCUMENT["paths"]
