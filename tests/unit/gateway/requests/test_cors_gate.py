"""The gate of CORS in front of the dialects."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.requests.cors import CorsPolicy
from gateway.requests.cors_gate import CorsGate
from gateway.requests.exchange import Exchange, ExchangeReceiver
from tests.unit.fakes.fake_exchange import FakeExchange, request

METHOD = "/shop.Store/Get"
APP = "https://app.example.com"
PREFLIGHT = (("access-control-request-method", "POST"), ("access-control-request-headers", "content-type"))
POLICY = CorsPolicy(origins=[APP])
JSON = ("content-type", "application/json")


class Dialect:
    """Answers everything at once."""

    def __init__(self) -> None:
        self.opened = 0

    def open(self, exchange: Exchange) -> ExchangeReceiver | None:
        self.opened += 1
        exchange.send_whole(200, [(b"x-own", b"1")], b"hello")
        return None


def ask(
    policy: CorsPolicy | None,
    origin: str = APP,
    *,
    method: str = "POST",
    path: str = METHOD,
    is_preflight: bool = False,
    more: tuple[tuple[str, str], ...] = (JSON,),
    scheme: str = "http",
) -> tuple[FakeExchange, Dialect]:
    """`more` header fields."""
    dialect = Dialect()
    fields = [("host", "mesh:8000"), *([("origin", origin)] if origin else []), *more]
    head = request(path, *fields, *(PREFLIGHT if is_preflight else ()), method=method)
    exchange = FakeExchange(replace(head, scheme=scheme))
    assert CorsGate(policy, lambda head: head.path == METHOD, dialect.open).open(exchange) is None
    return exchange, dialect


def test_preflights_are_answered_in_front_of_the_dialects() -> None:
    exchange, dialect = ask(POLICY, method="OPTIONS", is_preflight=True)
    assert (exchange.status, dialect.opened) == (204, 0)
    assert exchange.by_name[b"access-control-allow-origin"] == APP.encode()
    refused, dialect = ask(POLICY, "https://evil.net", method="OPTIONS", is_preflight=True)
    assert (refused.status, dialect.opened) == (204, 0)
    assert b"access-control-allow-origin" not in refused.by_name


def test_pages_of_the_origin_may_read_the_answer() -> None:
    exchange, _ = ask(POLICY)
    assert (exchange.status, exchange.body) == (200, b"hello")
    assert exchange.by_name[b"access-control-allow-origin"] == APP.encode()
    assert exchange.by_name[b"access-control-expose-headers"] == b"x-own"
    other, _ = ask(POLICY, "https://evil.net")
    assert other.by_name == {b"x-own": b"1", b"vary": b"origin"}


def test_requests_that_no_page_makes_are_passed_on_as_they_are() -> None:
    exchange, dialect = ask(POLICY, origin="")
    assert (exchange.fields, dialect.opened) == ([(b"x-own", b"1")], 1)


def test_without_a_policy_a_preflight_of_a_method_says_how_to_turn_it_on() -> None:
    exchange, dialect = ask(None, method="OPTIONS", is_preflight=True)
    assert (exchange.status, dialect.opened) == (403, 0)
    assert f"http_options={{'cors': {{'origins': ['{APP}']}}}}" in exchange.body.decode()


def test_without_a_policy_web_applications_get_their_own_preflights() -> None:
    exchange, dialect = ask(None, method="OPTIONS", path="/items", is_preflight=True)
    assert (exchange.fields, dialect.opened) == ([(b"x-own", b"1")], 1)
    assert ask(None)[1].opened == 1


def test_a_preflight_is_one_of_the_method_that_it_asks_for() -> None:
    """The path of a rule may be that of a method for POST, and that of a web application for all else."""
    dialect = Dialect()
    exchange = FakeExchange(request("/v1/books", ("origin", "https://evil.net"), *PREFLIGHT, method="OPTIONS"))
    CorsGate(None, lambda head: head.method == "POST", dialect.open).open(exchange)
    assert (exchange.status, dialect.opened) == (403, 0)


UNASKED = [("ws", "GET", ()), ("http", "POST", ()), ("http", "POST", (("content-type", "text/plain"),))]


@pytest.mark.parametrize(("scheme", "method", "more"), UNASKED)
def test_what_browsers_send_unasked_reaches_methods_from_pages_that_are_named_only(
    scheme: str, method: str, more: tuple[tuple[str, str], ...]
) -> None:
    """They open WebSockets and send the bodies of forms for pages of any origin."""

    def opened(policy: CorsPolicy | None, origin: str, path: str = METHOD) -> tuple[int, int]:
        exchange, dialect = ask(policy, origin, method=method, path=path, more=more, scheme=scheme)
        return exchange.status, dialect.opened

    assert opened(None, "http://mesh:8000") == (200, 1)
    assert opened(POLICY, APP) == (200, 1)
    assert opened(None, "") == (200, 1)
    assert opened(None, "https://evil.net", path="/items") == (200, 1), "web applications decide themselves"
    for policy in (None, POLICY):
        assert opened(policy, "https://evil.net") == (403, 0)
        assert opened(policy, "null") == (403, 0)


def test_a_refusal_says_what_allows_the_page() -> None:
    exchange, _ = ask(None, scheme="ws", method="GET", more=())
    assert f"http_options={{'cors': {{'origins': ['{APP}']}}}}" in exchange.body.decode()
