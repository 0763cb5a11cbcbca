"""Strangers who attack the gateway's port: honest clients do not notice, and nothing is left of the attack."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import mesh
from tests.e2e import leftovers
from tests.e2e.conftest import Deploy, Gateway
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

ATTACK_S = 8.0
CONNECTIONS = 20
METADATA = (("application", "hostile"),)
PATIENCE_S = 10.0
WAIT_MAX_S = 1.0
GROWTH_MAX_BYTES = 60 * 2**20
REMAINDER_MAX_BYTES = 30 * 2**20


@mesh.deployment(max_ongoing_requests=1_000)
class Shop(shop_pb2_grpc.ShopServicer):
    async def Price(self, request: shop_pb2.Item, context: Any) -> shop_pb2.Item:
        return request


@pytest.fixture(scope="module", autouse=True)
def shop(deploy: Deploy) -> Iterator[None]:
    deploy(Shop.bind(), "hostile")
    return


class HonestClient(threading.Thread):
    """Calls one after the other on one connection."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self.is_stopping = False
        self.durations_s: list[float] = []
        self.failures: list[grpc.RpcError] = []

    def run(self) -> None:
        with grpc.insecure_channel(self._address) as channel:
            stub = shop_pb2_grpc.ShopStub(channel)
            while not self.is_stopping:
                start_s = time.monotonic()
                try:
                    stub.Price(shop_pb2.Item(name="honest"), metadata=METADATA, timeout=PATIENCE_S)
                except grpc.RpcError as error:
                    self.failures.append(error)
                self.durations_s.append(time.monotonic() - start_s)


def gateway_rss_bytes() -> int:
    (pid,) = [command.split()[0] for command in leftovers.actor_processes("gateway")]
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_attacks_cost_honest_clients_nothing_and_the_gateway_little(gateway: Gateway) -> None:
    clients = [HonestClient(gateway.grpc_address) for _ in range(2)]
    for client in clients:
        client.start()
    until(lambda: all(len(client.durations_s) > 50 for client in clients))
    before = gateway_rss_bytes()
    highest = before
    attackers = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.e2e.hostile_peers",
            str(gateway.grpc_port),
            str(ATTACK_S),
            str(CONNECTIONS),
            "/mesh.tests.Shop/Price",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    while attackers.poll() is None:
        highest = max(highest, gateway_rss_bytes())
        time.sleep(0.05)
    assert attackers.stdout is not None
    assert int(attackers.stdout.read()) > 100, "they made connections"
    for client in clients:
        client.is_stopping = True
        client.join()
    assert [failure for client in clients for failure in client.failures] == []
    assert max(duration_s for client in clients for duration_s in client.durations_s) < WAIT_MAX_S
    assert highest - before < GROWTH_MAX_BYTES
    until(lambda: gateway_rss_bytes() - before < REMAINDER_MAX_BYTES, timeout_s=30)
