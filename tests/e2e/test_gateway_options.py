"""Gateways get other options while stock clients call: no request fails, and a bad option stops nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import httpx
import pytest
from starlette.responses import StreamingResponse

import mesh
from mesh.client import control_client, rollout_wait
from mesh.settings import settings
from mesh.status import GatewayStatus
from tests.e2e.conftest import Deploy, Gateway
from tests.e2e.gate import small
from tests.e2e.load import Load
from tests.e2e.waiting import until
from tests.free_ports import free_port
from tests.unit.protos import shop_pb2, shop_pb2_grpc

PAGE = "https://page.example"
OTHER_INTERFACE = "127.0.0.2"
METADATA = (("application", "open"),)


@small(num_replicas=2, max_ongoing_requests=1000)
class Shop(shop_pb2_grpc.ShopServicer):
    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(name="priced")

    async def __call__(self, request: Any) -> Any:
        return StreamingResponse(endless()) if "endless" in request.query_params else "here"


async def endless() -> AsyncIterator[bytes]:
    yield b"begun"
    await asyncio.Event().wait()


@pytest.fixture
def shop(deploy: Deploy, gateway: Gateway) -> Iterator[None]:
    """After it the gateways have the options of the run again."""
    mesh.run(Shop.bind(), name="open", route_prefix="/open")
    yield
    mesh.start(
        http_options=mesh.HTTPOptions(port=gateway.http_port), grpc_options=mesh.gRPCOptions(port=gateway.grpc_port)
    )
    mesh.delete("open")


@pytest.fixture
def calls(gateway: Gateway) -> Iterator[list[Callable[[], Any]]]:
    """Of gRPC and HTTP, on connections that stay and on new ones."""
    with grpc.insecure_channel(gateway.grpc_address) as channel, httpx.Client(timeout=20) as client:
        url = f"{gateway.http_url}/open"
        yield [
            lambda: price(channel),
            lambda: price_on_new_connection(gateway),
            lambda: client.get(url).raise_for_status().text,
            lambda: httpx.get(url, timeout=20).raise_for_status().text,
        ]


def price(channel: grpc.Channel) -> str:
    item = shop_pb2_grpc.ShopStub(channel).Price(shop_pb2.Item(), metadata=METADATA, timeout=20)
    return str(item.name)


def price_on_new_connection(gateway: Gateway) -> str:
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(gateway.grpc_address, options=options) as channel:
        return price(channel)


def serving() -> set[str]:
    reply = control_client.ControlClient().status()
    return {each.gateway_id for each in reply.gateways if each.status == GatewayStatus.HEALTHY}


def allowed_origin(gateway: Gateway) -> str | None:
    answer = httpx.get(f"{gateway.http_url}/open", headers={"origin": PAGE}, timeout=20)
    return answer.headers.get("access-control-allow-origin")


def test_gateways_get_other_options_host_and_port_without_a_failed_request(
    shop: None, gateway: Gateway, calls: list[Callable[[], Any]]
) -> None:
    """One process takes over the ports of the other; a new port is open before the former one closes (items 52, 199).

    As long as the former gateway has a request, the status shows that it drains.
    """
    before = serving()
    assert allowed_origin(gateway) is None
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{OTHER_INTERFACE}:{gateway.http_port}/open")
    with Load(*calls) as load:
        load.until_answered(50)
        with httpx.stream("GET", f"{gateway.http_url}/open?endless", timeout=20):
            mesh.start(
                http_options={"cors": {"origins": [PAGE]}, "host": "0.0.0.0"},
                grpc_options={"limits_per_method": {"/shop.Shop/*": {"concurrent": 500}}},
            )
            load.until_answered(50)
            until(lambda: sorted(each.status for each in mesh.status().gateways) == ["DRAINING", "HEALTHY"])
        until(lambda: len(mesh.status().gateways) == 1, timeout_s=30)
        load.until_answered(50)
    assert load.errors == []
    assert not serving() & before
    assert allowed_origin(gateway) == PAGE
    assert httpx.get(f"http://{OTHER_INTERFACE}:{gateway.http_port}/open", timeout=20).text == "here"

    port = free_port()
    with Load(*calls[:2]) as load:
        load.until_answered(20)
        mesh.start(http_options={"port": port})
        moved = httpx.get(f"http://127.0.0.1:{port}/open", headers={"origin": PAGE}, timeout=20)
        assert moved.headers["access-control-allow-origin"], "other options stay"
        until(lambda: len(mesh.status().gateways) == 1, timeout_s=30)
        load.until_answered(20)
    assert load.errors == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(gateway.http_url)


def test_a_bad_option_leaves_the_gateways_as_they_are_and_says_why(
    shop: None, gateway: Gateway, calls: list[Callable[[], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is corrected or taken back; nothing but the status changes (items 52, 57)."""
    impatient = replace(settings().client, gateways_failing_timeout_s=0.5)
    monkeypatch.setattr(rollout_wait, "settings", lambda: replace(settings(), client=impatient))
    before = serving()
    with Load(*calls) as load:
        load.until_answered(20)
        with pytest.raises(TimeoutError, match=r"/nowhere\.pem.*former ones serve on"):
            mesh.start(http_options={"ssl_certfile": "/nowhere.pem", "ssl_keyfile": "/nowhere.key"})
        assert any("/nowhere.pem" in each.message for each in mesh.status().gateways)
        assert set(mesh.status().proxies.values()) == {"HEALTHY"}
        load.until_answered(20)
        mesh.start(http_options={"ssl_certfile": None, "ssl_keyfile": None})
        load.until_answered(20)
    assert load.errors == []
    assert serving() == before
