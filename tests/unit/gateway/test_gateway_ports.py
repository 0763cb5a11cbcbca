"""A gateway takes over the ports of another one: no client is refused, whatever it speaks and whenever it connects."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from gateway import port_handover
from gateway.gateway_ports import AskedPort, asked_ports
from gateway.port_handover import PortOffer, take_ports
from mesh.settings import settings
from mesh.v1 import control_pb2
from tests.free_ports import free_port
from tests.unit.fakes.certificates import Pki
from tests.unit.gateway.fakes import UNARY, FakeRouter, echo, on_io_loop, route_table, until
from tests.unit.gateway.gateway_node import Node, running
from tests.unit.gateway.successors import Clients, start_successor, two

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(autouse=True)
def short_lame_duck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long enough that requests come meanwhile."""
    quick = replace(settings().gateway, lame_duck_s=0.2)
    monkeypatch.setattr("gateway.node_gateway.settings", lambda: replace(settings(), gateway=quick))


def test_clients_lose_no_request_when_a_gateway_takes_over_the_ports_of_another():
    """Old and new connections of gRPC and HTTP/1.1; health never says that the node does not serve."""

    async def scenario() -> None:
        async with two() as (former, successor):
            assert successor.ready.grpc_address == former.ready.grpc_address
            async with Clients(former) as clients:
                drained = asyncio.ensure_future(former.gateway.drain())
                await clients.more()
                await drained
                await clients.more()
            assert successor.router.calls

    on_io_loop(scenario())


def test_health_stays_good_on_a_connection_to_the_gateway_that_is_replaced():
    async def scenario() -> None:
        async with two() as (former, _):
            assert await former.health() == SERVING
            drained = asyncio.ensure_future(former.gateway.drain())
            await until(lambda: "DRAINING" in repr(former.gateway), "it drains")
            assert await former.health() == SERVING
            await drained

    on_io_loop(scenario())


def test_a_free_port_stays_the_same():
    async def scenario() -> None:
        former = Node(FakeRouter(echo))
        former.spec.options.grpc_port = former.spec.options.http_port = 0
        former.ready = await former.gateway.start()
        former.process.publish(route_table("shop"))
        successor = await start_successor(former)
        assert successor.ready.grpc_address == former.ready.grpc_address != successor.ready.http_address
        assert successor.ready.http_address == former.ready.http_address
        await former.gateway.close()
        await successor.gateway.close()

    on_io_loop(scenario())


def test_another_port_is_open_before_the_former_one_closes():
    """Balancers learn by health that the former one ends."""

    async def scenario() -> None:
        async with two(grpc_port=free_port()) as (former, successor):
            assert successor.ready.grpc_address != former.ready.grpc_address
            async with grpc.aio.insecure_channel(successor.ready.grpc_address) as channel:
                assert await channel.unary_unary(UNARY)(b"new", timeout=10) == b"new"
            assert await former.channel.unary_unary(UNARY)(b"old", timeout=10) == b"old"
            drained = asyncio.ensure_future(former.gateway.drain())
            await until(lambda: "DRAINING" in repr(former.gateway), "it drains")
            assert await former.health() == NOT_SERVING
            assert await former.channel.unary_unary(UNARY)(b"old", timeout=10) == b"old"
            await drained
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", former.spec.options.grpc_port)
            assert await successor.get("/-/healthz") == (200, "success")

    on_io_loop(scenario())


def test_a_gateway_whose_successor_has_gone_keeps_its_ports_and_drains_as_usual():
    async def scenario() -> None:
        async with two() as (former, successor):
            ports = former.gateway.ports
            assert ports.is_replaced
            await successor.gateway.close()
            await until(lambda: not ports.is_replaced, "the end of the successor is seen")
            async with Clients(former):
                pass
            again = await start_successor(former)
            assert ports.is_replaced
            await again.gateway.close()
            await until(lambda: not ports.is_replaced, "the end of the successor is seen")
            drained = asyncio.ensure_future(former.gateway.drain())
            await until(lambda: "DRAINING" in repr(former.gateway), "it drains")
            assert await former.health() == NOT_SERVING
            await drained

    on_io_loop(scenario())


def test_a_taken_port_fails_the_successor_and_harms_nothing():
    async def scenario() -> None:
        async with running() as former, running() as other:
            former.process.publish(route_table("shop"))
            with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{other.spec.options.http_port}"):
                await start_successor(former, http_port=other.spec.options.http_port)
            async with Clients(former):
                pass
            await until(lambda: not former.gateway.ports._offer.taken, "the end of the successor is seen")

    on_io_loop(scenario())


def test_a_port_with_tls_is_taken_over_too(tmp_path: Path):
    """The successor has other files: what it shows is what they hold."""

    async def scenario() -> None:
        first, second = (Pki(tmp_path / name) for name in ("first", "second"))
        async with running(grpc_tls=files_of(first)) as former:
            former.process.publish(route_table("shop"))
            successor = await start_successor(former, grpc_tls=files_of(second))
            await former.gateway.drain()
            async with grpc.aio.secure_channel(successor.ready.grpc_address, second.credentials()) as channel:
                assert await channel.unary_unary(UNARY)(b"x", timeout=10) == b"x"
            await successor.gateway.close()

    on_io_loop(scenario())


def files_of(pki: Pki) -> control_pb2.TlsFiles:
    paths = pki.server()
    return control_pb2.TlsFiles(certfile=str(paths.certfile), keyfile=str(paths.keyfile))


def test_processes_of_other_users_get_no_socket(monkeypatch: pytest.MonkeyPatch):
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            offer = PortOffer(lambda: {"a": [listening]})
            address = offer.open()
            assert offer.open() == address
            monkeypatch.setattr(port_handover.os, "getuid", lambda: -1)
            with pytest.raises(OSError, match="another user"):
                await asyncio.to_thread(take_ports, address, {"a"})
            monkeypatch.setattr(port_handover, "is_of_this_user", lambda connection: True)
            taken = await asyncio.to_thread(take_ports, address, {"a", "b"})
            assert taken.sockets["a"][0].getsockname() == listening.getsockname()
            taken.close()
            assert taken.sockets["a"][0].fileno() == -1
            await until(lambda: not offer.taken, "the end of the taker is seen")
            offer.close()
            with pytest.raises(OSError, match="does not hand over its ports"):
                await asyncio.to_thread(take_ports, address, {"a"})

    on_io_loop(scenario())


def test_an_offer_that_cannot_accept_is_made_again(monkeypatch: pytest.MonkeyPatch):
    async def no_descriptor(listener: socket.socket) -> None:
        raise OSError(24, "Too many open files")

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            offer = PortOffer(lambda: {"a": [listening]})
            with monkeypatch.context() as patched:
                patched.setattr(asyncio.get_running_loop(), "sock_accept", no_descriptor)
                address = offer.open()
                await until(lambda: not offer._tasks, "it does not accept")
            assert offer.open() != address
            (await asyncio.to_thread(take_ports, offer.open(), {"a"})).close()
            offer.close()

    on_io_loop(scenario())


@pytest.mark.parametrize("nonsense", [b"no JSON", b"{}", b"7", b"[[1]]"])
def test_nonsense_at_the_offer_harms_nothing(nonsense: bytes):
    async def scenario() -> None:
        async with two() as (former, _):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect(f"\0{former.gateway.offer_ports()}")
                stranger.sendall(nonsense)
            again = await start_successor(former)
            assert former.gateway.ports.is_replaced
            await again.gateway.close()

    on_io_loop(scenario())


def test_ports_differ_by_host_and_number_and_free_ones_by_their_kind():
    options = control_pb2.GatewayOptions(grpc_host="0.0.0.0", grpc_port=9000, http_host="localhost", http_port=8000)
    assert [each.name for each in asked_ports(options)] == ["0.0.0.0:9000", "127.0.0.1:8000"]
    assert AskedPort("grpc", "127.0.0.1", 0).name != AskedPort("http", "127.0.0.1", 0).name
    assert [each.kind for each in asked_ports(control_pb2.GatewayOptions(http_port=1))] == ["http"]
