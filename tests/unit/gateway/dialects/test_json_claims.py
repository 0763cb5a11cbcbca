"""Which requests are the JSON dialect's, which it leaves to web applications, and what it keeps of both."""

from __future__ import annotations

import pytest

from gateway.requests import routes
from tests.unit.fakes.fake_exchange import FakeExchange, request, send_body
from tests.unit.gateway.dialects.json_ends import SERVICE, JsonGateway, answer_with, json_of, library_table
from tests.unit.protos import kinds_pb2


def test_an_unknown_method_below_the_prefix_of_its_application_is_unimplemented_too() -> None:
    gateway = JsonGateway(table=library_table(books="/lib", other="/other"))
    answer = gateway.ask("POST", f"/lib{SERVICE}GetBok", b"{}")
    assert (answer.status, json_of(answer)["code"]) == (501, 12)
    assert "Application 'books' has no method" in json_of(answer)["message"]
    assert not gateway.dialect.claims(request(f"/elsewhere{SERVICE}GetBok"))
    assert not gateway.dialect.claims(request("/lib/kinds.Unknown/GetBok"))


@pytest.mark.parametrize(
    ("method", "path", "fields", "status"),
    [
        ("POST", f"{SERVICE}GetBok", (), 501),
        ("GET", f"{SERVICE}GetBook", (), 405),
        ("GET", "/v1/books/%E9", (), 400),
        ("POST", f"{SERVICE}GetBook", (("content-encoding", "br"),), 415),
        ("POST", f"{SERVICE}GetBook", (("grpc-timeout", "soon"),), 400),
    ],
)
def test_a_request_that_becomes_no_call_gets_its_id_back(
    method: str, path: str, fields: tuple[tuple[str, str], ...], status: int
) -> None:
    answer = JsonGateway().ask(method, path, b"{}", ("x-request-id", "mine"), *fields)
    assert (answer.status, answer.by_name[b"x-request-id"]) == (status, b"mine")


def test_long_names_of_applications_are_not_kept() -> None:
    """Any client may send a thousand of them, each as long as a header may be."""
    gateway = JsonGateway()
    for number in range(3):
        answer = gateway.ask("POST", f"{SERVICE}GetBook", b"{}", ("application", f"{number}" * 10_000))
        assert answer.status == 404
    assert not gateway.dialect._known


def test_similar_names_are_searched_for_no_more_often_than_in_other_dialects(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search takes milliseconds."""
    table = library_table(books="/", other="/other")
    del table.routes[1].grpc_methods[1:]
    gateway = JsonGateway(table=table)
    for number in range(100):
        gateway.methods.find(None, f"{SERVICE}Missing{number}")
    searches: list[str] = []
    monkeypatch.setattr(routes, "get_close_matches", lambda name, *_, **__: searches.append(name) or [])
    missing = table.routes[0].grpc_methods[-1].full_name
    answer = gateway.ask("POST", missing, b"{}", ("application", "other"))
    assert (answer.status, json_of(answer)["code"]) == (501, 12)
    assert "Application 'other' has no method" in json_of(answer)["message"]
    assert not searches


def test_a_path_that_is_not_utf_8_is_left_to_a_web_application() -> None:
    table = library_table(books="/")
    assert JsonGateway(table=table).dialect.claims(request("/v1/books/%E9", method="GET"))
    table.routes[0].serves_web = True
    assert not JsonGateway(table=table).dialect.claims(request("/v1/books/%E9", method="GET"))


def test_a_head_that_a_connection_repeats_is_read_again_when_the_routes_change() -> None:
    gateway = JsonGateway(answer_with(kinds_pb2.Book()))
    head = request(f"{SERVICE}GetBook", ("accept", "application/x-ndjson"), method="POST")

    def content_type() -> bytes:
        exchange = FakeExchange(head)
        receiver = gateway.dialect.open(exchange)
        assert receiver is not None
        send_body(exchange, receiver, b"{}")
        return exchange.by_name[b"content-type"]

    assert content_type() == b"application/json"
    table = library_table(books="/")
    for method in table.routes[0].grpc_methods:
        method.streams_response = True
    gateway.methods.set_routes(routes.read_routes(table))
    gateway.dialect.set_routes(routes.read_routes(table))
    assert content_type() == b"application/x-ndjson"
