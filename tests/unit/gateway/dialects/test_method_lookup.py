"""The look-up of methods that are missing: any client can ask for them, so they must cost no more than others."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import pytest

from gateway.dialects.method_lookup import ServedMethods
from gateway.ops.grpc_metrics import GrpcMetrics
from gateway.requests import routes
from gateway.requests.routes import Refusal, Routes, read_routes
from mesh.v1 import control_pb2
from tests.unit.fakes.shop_routes import shop_routes
from tests.unit.gateway.fakes import FakeRouter

METHODS = 500


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that similar ones were searched for."""
    names: list[str] = []

    def search(name: str, among: Iterable[str], **options: Any) -> list[str]:
        names.append(name)
        return get_close_matches(name, list(among), **options)

    monkeypatch.setattr(routes, "get_close_matches", search)
    return names


def many_methods() -> Routes:
    names = [f"/big.Service/Method{number}" for number in range(METHODS)]
    methods = [control_pb2.GrpcMethod(full_name=name) for name in names]
    route = control_pb2.Route(app="big", route_prefix="/big", ingress="Front", grpc_methods=methods)
    return read_routes(control_pb2.RouteTable(version=1, routes=[route]))


def serving(table: Routes) -> ServedMethods:
    methods = ServedMethods(lambda *_: FakeRouter(), GrpcMetrics())
    methods.set_routes(table)
    return methods


def refusal(methods: ServedMethods, full_name: str, application: str | None = None) -> Refusal:
    found = methods.find(application, full_name)
    assert isinstance(found, Refusal)
    return found


def test_a_missing_method_is_searched_for_once(searches: list[str]) -> None:
    methods = serving(many_methods())
    answers = {refusal(methods, "/big.Service/Methud7").message for _ in range(1_000)}
    assert len(searches) == 1
    assert len(answers) == 1
    assert "Did you mean /big.Service/Method7 or" in answers.pop()


def test_many_missing_methods_are_refused_without_a_search_for_each(searches: list[str]) -> None:
    """A search takes milliseconds of the loop that carries everything."""
    methods = serving(many_methods())
    answers = [refusal(methods, f"/big.Service/Other{number}") for number in range(2_000)]
    assert len(searches) <= 30, "20 at once, and 2 more in each second"
    assert all(f"'/big.Service/Other{number}'" in answer.message for number, answer in enumerate(answers))
    assert {(answer.code, answer.application) for answer in answers} == {(routes.UNIMPLEMENTED, "big")}


def test_methods_that_are_served_are_found_whatever_was_asked_for_before(searches: list[str]) -> None:
    methods = serving(many_methods())
    for number in range(1_000):
        refusal(methods, f"/big.Service/Other{number}")
    for name in ("/big.Service/Method7", "/big/big.Service/Method7"):
        found = methods.find(None, name)
        assert not isinstance(found, Refusal)
        assert found.full_name == "/big.Service/Method7"


def test_a_method_that_is_deployed_later_is_served(searches: list[str]) -> None:
    methods = serving(shop_routes("shop"))
    assert "Services: mesh.tests" in refusal(methods, "/big.Service/Method7").message
    methods.set_routes(many_methods())
    assert not isinstance(methods.find(None, "/big.Service/Method7"), Refusal)
    assert "Did you mean" in refusal(methods, "/big.Service/Methud7").message, "searched for in the new routes"


def test_what_is_kept_of_missing_methods_has_a_limit() -> None:
    methods = serving(many_methods())
    for number in range(1_000):
        refusal(methods, f"/big.Service/Other{number}", "big" if number % 2 else None)
    refusal(methods, f"/big.Service/{'x' * 10_000}")
    assert len(methods._refused) <= 100
    assert max(len(name) for _, name in methods._refused) <= 200
