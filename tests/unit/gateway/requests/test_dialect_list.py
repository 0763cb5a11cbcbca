"""gateway.requests.dialect_list: who gets an exchange, and that dialects are asked once for equal heads."""

from __future__ import annotations

from gateway.requests.dialect_list import DialectList
from gateway.requests.exchange import Exchange, HttpHead
from tests.unit.fakes.fake_exchange import FakeExchange


class Paths:
    """Claims some paths, and counts how often it is asked."""

    def __init__(self, *paths: str) -> None:
        self.paths = paths
        self.asked = 0
        self.opened: list[str] = []

    def claims(self, head: HttpHead) -> bool:
        self.asked += 1
        return head.path in self.paths

    def open(self, exchange: Exchange) -> None:
        self.opened.append(exchange.head.path)


def head(path: str) -> HttpHead:
    return HttpHead(method="GET", path=path, fields=[])


def test_the_first_that_claims_an_exchange_gets_it() -> None:
    first, second = Paths("/a"), Paths("/a", "/b")
    dialects = DialectList(first, second)
    for path in ("/a", "/b"):
        dialects.open(FakeExchange(head(path)))
    assert (first.opened, second.opened) == (["/a"], ["/b"])


def test_what_none_claims_is_not_found() -> None:
    exchange = FakeExchange(head("/c"))
    assert DialectList(Paths("/a")).open(exchange) is None
    assert exchange.status == 404


def test_dialects_are_asked_once_about_a_head() -> None:
    dialect, same = Paths("/a"), head("/a")
    dialects = DialectList(dialect)
    for _ in range(3):
        dialects.open(FakeExchange(same))
    assert (dialect.asked, dialect.opened) == (1, ["/a"] * 3)


def test_new_routes_and_new_dialects_may_change_who_claims_a_head() -> None:
    dialect, same = Paths("/b"), head("/a")
    dialects = DialectList(dialect)
    dialects.open(FakeExchange(same))
    dialect.paths = ("/a",)
    dialects.forget()
    dialects.open(FakeExchange(same))
    assert dialect.opened == ["/a"]
    dialect.paths, later = (), Paths("/a")
    dialects.add(later)
    dialects.open(FakeExchange(same))
    assert later.opened == ["/a"]
