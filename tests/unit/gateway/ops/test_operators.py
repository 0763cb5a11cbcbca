"""The pages of operators, without a connection."""

from __future__ import annotations

from gateway.ops.operators import Operations, OperatorsDialect
from tests.unit.fakes.fake_exchange import FakeExchange, request


def test_a_refusal_without_room_ends_its_exchange() -> None:
    async def nothing() -> list[object]:
        return []

    operations = Operations(why_unhealthy=str, routes=dict, scrape=nothing, connections=nothing)  # type: ignore[arg-type]
    exchange = FakeExchange(request("/-/healthz"))
    exchange.has_room = False
    assert OperatorsDialect(operations).open(exchange) is None
    assert exchange.is_aborted
