"""The actor's methods, called on a loop that is not the I/O loop, as Ray does. Without Ray."""

from __future__ import annotations

import asyncio

import pytest

from gateway import gateway_actor as actor_module
from gateway.gateway_actor import GatewayActor
from mesh.usercode.user_failure import UserCodeError
from mesh.v1 import control_pb2
from tests.free_ports import free_port
from tests.unit.gateway.fakes import FakeRouter, route_table
from tests.unit.gateway.gateway_node import FakeProcess, fetch


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> FakeProcess:
    process = FakeProcess(FakeRouter())
    monkeypatch.setattr(actor_module, "join", lambda kind: process)
    monkeypatch.setattr(actor_module, "begin_process", lambda actor, name, options: None)
    monkeypatch.setattr(actor_module.ray_core, "node_ip", lambda: "127.0.0.1")
    return process


def spec(http_port: int) -> bytes:
    options = control_pb2.GatewayOptions(http_host="127.0.0.1", http_port=http_port)
    return control_pb2.GatewaySpec(gateway_id="g", node_id="n", options=options).SerializeToString()


def test_it_starts_once_answers_checks_and_drains(process: FakeProcess):
    """A restarted controller calls start() again to learn the addresses, and finds one that has drained to end it."""
    port = free_port()

    async def scenario() -> None:
        actor = GatewayActor(spec(port))
        assert repr(actor) == "<GatewayActor g, starting>"
        starting = control_pb2.GatewayReady.FromString(await actor.describe())
        assert (starting.gateway_id, starting.pid) == ("g", 0)
        first, second = await asyncio.gather(actor.start(), actor.start())
        assert repr(actor) == "<GatewayActor g, serving>"
        assert first == second == await actor.start() == await actor.describe()
        ready = control_pb2.GatewayReady.FromString(first)
        assert ready.http_address == f"127.0.0.1:{port}"
        await actor.check_health()
        process.publish(route_table("shop"))
        assert await asyncio.to_thread(fetch, f"http://{ready.http_address}/-/healthz", "GET") == (200, "success")
        closed = asyncio.ensure_future(actor.wait_closed())
        await actor.drain()
        assert control_pb2.GatewayReady.FromString(await actor.start()).is_draining
        await actor.drain()
        assert not closed.done()
        closed.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_taken_port_fails_the_start_and_names_it(process: FakeProcess):
    async def scenario() -> None:
        actor = GatewayActor(spec(free_port()))
        ready = control_pb2.GatewayReady.FromString(await actor.start())
        taken = int(ready.http_address.rpartition(":")[2])
        with pytest.raises(UserCodeError, match=str(taken)):
            await GatewayActor(spec(taken)).start()
        await actor.drain()

    asyncio.run(asyncio.wait_for(scenario(), 30))
