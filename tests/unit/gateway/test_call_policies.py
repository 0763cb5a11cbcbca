"""Retries and second copies that a gateway makes on its own, between two real replicas and a client of each dialect."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Any

import grpc
import pytest

from gateway.dialects.method_lookup import ServedMethods
from gateway.ops.grpc_metrics import GrpcMetrics
from gateway.requests.routes import Refusal, read_routes
from mesh.options.calls.call_policies import NO_POLICIES, CallPolicies, read_policies
from mesh.options.calls.hedge_option import HedgePolicy
from mesh.options.calls.retry_option import RetryPolicy
from mesh.options.gateway.gateway_options import parse
from mesh.v1 import control_pb2
from tests.unit.fakes.shop_routes import PRICE, STOCK_COUNT, STOCK_PRICE, every_dialect
from tests.unit.fakes.small_mesh import SmallMesh, mesh_of
from tests.unit.gateway.fakes import FakeRouter, on_io_loop, until
from tests.unit.gateway.typed_clients import Client, Seen, TypedCall, by_connect, by_grpc, by_grpc_web, by_json
from tests.unit.protos import shop_pb2_grpc
from tests.unit.protos.shop_pb2 import Item

pytestmark = pytest.mark.timeout(60)

CLIENTS: dict[str, Client] = {
    "gRPC": by_grpc,
    "gRPC-Web": by_grpc_web,
    "Connect": by_connect("proto"),
    "JSON": by_json,
}
ABORTED, UNAVAILABLE = 10, 14
RETRIES = CallPolicies(retry=RetryPolicy(attempts=3, codes=frozenset({UNAVAILABLE}), budget=1.0))
HEDGES = CallPolicies(hedge=HedgePolicy(delay_s=1.0))
"""Time enough for the first copy to reach its replica before the second one, on a busy machine too."""

_NOT_INSTALLED = pytest.mark.skipif(find_spec("connectrpc") is None, reason="connectrpc is not installed")
every_client = pytest.mark.parametrize(
    "client",
    [
        pytest.param(client, id=name, marks=_NOT_INSTALLED if name == "Connect" else ())
        for name, client in CLIENTS.items()
    ],
)


class Store(shop_pb2_grpc.StockServicer):
    """Answers with its name; on demand it fails some calls first, or waits."""

    code = grpc.StatusCode.UNAVAILABLE

    def __init__(self, name: str, began: list[Store], fails: int = 0) -> None:
        self.name = name
        self.fails = fails
        self.is_stuck = False
        self.cancelled = 0
        self._began = began

    async def Price(self, request: Any, context: Any) -> Any:
        self._began.append(self)
        try:
            while self.is_stuck:  # noqa: ASYNC110  # set by another thread
                await asyncio.sleep(0.002)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fails:
            self.fails -= 1
            await context.abort(self.code, "not now")
        return Item(name=self.name, amount=request.amount)

    async def Count(self, request: Any, context: Any) -> Any:
        return await self.Price(request, context)


class Shop(shop_pb2_grpc.ShopServicer):
    """The same method without a word about side effects."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def Price(self, request: Any, context: Any) -> Any:
        return await self._store.Price(request, context)


async def seen_by(client: Client, mesh: SmallMesh, policies: CallPolicies, path: str = STOCK_PRICE) -> Seen:
    async with every_dialect(mesh.router, policies) as served:
        return await client(served.port, TypedCall(path=path, requests=(Item(amount=7),)))


@every_client
@pytest.mark.parametrize("path", [STOCK_PRICE, STOCK_COUNT])
def test_a_call_without_side_effects_that_failed_is_sent_to_another_replica(client: Client, path: str) -> None:
    began: list[Store] = []
    with mesh_of(Store("a", began, fails=1), Store("b", began, fails=1)) as mesh:
        seen = on_io_loop(seen_by(client, mesh, RETRIES, path))
        assert (seen.code, [item.amount for item in seen.responses]) == (0, [7])
        first, second, third = began
        assert first is third
        assert first is not second
        mesh.assert_idle()


@every_client
def test_attempts_and_codes_limit_the_retries(client: Client) -> None:
    began: list[Store] = []
    with mesh_of(Store("a", began, fails=9), Store("b", began, fails=9)) as mesh:
        seen = on_io_loop(seen_by(client, mesh, RETRIES))
        assert (seen.code, seen.message, len(began)) == (UNAVAILABLE, "not now", 3)
        for store in set(began):
            store.code = grpc.StatusCode.ABORTED
        assert on_io_loop(seen_by(client, mesh, RETRIES)).code == ABORTED
        assert len(began) == 4


@every_client
def test_a_call_that_may_have_side_effects_is_sent_once(client: Client) -> None:
    began: list[Store] = []
    stores = Store("a", began, fails=9), Store("b", began, fails=9)
    with mesh_of(*map(Shop, stores)) as mesh:
        assert on_io_loop(seen_by(client, mesh, RETRIES, PRICE)).code == UNAVAILABLE
        assert len(began) == 1


def test_without_options_no_call_is_sent_again() -> None:
    began: list[Store] = []
    with mesh_of(Store("a", began, fails=9), Store("b", began, fails=9)) as mesh:
        assert on_io_loop(seen_by(by_grpc, mesh, NO_POLICIES)).code == UNAVAILABLE
        assert len(began) == 1


@every_client
def test_a_second_copy_answers_where_the_first_is_stuck(client: Client) -> None:
    began: list[Store] = []
    stores = Store("a", began), Store("b", began)
    for store in stores:
        store.is_stuck = True

    async def call(mesh: SmallMesh) -> Seen:
        sent = asyncio.ensure_future(seen_by(client, mesh, HEDGES))
        await until(lambda: len(began) == 2, "the second copy at the other replica")
        began[1].is_stuck = False
        return await sent

    with mesh_of(*stores) as mesh:
        seen = on_io_loop(call(mesh))
        assert (seen.code, [item.name for item in seen.responses]) == (0, [began[1].name])
        on_io_loop(until(lambda: began[0].cancelled == 1, "the first copy to be cancelled"))
        assert began[0] is not began[1]
        assert mesh.router.counts.hedges.won == 1
        mesh.assert_idle()


def test_streams_have_no_policies_even_if_they_are_idempotent() -> None:
    full_names = {"/shop.Store/Get": False, "/shop.Store/List": True}
    methods = [
        control_pb2.GrpcMethod(full_name=name, streams_response=streams, is_idempotent=True)
        for name, streams in full_names.items()
    ]
    served = ServedMethods(lambda *_: FakeRouter(), GrpcMetrics())
    served.policies = RETRIES
    route = control_pb2.Route(app="shop", route_prefix="/", ingress="Front", grpc_methods=methods)
    served.set_routes(read_routes(control_pb2.RouteTable(version=1, routes=[route])))
    for name, streams in full_names.items():
        found = served.find(None, name)
        assert not isinstance(found, Refusal)
        assert found.policies == (NO_POLICIES if streams else RETRIES)


@pytest.mark.parametrize("hedge", [0.2, "p95"])
def test_gateways_get_what_the_options_ask_for(hedge: float | str) -> None:
    """Nothing by default (item 55)."""
    options = {"retry": {"attempts": 4, "codes": ["ABORTED", "UNAVAILABLE"], "budget": 0.5}, "hedge_after_s": hedge}
    message = parse(None, None, options).to_message()
    stored = control_pb2.GatewayOptions.FromString(message.SerializeToString())
    assert read_policies(stored) == CallPolicies(
        retry=RetryPolicy(4, frozenset({ABORTED, UNAVAILABLE}), 0.5),
        hedge=HedgePolicy(percentile=95) if hedge == "p95" else HedgePolicy(delay_s=0.2),
    )
    assert read_policies(parse(None, None, None).to_message()) == NO_POLICIES


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"retry": {"attempts": 1}}, r"grpc_options\['retry'\]\['attempts'\] must be"),
        ({"retry": {"codes": ["UNAVAILBLE"]}}, r"grpc_options\['retry'\]\['codes'\] cannot have .* Did you mean"),
        ({"retry": {"tries": 3}}, r"grpc_options\['retry'\] has no 'tries'"),
        ({"hedge_after_s": 0}, r"grpc_options\['hedge_after_s'\] must be more than 0"),
        ({"hedge_after_s": "95"}, r"grpc_options\['hedge_after_s'\] must be seconds"),
    ],
)
def test_wrong_policies_are_refused_by_the_name_of_the_option(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(None, None, options)
