"""Gateways of several nodes get other options, node by node, while stock clients call each of them."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import grpc
import httpx
import pytest
import ray

import mesh
from mesh.client import control_client
from mesh.status import GatewayStatus
from tests.e2e.conftest import Deploy
from tests.e2e.gate import small
from tests.e2e.load import Load
from tests.e2e.waiting import until
from tests.nodes.conftest import Nodes
from tests.unit.protos import shop_pb2, shop_pb2_grpc

APP = "everywhere"
METADATA = (("application", APP),)
PAGE = "https://page.example"
NODES = 3


@small(num_replicas=NODES, max_replicas_per_node=1, max_ongoing_requests=1000)
class Shop(shop_pb2_grpc.ShopServicer):
    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(name="priced")

    async def __call__(self, request: Any) -> str:
        return "here"


@pytest.fixture
def addresses(nodes: Nodes, deploy: Deploy) -> Iterator[dict[str, tuple[str, str]]]:
    """Of the gateway of each node: gRPC and HTTP. The nodes are one machine, so each gets ports that are free."""
    mesh.start(proxy_location="EveryNode", http_options={"port": 0, "cors": None}, grpc_options={"port": 0})
    deploy(Shop.bind(), APP)
    until(lambda: len(gateways()) == NODES, timeout_s=30)
    yield gateways()
    http = {"port": nodes.http_port, "cors": None}
    mesh.start(proxy_location="HeadOnly", http_options=http, grpc_options={"port": nodes.grpc_port})
    until(lambda: serving() == {nodes.head: 1}, timeout_s=30)


def gateways() -> dict[str, tuple[str, str]]:
    """Where those listen that serve, by their node."""
    reply = control_client.ControlClient().status()
    healthy = [each for each in reply.gateways if each.status == GatewayStatus.HEALTHY]
    return {each.node_id: (each.grpc_address, each.http_address) for each in healthy}


def serving() -> Counter[str]:
    """How many gateways serve on each node."""
    reply = control_client.ControlClient().status()
    return Counter(each.node_id for each in reply.gateways if each.status == GatewayStatus.HEALTHY)


class Watch:
    """The gateways that serve on each node, seen again and again until the end of the block."""

    def __init__(self) -> None:
        self.seen: list[Counter[str]] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(timeout=30)

    def _look(self) -> None:
        while not self._is_over.is_set():
            self.seen.append(serving())


def calls_of(grpc_address: str, http_address: str, stack: ExitStack) -> list[Callable[[], Any]]:
    """On connections that stay and on new ones."""
    channel = stack.enter_context(grpc.insecure_channel(grpc_address))
    client = stack.enter_context(httpx.Client(timeout=20))
    url = f"http://{http_address}/{APP}"
    return [
        lambda: price(channel),
        lambda: price_on_new_connection(grpc_address),
        lambda: client.get(url).raise_for_status().text,
        lambda: httpx.get(url, timeout=20).raise_for_status().text,
    ]


def price(channel: grpc.Channel) -> str:
    return str(shop_pb2_grpc.ShopStub(channel).Price(shop_pb2.Item(), metadata=METADATA, timeout=20).name)


def price_on_new_connection(address: str) -> str:
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        return price(channel)


def allowed_origin(http_address: str) -> str | None:
    answer = httpx.get(f"http://{http_address}/{APP}", headers={"origin": PAGE}, timeout=20)
    return answer.headers.get("access-control-allow-origin")


def test_options_roll_over_the_nodes_without_a_failed_call(addresses: dict[str, tuple[str, str]]) -> None:
    """One node at a time, each on the ports that it has, and every node serves all the time (item 52)."""
    with ExitStack() as stack:
        loads = [stack.enter_context(Load(*calls_of(*each, stack))) for each in addresses.values()]
        watch = stack.enter_context(Watch())
        for load in loads:
            load.until_answered(20)
        mesh.start(http_options={"cors": {"origins": [PAGE]}})
        # Those that were replaced drain while the new ones serve.
        until(lambda: len(mesh.status().gateways) == NODES, timeout_s=60)
        for load in loads:
            load.until_answered(20)
    assert [error for load in loads for error in load.errors] == []
    assert gateways() == addresses
    assert [allowed_origin(http) for _, http in addresses.values()] == [PAGE] * NODES
    assert all(each.keys() == addresses.keys() for each in watch.seen), "every node has one that serves, all the time"
    assert all(sum(count > 1 for count in each.values()) <= 1 for each in watch.seen), "one node at a time"


def test_a_roll_goes_on_under_another_controller_without_a_failed_call(addresses: dict[str, tuple[str, str]]) -> None:
    """It dies when the first node has a gateway with the new options (item 52)."""
    with ExitStack() as stack:
        loads = [stack.enter_context(Load(*calls_of(*each, stack))) for each in addresses.values()]
        starting = stack.enter_context(ThreadPoolExecutor(1)).submit(
            mesh.start, http_options={"cors": {"origins": [PAGE]}}
        )
        until(lambda: PAGE in [allowed_origin(http) for _, http in addresses.values()])
        ray.kill(ray.get_actor("MESH_CONTROLLER", namespace="mesh"), no_restart=False)
        starting.result(timeout=60)
        until(lambda: serving() == Counter(addresses.keys()) and len(mesh.status().gateways) == NODES, timeout_s=60)
        for load in loads:
            load.until_answered(20)
    assert [error for load in loads for error in load.errors] == []
    assert gateways() == addresses
    assert [allowed_origin(http) for _, http in addresses.values()] == [PAGE] * NODES
