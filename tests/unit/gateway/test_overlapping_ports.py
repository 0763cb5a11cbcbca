"""A gateway gets another host on the port that it has: what goes on being served misses no connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest

from gateway.overlapping_ports import divided, listen_beside
from mesh.settings import settings
from mesh.v1 import control_pb2
from tests.free_ports import free_port
from tests.unit.fakes.certificates import Pki
from tests.unit.gateway.fakes import UNARY, on_io_loop, route_table, until
from tests.unit.gateway.gateway_node import Node, running
from tests.unit.gateway.successors import Clients, start_successor

ONE, OTHER, ALL = "127.0.0.1", "127.0.0.2", "0.0.0.0"
PATH, ROUTES = "/-/routes", (200, '{"/shop": "shop"}')
"""Answered by a gateway that drains as by every other one."""


@pytest.fixture(autouse=True)
def short_lame_duck(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = replace(settings().gateway, lame_duck_s=0.2)
    monkeypatch.setattr("gateway.node_gateway.settings", lambda: replace(settings(), gateway=quick))


async def is_refused(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


def is_free(port: int) -> bool:
    """For a stranger, who does not share it."""
    try:
        socket.create_server((OTHER, port)).close()
    except OSError:
        return False
    return True


def test_clients_lose_no_request_when_the_host_changes_there_and_back():
    """From one interface to all, to one, and to all again, as sockets are handed on from one to the next."""

    async def scenario() -> None:
        async with running() as first:
            first.process.publish(route_table("shop"))
            port = first.spec.options.http_port
            node = first
            async with Clients(first, PATH) as clients:
                for host in (ALL, ONE, ALL):
                    successor = await start_successor(node, http_host=host)
                    await clients.more()
                    assert node.gateway.ports.is_replaced is (host == ALL)
                    drained = asyncio.ensure_future(node.gateway.drain())
                    await clients.more()
                    await drained
                    assert await is_refused(OTHER, port) is (host == ONE)
                    assert is_free(port) is (host == ONE)
                    await clients.more()
                    node = successor
            await node.gateway.close()
            assert await is_refused(ONE, port)

    on_io_loop(scenario())


def test_a_host_that_covers_none_of_the_former_ones_is_opened_beside_them():
    async def scenario() -> None:
        async with running() as former:
            former.process.publish(route_table("shop"))
            port = former.spec.options.http_port
            successor = await start_successor(former, http_host=OTHER)
            assert not former.gateway.ports.is_replaced
            assert not await is_refused(OTHER, port)
            await former.gateway.drain()
            assert await is_refused(ONE, port)
            assert await successor.get(PATH) == ROUTES
            await successor.gateway.close()

    on_io_loop(scenario())


def test_a_successor_that_fails_leaves_the_port_unshared():
    async def scenario() -> None:
        async with running(http_host=ALL) as former, running() as stranger:
            former.process.publish(route_table("shop"))
            port, taken = former.spec.options.http_port, stranger.spec.options.grpc_port
            with pytest.raises(OSError, match=f"cannot listen on {ONE}:{taken}"):
                await start_successor(former, http_host=ONE, grpc_port=taken)
            await until(lambda: not any(map(is_shared, sockets_of(former))), "the end of the successor is seen")
            assert await former.get(PATH) == ROUTES
            assert not is_free(port)

    on_io_loop(scenario())


def is_shared(each: socket.socket) -> bool:
    return bool(each.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))


def sockets_of(node: Node) -> list[socket.socket]:
    return [each for found in node.gateway.listener.server.sockets.listening() for each in found]


def test_a_port_with_tls_gets_another_host_too(tmp_path: Path):
    async def scenario() -> None:
        pki = Pki(tmp_path)
        paths = pki.server()
        files = control_pb2.TlsFiles(certfile=str(paths.certfile), keyfile=str(paths.keyfile))
        async with running(http_tls=files) as former:
            former.process.publish(route_table("shop"))
            successor = await start_successor(former, http_host=ALL)
            await former.gateway.drain()
            async with grpc.aio.secure_channel(successor.ready.http_address, pki.credentials()) as channel:
                assert await channel.unary_unary(UNARY)(b"x", timeout=10) == b"x"
            await successor.gateway.close()

    on_io_loop(scenario())


@contextmanager
def listening(*hosts: str) -> Iterator[tuple[int, list[socket.socket]]]:
    """On the same port, as a gateway does that has had these hosts."""
    port = free_port()
    with ExitStack() as stack:
        found: list[socket.socket] = []
        for host in hosts:
            for each in found:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            found.append(stack.enter_context(socket.create_server((host, port), reuse_port=bool(found))))
        yield port, found


def test_all_interfaces_cover_single_ones_and_a_single_one_itself():
    with listening(ONE, ALL) as (port, (one, everywhere)):
        ports = {f"{ALL}:{port}": [one, everywhere]}
        whole = divided(ports, {f"{ALL}:{port}"})
        assert (whole.whole, whole.covered, whole.overlapping) == (ports, {}, [])
        narrower = divided(ports, {f"{ONE}:{port}"})
        assert (narrower.whole, narrower.covered) == ({}, {f"{ONE}:{port}": [one]})
        assert narrower.overlapping == [one, everywhere]
        assert narrower.taken(ports) == frozenset()
        wider = divided({f"{ONE}:{port}": [one]}, {f"{ALL}:{port}", "http 0.0.0.0", f"{ALL}:{port + 1}"})
        assert wider.covered == {f"{ALL}:{port}": [one]}
        assert wider.taken({f"{ONE}:{port}": [one]}) == {f"{ONE}:{port}"}
        other = divided({f"{ONE}:{port}": [one]}, {f"{OTHER}:{port}"})
        assert (other.covered, other.overlapping) == ({f"{OTHER}:{port}": []}, [one])


def test_a_host_that_cannot_be_bound_closes_what_was_covered():
    with listening(ONE) as (port, (one,)):
        with pytest.raises(OSError, match="assign requested address"):
            listen_beside("192.0.2.1", port, [one])
        assert one.fileno() == -1
