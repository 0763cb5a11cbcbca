"""mesh.controller.actors.registry.gateway_registry: gateways, their names, and what failed in each place."""

import pytest

from mesh.controller.actors.registry.gateway_registry import GatewayRegistry
from mesh.controller.plan.cluster_picture import GatewaySlot
from mesh.status import GatewayStatus
from mesh.v1 import control_pb2
from tests.unit.controller.builders import gateway


@pytest.fixture
def registry() -> GatewayRegistry:
    return GatewayRegistry(lambda: 0.0, lambda: None)


def test_failures_of_a_node_that_is_gone_are_forgotten(registry: GatewayRegistry) -> None:
    """Nodes come and go without end."""
    registry.add(gateway(GatewayStatus.STARTING))
    registry.broken(gateway().gateway_id, "port taken")
    registry.nodes_gone({"n2"})
    assert registry.failures().keys() == {GatewaySlot("n1")}
    registry.nodes_gone({"n1"})
    assert not registry.observed()
    assert not registry.failures()


def test_gateways_of_one_node_have_failures_and_names_of_their_own(registry: GatewayRegistry) -> None:
    first, second = gateway(GatewayStatus.STARTING), gateway(GatewayStatus.STARTING, index=1)
    for each in (first, second):
        registry.add(each)
    assert registry.actor_names() == {"MESH_GATEWAY::n1", "MESH_GATEWAY::n1#1"}
    registry.broken(second.gateway_id, "no memory")
    registry.ready(control_pb2.GatewayReady(gateway_id=first.gateway_id))
    assert registry.failures().keys() == {GatewaySlot("n1", 1)}


def test_a_gateway_that_starts_forgets_its_failures(registry: GatewayRegistry) -> None:
    starting = gateway(GatewayStatus.STARTING)
    registry.add(starting)
    registry.broken(starting.gateway_id, "port taken")
    assert registry.failures()[GatewaySlot("n1")].count == 1
    registry.closed(starting.gateway_id, "killed")
    assert registry.failures()[GatewaySlot("n1")].count == 1
    registry.add(starting)
    registry.ready(control_pb2.GatewayReady(gateway_id=starting.gateway_id, grpc_address="10.0.0.1:9000"))
    assert registry.observed()[0].state == GatewayStatus.HEALTHY
    assert not registry.failures()


def test_three_failed_checks_in_a_row_make_a_gateway_unhealthy(registry: GatewayRegistry) -> None:
    registry.add(gateway())
    for failure in ("slow", "slow", None, "slow", "slow"):
        registry.checked(gateway().gateway_id, failure)
    assert registry.observed()[0].state == GatewayStatus.HEALTHY
    registry.checked(gateway().gateway_id, "slow")
    assert registry.observed()[0].state == GatewayStatus.UNHEALTHY
    assert "failed 3 health checks in a row: slow" in registry.observed()[0].unhealthy


def test_events_of_gateways_that_have_ended_are_ignored(registry: GatewayRegistry) -> None:
    registry.ready(control_pb2.GatewayReady(gateway_id="unknown"))
    registry.broken("unknown", "port taken")
    registry.checked("unknown", "slow")
    registry.closed("unknown", "ended")
    assert registry.observed() == ()
    assert not registry.failures()


def test_its_text_counts_gateways_by_state(registry: GatewayRegistry) -> None:
    registry.add(gateway())
    assert repr(registry) == "<GatewayRegistry {'HEALTHY': 1}>"
