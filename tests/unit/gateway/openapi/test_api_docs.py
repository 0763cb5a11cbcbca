"""The OpenAPI documents and the page at a gateway."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from openapi_spec_validator import validate

from gateway.openapi.api_docs import ApiDocsDialect
from gateway.requests.exchange import BrokenBy
from gateway.requests.routes import read_routes
from tests.unit.fakes.fake_exchange import FakeExchange, request
from tests.unit.gateway.dialects.json_ends import json_of, library_table
from tests.unit.gateway.fakes import route_table, until


def dialect(**prefixes: str) -> ApiDocsDialect:
    docs = ApiDocsDialect()
    docs.set_routes(read_routes(library_table(**prefixes)))
    return docs


def ask(docs: ApiDocsDialect, path: str, method: str = "GET") -> FakeExchange:
    raw_path, _, query = path.partition("?")

    async def answered() -> FakeExchange:
        exchange = FakeExchange(request(raw_path, method=method, query=query.encode()))
        assert docs.claims(exchange.head)
        receiver = docs.open(exchange)
        if receiver is not None:
            receiver.on_end()
        await until(lambda: exchange.has_ended, "the answer")
        return exchange

    return asyncio.run(answered())


def test_the_only_application_needs_no_name() -> None:
    docs = dialect(books="/")
    first = ask(docs, "/-/openapi.json")
    document = json_of(first)
    validate(document)
    assert document["info"]["title"] == "books"
    assert ask(docs, "/-/openapi.json").body == first.body


def test_a_document_that_cannot_be_made_is_answered_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(application: object, root_path: str) -> bytes:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("gateway.openapi.api_docs._document", fail)
    answer = ask(dialect(books="/"), "/-/openapi.json")
    assert (answer.status, b"a fault" in answer.body, "a fault of ours" in caplog.text) == (500, False, True)


def test_of_several_applications_one_is_named() -> None:
    docs = dialect(books="/books", papers="/papers")
    assert json_of(ask(docs, "/-/openapi/papers.json"))["info"]["title"] == "papers"
    assert json_of(ask(docs, "/-/openapi.json?application=books"))["info"]["title"] == "books"
    assert json_of(ask(docs, "/-/openapi/")) == {"applications": ["books", "papers"]}
    answer = ask(docs, "/-/openapi/nothing.json")
    assert (answer.status, json_of(answer)["applications"]) == (404, ["books", "papers"])


@pytest.mark.parametrize("names", [("books", "papers"), ("papers", "books")])
def test_another_application_does_not_take_the_document_without_a_name(names: tuple[str, str]) -> None:
    docs = dialect(**{names[0]: "/first", names[1]: "/second"})
    assert json_of(ask(docs, "/-/openapi.json"))["info"]["title"] == names[0]


def test_routes_that_do_not_say_which_came_first_need_a_name() -> None:
    docs = ApiDocsDialect()
    docs.set_routes(read_routes(library_table(has_order=False, books="/books", papers="/papers")))
    answer = ask(docs, "/-/openapi.json")
    assert (answer.status, json_of(answer)["applications"]) == (404, ["books", "papers"])


def test_applications_without_descriptors_have_no_document() -> None:
    docs = ApiDocsDialect()
    docs.set_routes(read_routes(route_table("shop")))
    assert json_of(ask(docs, "/-/openapi/")) == {"applications": []}
    assert ask(docs, "/-/openapi.json").status == 404


def test_new_routes_have_new_documents() -> None:
    docs = dialect(books="/")
    ask(docs, "/-/openapi.json")
    docs.set_routes(read_routes(library_table(papers="/")))
    assert json_of(ask(docs, "/-/openapi.json"))["info"]["title"] == "papers"


def test_a_client_that_leaves_ends_its_request() -> None:
    async def leave() -> None:
        docs = dialect(books="/")
        exchange = FakeExchange(request("/-/openapi.json", method="GET"))
        receiver = docs.open(exchange)
        assert receiver is not None
        exchange.break_off()
        receiver.on_broken(BrokenBy.CLIENT)
        await until(lambda: len(asyncio.all_tasks()) == 1, "nothing runs")
        assert not exchange.has_sent_head

    asyncio.run(leave())


def test_a_document_is_made_once_for_all_that_ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def make(application: object, root_path: str) -> bytes:
        made.append(application)
        return b"{}"

    async def ask_often() -> None:
        docs = dialect(books="/")
        exchanges = [FakeExchange(request("/-/openapi.json", method="GET")) for _ in range(100)]
        receivers = [docs.open(exchange) for exchange in exchanges]
        assert receivers[0] is not None
        receivers[0].on_broken(BrokenBy.CLIENT)
        await until(lambda: all(each.has_ended for each in exchanges[1:]), "the answers")
        assert {each.body for each in exchanges[1:]} == {b"{}"}
        assert len(made) == 1

    monkeypatch.setattr("gateway.openapi.api_docs._document", make)
    asyncio.run(ask_often())


@pytest.mark.parametrize("path", ["/-/docs", "/-/docs/page.js", "/-/docs/page.css"])
def test_the_page_comes_from_the_package_and_loads_nothing_from_elsewhere(path: str) -> None:
    answer = ask(dialect(), path)
    assert answer.status == 200
    assert not re.findall(rb"(?:https?:)?//[a-z]+\.", answer.body)
    policy = answer.by_name[b"content-security-policy"]
    assert {b"default-src 'none'", b"frame-ancestors 'none'"} <= set(policy.split(b"; "))
    if path == "/-/docs":
        assets = [asset.decode() for asset in re.findall(rb'(?:src|href)="([^"]*)"', answer.body)]
        assert {"docs/page.js", "docs/page.css", "openapi.json"} == set(assets)
        assert all(ask(dialect(books="/"), f"/-/{asset}").status == 200 for asset in assets)


def test_behind_a_proxy_the_document_and_the_page_keep_to_the_path_where_it_has_mounted_the_mesh() -> None:
    """A page at /api/-/docs finds nothing at addresses that begin with a slash (item 54)."""
    docs = ApiDocsDialect("/api")
    docs.set_routes(read_routes(library_table(books="/")))
    assert json_of(ask(docs, "/-/openapi.json"))["servers"] == [{"url": "/api"}]
    page = ask(docs, "/-/docs").body + ask(docs, "/-/docs/page.js").body
    assert not re.findall(rb'["`]/-/(?!docs"[.]length)', page)


def test_only_reading_is_served() -> None:
    answer = ask(dialect(), "/-/docs", "POST")
    assert (answer.status, answer.by_name[b"allow"]) == (405, b"GET, HEAD")


def test_other_paths_are_left_to_others() -> None:
    for path in ("/-/healthz", "/-/openapi", "/docs", "/"):
        assert not ApiDocsDialect().claims(request(path))


def test_the_index_is_json() -> None:
    answer = ask(dialect(books="/"), "/-/openapi/")
    assert answer.by_name[b"content-type"] == b"application/json"
    assert json.loads(answer.body)
