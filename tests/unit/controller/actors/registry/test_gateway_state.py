"""mesh.controller.actors.registry.gateway_state: the life of a gateway is a table (item 199)."""

import pytest

from mesh.controller.actors.registry.gateway_state import GATEWAY_TRANSITIONS, GatewayEvent
from mesh.phases.transitions import WrongTransitionError, next_state
from mesh.status import GatewayStatus

SEEN = {status for status, _ in GATEWAY_TRANSITIONS}


def test_a_gateway_whose_ports_are_open_is_healthy() -> None:
    assert next_state(GATEWAY_TRANSITIONS, GatewayStatus.STARTING, GatewayEvent.READY) == GatewayStatus.HEALTHY


@pytest.mark.parametrize("status", [GatewayStatus.STARTING, GatewayStatus.HEALTHY])
def test_one_that_does_not_start_or_answer_is_unhealthy(status: GatewayStatus) -> None:
    assert next_state(GATEWAY_TRANSITIONS, status, GatewayEvent.BREAK) == GatewayStatus.UNHEALTHY


@pytest.mark.parametrize("status", [GatewayStatus.UNHEALTHY, GatewayStatus.DRAINING])
@pytest.mark.parametrize("event", GatewayEvent)
def test_there_is_no_way_back_into_service(status: GatewayStatus, event: GatewayEvent) -> None:
    """What comes late changes nothing: these gateways end."""
    assert next_state(GATEWAY_TRANSITIONS, status, event) == status


@pytest.mark.parametrize("status", sorted(SEEN))
@pytest.mark.parametrize("event", GatewayEvent)
def test_every_event_may_come_in_every_status(status: GatewayStatus, event: GatewayEvent) -> None:
    assert next_state(GATEWAY_TRANSITIONS, status, event) in SEEN


def test_a_pair_outside_the_table_raises() -> None:
    with pytest.raises(WrongTransitionError, match="READY while DRAINED"):
        next_state(GATEWAY_TRANSITIONS, GatewayStatus.DRAINED, GatewayEvent.READY)
