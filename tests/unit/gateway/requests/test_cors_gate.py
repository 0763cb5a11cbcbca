"""The gate of CORS in front of the dialects."""

from __future__ import annotations

from gateway.requests.cors import CorsPolicy
from gateway.requests.cors_gate import CorsGate
from gateway.requests.exchange import Exchange, ExchangeReceiver
from tests.unit.fakes.fake_exchange import FakeExchange, request

METHOD = "/shop.Store/Get"
APP = "https://app.example.com"
PREFLIGHT = (("access-control-request-method", "POST"), ("access-control-request-headers", "content-type"))
POLICY = CorsPolicy(origins=[APP])


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
) -> tuple[FakeExchange, Dialect]:
    dialect = Dialect()
    fields = [("origin", origin)] if origin else []
    exchange = FakeExchange(request(path, *fields, *(PREFLIGHT if is_preflight else ()), method=method))
    assert CorsGate(policy, METHOD.__eq__, dialect.open).open(exchange) is None
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
