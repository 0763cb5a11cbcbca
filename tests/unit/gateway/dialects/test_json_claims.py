"""Which requests are the JSON dialect's, and which it leaves to web applications."""

from __future__ import annotations

from tests.unit.fakes.fake_exchange import request
from tests.unit.gateway.dialects.json_ends import SERVICE, JsonGateway, json_of, library_table


def test_an_unknown_method_below_the_prefix_of_its_application_is_unimplemented_too() -> None:
    gateway = JsonGateway(table=library_table(books="/lib", other="/other"))
    answer = gateway.ask("POST", f"/lib{SERVICE}GetBok", b"{}")
    assert (answer.status, json_of(answer)["code"]) == (501, 12)
    assert "Application 'books' has no method" in json_of(answer)["message"]
    assert not gateway.dialect.claims(request(f"/elsewhere{SERVICE}GetBok"))
    assert not gateway.dialect.claims(request("/lib/kinds.Unknown/GetBok"))


def test_a_path_that_is_not_utf_8_is_left_to_a_web_application() -> None:
    table = library_table(books="/")
    assert JsonGateway(table=table).dialect.claims(request("/v1/books/%E9", method="GET"))
    table.routes[0].serves_web = True
    assert not JsonGateway(table=table).dialect.claims(request("/v1/books/%E9", method="GET"))
