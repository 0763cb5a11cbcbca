"""The phases of the listener, alone and as a gateway shows them."""

from __future__ import annotations

import logging
from itertools import product

import pytest

from gateway.listener_phase import LISTENER_TRANSITIONS, ListenerEvent, ListenerPhase
from mesh.phases.transitions import next_state
from tests.unit.gateway.fakes import FakeRouter, Gateway, on_io_loop, route_table, routes_of
from tests.unit.gateway.gateway_node import Node


def test_every_event_may_come_in_every_phase() -> None:
    assert set(LISTENER_TRANSITIONS) == set(product(ListenerPhase, ListenerEvent))


@pytest.mark.parametrize("event", ListenerEvent)
def test_draining_is_final(event: ListenerEvent) -> None:
    assert next_state(LISTENER_TRANSITIONS, ListenerPhase.DRAINING, event) is ListenerPhase.DRAINING


def test_each_change_of_phase_is_one_log_line_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        listener = Gateway(FakeRouter()).listener
        assert repr(listener) == "<GatewayListener WAITING applications=0>"
        listener.set_routes(routes_of("shop"))
        listener.set_routes(routes_of("shop", "bank"))
        assert repr(listener) == "<GatewayListener SERVING applications=2>"
        listener.announce_drain()
        listener.set_routes(routes_of("shop"))
        assert listener.phase is ListenerPhase.DRAINING

    with caplog.at_level(logging.INFO, "mesh.gateway"):
        on_io_loop(scenario())
    assert [each.getMessage() for each in caplog.records] == [
        "listener: WAITING -> SERVING, route table 1 has arrived",
        "listener: SERVING -> DRAINING, 0 calls in progress",
    ]


def test_a_gateway_shows_its_id_phase_and_node() -> None:
    async def scenario() -> None:
        node = Node(FakeRouter())
        assert repr(node.gateway) == "<NodeGateway g WAITING node=n>"
        await node.gateway.start()
        node.process.publish(route_table("shop"))
        assert repr(node.gateway) == "<NodeGateway g SERVING node=n>"
        await node.gateway.drain()
        assert repr(node.gateway) == "<NodeGateway g DRAINING node=n>"

    on_io_loop(scenario())
