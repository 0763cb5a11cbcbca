"""JSON requests of typed methods: which method a path calls, headers, bodies and errors."""

from __future__ import annotations

import gzip

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from gateway.requests.exchange import BrokenBy
from gateway.requests.routes import NO_ROUTES, read_routes
from mesh.exceptions import CancelReason
from mesh.link.outgoing_call import OutgoingCall
from mesh.settings import settings
from mesh.wire.outcome import Outcome
from mesh.wire.payload import PICKLE, Payload, raw
from tests.unit.fakes.fake_exchange import request
from tests.unit.gateway.dialects.json_ends import (
    SERVICE,
    JsonGateway,
    answer_with,
    fail_with,
    json_of,
    library_table,
    sent_request,
)
from tests.unit.gateway.fakes import finish
from tests.unit.protos import kinds_pb2

BOOK = kinds_pb2.Book(name="shelves/1/books/2", title="Emma", pages=400)
BOOK_JSON = {"name": "shelves/1/books/2", "title": "Emma", "pages": "400"}


# ---- Paths -----------------------------------------------------------------------------------------------------------


def test_what_a_path_calls_changes_with_the_routes() -> None:
    gateway = JsonGateway(answer_with(BOOK))
    path = f"/books{SERVICE}GetBook"
    assert not gateway.dialect.claims(request(path))
    gateway.dialect.set_routes(read_routes(library_table(books="/books")))
    assert gateway.dialect.claims(request(path))
    gateway.dialect.set_routes(NO_ROUTES)
    assert not gateway.dialect.claims(request(path))


def test_any_number_of_paths_may_be_asked_for() -> None:
    gateway = JsonGateway(answer_with(BOOK))
    for number in range(3_000):
        assert not gateway.dialect.claims(request(f"/page/{number}"))
    assert gateway.dialect.claims(request(f"{SERVICE}GetBook"))


def test_a_method_is_called_at_its_own_path() -> None:
    gateway = JsonGateway(answer_with(BOOK))
    answer = gateway.ask("POST", f"{SERVICE}GetBook", b'{"name": "x"}')
    assert (answer.status, json_of(answer)) == (200, BOOK_JSON)
    assert answer.by_name[b"content-type"] == b"application/json"
    assert gateway.call.request.method == f"{SERVICE}GetBook"
    assert sent_request(gateway.call, kinds_pb2.BookRequest).name == "x"
    gateway.assert_counted_once(0)


def test_a_method_is_called_by_its_rules() -> None:
    gateway = JsonGateway(answer_with(BOOK))
    answer = gateway.ask("GET", "/v1/shelves/1/books/2?validateOnly=true")
    assert (answer.status, json_of(answer)) == (200, BOOK_JSON)
    sent = sent_request(gateway.call, kinds_pb2.BookRequest)
    assert (sent.name, sent.validate_only) == ("shelves/1/books/2", True)


def test_response_body_names_the_field_that_is_the_answer() -> None:
    gateway = JsonGateway(answer_with(kinds_pb2.BookRequest(book=BOOK, name="n")))
    answer = gateway.ask("PATCH", "/v1/shelves/1", b'{"title": "T"}')
    assert json_of(answer) == BOOK_JSON
    assert sent_request(gateway.call, kinds_pb2.BookRequest).book.title == "T"


def test_paths_are_served_below_the_route_prefix_too() -> None:
    gateway = JsonGateway(answer_with(BOOK), library_table(books="/shop"))
    for path in ("/shop/v1/books/x", "/v1/books/x"):
        assert json_of(gateway.ask("GET", path)) == BOOK_JSON
    assert json_of(gateway.ask("POST", f"/shop{SERVICE}GetBook", b"{}")) == BOOK_JSON
    assert [sent_request(call, kinds_pb2.BookRequest).name for call in gateway.router.calls] == ["x", "x", ""]


def test_of_several_applications_the_header_or_the_prefix_chooses_and_the_first_gets_the_rest() -> None:
    """As in every dialect (item 212)."""
    gateway = JsonGateway(answer_with(BOOK), library_table(papers="/papers", books="/books"))
    gateway.ask("GET", "/v1/books/x", b"", ("application", "books"))
    gateway.ask("GET", "/books/v1/books/x")
    gateway.ask("POST", f"{SERVICE}GetBook", b"", ("grpc-metadata-application", "books"))
    assert [call.request.context.app for call in gateway.router.calls] == ["books"] * 3
    gateway.router.calls.clear()
    for method, path in (("GET", "/v1/books/x"), ("POST", f"{SERVICE}GetBook"), ("GET", "/papers/v1/books/x")):
        assert gateway.ask(method, path).status == 200
    assert [call.request.context.app for call in gateway.router.calls] == ["papers"] * 3


def test_a_controller_of_an_earlier_version_leaves_the_choice_to_the_client() -> None:
    gateway = JsonGateway(answer_with(BOOK), library_table(has_order=False, books="/books", papers="/papers"))
    for answer in (gateway.ask("GET", "/v1/books/x"), gateway.ask("POST", f"{SERVICE}GetBook")):
        assert answer.status == 404
        assert "'application' with one of: books, papers" in json_of(answer)["message"]
    assert gateway.ask("GET", "/books/v1/books/x").status == 200


def test_the_route_prefix_of_a_later_application_is_its_own() -> None:
    """Whatever rules an earlier one has: the prefix names the application, as the header does."""
    gateway = JsonGateway(answer_with(BOOK), library_table(papers="/", books="/v1/books"))
    gateway.ask("GET", "/v1/books/x")
    gateway.ask("GET", "/v1/books/v1/books/x")
    assert [call.request.context.app for call in gateway.router.calls] == ["papers", "books"]


def test_a_path_of_nothing_is_left_to_others() -> None:
    gateway = JsonGateway()
    for method, path in [("GET", "/"), ("GET", "/v2/books"), ("GET", "/other.Service/Method"), ("POST", "/x/y")]:
        assert not gateway.dialect.claims(request(path, method=method))
    assert not gateway.dialect.claims(request("/v1/books/x", ("application", "nothing"), method="GET"))


def test_an_unknown_method_of_a_known_service_is_unimplemented() -> None:
    answer = JsonGateway().ask("POST", f"{SERVICE}GetBok", b"{}")
    assert answer.status == 501
    assert json_of(answer)["code"] == 12
    assert "Did you mean /kinds.Library/GetBook" in json_of(answer)["message"]


def test_another_http_method_is_refused_with_those_that_there_are() -> None:
    answer = JsonGateway().ask("DELETE", "/v1/books/x")
    assert (answer.status, answer.by_name[b"allow"]) == (405, b"GET, HEAD")
    answer = JsonGateway().ask("GET", f"{SERVICE}GetBook")
    assert (answer.status, answer.by_name[b"allow"]) == (405, b"POST")


def test_another_http_method_is_left_to_a_web_application_at_that_path() -> None:
    table = library_table(books="/")
    table.routes[0].serves_web = True
    gateway = JsonGateway(table=table)
    assert not gateway.dialect.claims(request("/v1/books/x", method="DELETE"))
    assert gateway.dialect.claims(request("/v1/books/x", method="GET"))


def test_wrong_rules_of_an_application_do_not_hide_its_methods(caplog: pytest.LogCaptureFixture) -> None:
    table = library_table(books="/")
    before, after = b"/v1/places/{place.shelf}/{place.row}", b"/v1/places/{place.shelf}/{place.now}"
    table.descriptor_sets[0].serialised = table.descriptor_sets[0].serialised.replace(before, after)
    gateway = JsonGateway(answer_with(BOOK), table)
    assert json_of(gateway.ask("GET", "/v1/books/x")) == BOOK_JSON
    assert not gateway.dialect.claims(request("/v1/places/a/1", method="GET"))
    assert "has no field 'now'" in caplog.text


def test_a_method_without_descriptors_says_how_to_call_it() -> None:
    table = library_table(books="/")
    del table.descriptor_sets[:]
    answer = JsonGateway(table=table).ask("POST", f"{SERVICE}GetBook", b"{}")
    assert answer.status == 501
    assert "call it by gRPC" in json_of(answer)["message"]


# ---- Headers and metadata --------------------------------------------------------------------------------------------


def test_headers_become_metadata_and_speak_to_the_mesh() -> None:
    gateway = JsonGateway(answer_with(BOOK))
    answer = gateway.ask(
        "POST",
        f"{SERVICE}GetBook",
        b"{}",
        ("grpc-metadata-tenant", "t"),
        ("authorization", "Bearer x"),
        ("x-request-id", "r1"),
        ("serve_multiplexed_model_id", "m1"),
        ("x-session-id", "s1"),
        ("x-tenant-id", "acme"),
        ("content-type", "application/json"),
        ("grpc-timeout", "5S"),
        ("x-request-timeout-seconds", "2"),
    )
    sent = gateway.call.request
    assert dict(sent.metadata)["tenant"] == "t"
    assert dict(sent.metadata)["authorization"] == "Bearer x"
    assert not {"content-type", "grpc-timeout", "x-request-timeout-seconds"} & set(dict(sent.metadata))
    assert (sent.context.request_id, sent.context.multiplexed_model_id, sent.session_id) == ("r1", "m1", "s1")
    assert sent.context.tenant == "acme"
    assert sent.deadline_at_s is not None
    assert answer.by_name[b"x-request-id"] == b"r1"


@pytest.mark.parametrize(("method", "path"), [("POST", f"{SERVICE}GetBook"), ("GET", "/v1/shelves/1/books/2")])
def test_the_query_speaks_to_the_mesh_where_headers_do_not(method: str, path: str) -> None:
    """For EventSource and WebSocket, which send no headers; under names that no field has, and the first counts.

    The same names as in headers (item 206).
    """
    gateway = JsonGateway(answer_with(BOOK))
    query = "tenant=acme%20inc&tenant=other&session_id=s1&multiplexed_model_id=m1"
    gateway.ask(method, f"{path}?{query}", b"", ("x-session-id", "s2"))
    sent = gateway.call.request
    assert (sent.context.tenant, sent.session_id, sent.context.multiplexed_model_id) == ("acme inc", "s2", "m1")
    answer = gateway.ask(method, f"{path}?tenant=acme&tenants=2", b"")
    assert answer.status == 400


def test_metadata_of_the_method_become_headers() -> None:
    def answer(call: OutgoingCall) -> None:
        call.sink.on_initial_metadata((("etag", b"e1"), ("data-bin", b"\x00\xff")))
        answer_with(BOOK, (("cost", b"3"),))(call)

    fields = JsonGateway(answer).ask("POST", f"{SERVICE}GetBook").by_name
    assert fields[b"grpc-metadata-etag"] == b"e1"
    assert fields[b"grpc-metadata-data-bin"] == b"AP8"
    assert fields[b"grpc-trailer-cost"] == b"3"


@pytest.mark.parametrize("field", [("grpc-timeout", "soon"), ("x-request-timeout-seconds", "-1"), ("data-bin", "%")])
def test_wrong_headers_are_refused(field: tuple[str, str]) -> None:
    gateway = JsonGateway()
    answer = gateway.ask("POST", f"{SERVICE}GetBook", b"{}", field)
    assert (answer.status, json_of(answer)["code"]) == (400, 3)
    gateway.assert_counted_once(3)


# ---- Bodies ----------------------------------------------------------------------------------------------------------


def test_a_wrong_field_is_named_in_message_and_details() -> None:
    gateway = JsonGateway()
    answer = gateway.ask("POST", f"{SERVICE}GetBook", b'{"place": {"row": "x"}}', step=3)
    assert answer.status == 400
    assert json_of(answer) == {
        "code": 3,
        "message": "place.row: expected an integer, found 'x'",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{"field": "place.row", "description": "expected an integer, found 'x'"}],
            }
        ],
    }
    gateway.assert_counted_once(3)
    assert not gateway.router.calls


@pytest.mark.parametrize(
    ("method", "path", "body", "text"),
    [
        ("POST", f"{SERVICE}GetBook", b'{"name": }', "byte 9"),
        ("POST", f"{SERVICE}GetBook?name=x", b"{}", "no query"),
        ("GET", "/v1/books/x?nme=1", b"", "did you mean name?"),
        ("GET", "/v1/books/%zz", b"", "percent escape"),
        ("GET", "/v1/books/%ff", b"", "decode"),
        ("GET", "/v1/books/x", b"{}", "takes no body"),
    ],
)
def test_a_wrong_request_says_what_is_wrong(method: str, path: str, body: bytes, text: str) -> None:
    answer = JsonGateway().ask(method, path, body)
    assert (answer.status, json_of(answer)["code"]) == (400, 3)
    assert text in json_of(answer)["message"]


@pytest.mark.parametrize(
    "field",
    [
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-type", "application/x-ndjson"),
        ("content-encoding", "br"),
    ],
)
def test_a_body_of_another_type_is_unsupported(field: tuple[str, str]) -> None:
    gateway = JsonGateway()
    answer = gateway.ask("POST", f"{SERVICE}GetBook", b"{}", field)
    assert answer.status == 415
    message = json_of(answer)["message"]
    assert "application/json" in message or "gzip" in message
    assert ("--json" in message) is ("form" in field[1])
    gateway.assert_counted_once(3)


def test_a_body_of_two_types_is_unsupported() -> None:
    """A proxy may have read the other one. The same type twice is one."""
    json_type, other = ("content-type", "application/json"), ("content-type", "text/plain")
    for fields, status in (((json_type, other), 415), ((other, json_type), 415), ((json_type, json_type), 404)):
        answer = JsonGateway(lambda call: finish(call, Outcome(5, "none"))).ask(
            "POST", f"{SERVICE}GetBook", b"{}", *fields
        )
        assert answer.status == status


def test_a_body_that_was_compressed_twice_is_unsupported_also_if_two_fields_say_so() -> None:
    """Fields of one name are one list (RFC 9110 §5.3)."""
    body = gzip.compress(gzip.compress(b"{}"))
    answer = JsonGateway().ask(
        "POST", f"{SERVICE}GetBook", body, ("content-encoding", "gzip"), ("content-encoding", "gzip")
    )
    assert answer.status == 415
    assert "gzip, gzip" in json_of(answer)["message"]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/problem+json", "text/json"])
def test_types_of_json_are_read(kind: str) -> None:
    assert JsonGateway(answer_with(BOOK)).ask("POST", f"{SERVICE}GetBook", b"{}", ("content-type", kind)).status == 200


@pytest.mark.usefixtures("on_a_loop")
def test_a_gzip_body_is_read_in_pieces() -> None:
    gateway = JsonGateway(answer_with(BOOK))
    body = gzip.compress(b'{"name": "x"}')
    assert gateway.ask("POST", f"{SERVICE}GetBook", body, ("content-encoding", "gzip"), step=5).status == 200
    assert sent_request(gateway.call, kinds_pb2.BookRequest).name == "x"


@pytest.mark.usefixtures("on_a_loop")
@pytest.mark.parametrize(
    "body", [b"{}", gzip.compress(b"{}")[:-3], gzip.compress(b"{}") + b"x"], ids=["no gzip", "cut off", "a byte more"]
)
def test_a_wrong_gzip_body_is_refused(body: bytes) -> None:
    answer = JsonGateway().ask("POST", f"{SERVICE}GetBook", body, ("content-encoding", "gzip"))
    assert answer.status == 400
    assert "gzip" in json_of(answer)["message"]


@pytest.mark.usefixtures("on_a_loop")
@pytest.mark.parametrize("is_gzip", [False, True])
def test_a_body_above_the_limit_is_refused_before_it_is_kept(is_gzip: bool) -> None:
    gateway = JsonGateway()
    size = settings().gateway.json_max_bytes + 1
    body = gzip.compress(b" " * (4 * size), 1) if is_gzip else b" " * size
    fields = [("content-encoding", "gzip")] if is_gzip else []
    answer = gateway.ask("POST", f"{SERVICE}GetBook", body, *fields, step=1024 * 1024)
    assert (answer.status, json_of(answer)["code"]) == (413, 8)
    assert answer.share.used_bytes == 0
    gateway.assert_counted_once(8)


def test_a_raw_body_goes_into_its_field_and_comes_back_as_it_is() -> None:
    def answer(call: OutgoingCall) -> None:
        upload = sent_request(call, kinds_pb2.Upload)
        finish(call, Outcome(payload=raw(upload.content.SerializeToString())))

    got = JsonGateway(answer).ask("PUT", "/v1/content/a/b", b"\x00\xff", ("content-type", "image/png"))
    assert (got.status, got.by_name[b"content-type"], got.body) == (200, b"image/png", b"\x00\xff")


# ---- Answers ---------------------------------------------------------------------------------------------------------


def test_an_error_is_a_status_with_its_details() -> None:
    info = AnyMessage()
    info.Pack(error_details_pb2.ErrorInfo(reason="GONE"))
    details = status_pb2.Status(code=5, message="no book", details=[info]).SerializeToString()
    trailers = (("grpc-status-details-bin", details), ("cost", b"3"))
    gateway = JsonGateway(fail_with(5, "no book", trailers))
    answer = gateway.ask("GET", "/v1/books/x")
    assert answer.status == 404
    assert json_of(answer) == {
        "code": 5,
        "message": "no book",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "GONE"}],
    }
    assert answer.by_name[b"grpc-trailer-cost"] == b"3"
    assert b"grpc-trailer-grpc-status-details-bin" not in answer.by_name
    gateway.assert_counted_once(5)


@pytest.mark.parametrize(
    ("code", "status"),
    [(1, 499), (2, 500), (4, 504), (6, 409), (7, 403), (8, 429), (9, 400), (13, 500), (14, 503), (16, 401), (99, 500)],
)
def test_codes_have_their_http_status(code: int, status: int) -> None:
    assert JsonGateway(fail_with(code, "m")).ask("GET", "/v1/books/x").status == status


def test_a_response_that_is_no_message_or_no_json_is_an_internal_error() -> None:
    pickle = JsonGateway(lambda call: finish(call, Outcome(payload=Payload(PICKLE, b"x"))))
    assert pickle.ask("GET", "/v1/books/x").status == 500
    infinite = kinds_pb2.Everything(value={"number_value": float("inf")})
    gateway = JsonGateway(answer_with(infinite))
    answer = gateway.ask("POST", f"{SERVICE}Copy", b"{}")
    assert (answer.status, json_of(answer)["code"]) == (500, 13)
    assert "Infinity" in json_of(answer)["message"]


def test_a_client_that_leaves_cancels_its_call() -> None:
    gateway = JsonGateway()
    exchange, receiver = gateway.open("GET", "/v1/books/x")
    assert receiver is not None
    receiver.on_end()
    exchange.break_off()
    receiver.on_broken(BrokenBy.CLIENT)
    assert gateway.router.cancel_reasons == [CancelReason.CLIENT]
    gateway.assert_counted_once(1)
