"""Owns the life of a gateway, as the controller sees it, as a transition table."""

from enum import Enum, auto

from mesh.status import GatewayStatus


class GatewayEvent(Enum):
    READY = auto()
    """start() answered: the ports are open."""
    BREAK = auto()
    """It could not start, or failed its health checks."""
    STOP = auto()


# DRAINED is for who asks a gateway itself: to the controller one that has finished is gone, and forgotten.
TRANSITIONS: dict[tuple[GatewayStatus, GatewayEvent], GatewayStatus] = {
    (GatewayStatus.STARTING, GatewayEvent.READY): GatewayStatus.HEALTHY,
    (GatewayStatus.STARTING, GatewayEvent.BREAK): GatewayStatus.UNHEALTHY,
    (GatewayStatus.STARTING, GatewayEvent.STOP): GatewayStatus.DRAINING,
    (GatewayStatus.HEALTHY, GatewayEvent.READY): GatewayStatus.HEALTHY,
    (GatewayStatus.HEALTHY, GatewayEvent.BREAK): GatewayStatus.UNHEALTHY,
    (GatewayStatus.HEALTHY, GatewayEvent.STOP): GatewayStatus.DRAINING,
    # A broken one is killed, whatever else is heard of it.
    (GatewayStatus.UNHEALTHY, GatewayEvent.READY): GatewayStatus.UNHEALTHY,
    (GatewayStatus.UNHEALTHY, GatewayEvent.BREAK): GatewayStatus.UNHEALTHY,
    (GatewayStatus.UNHEALTHY, GatewayEvent.STOP): GatewayStatus.UNHEALTHY,
    # Answers that were under way when it was told to stop.
    (GatewayStatus.DRAINING, GatewayEvent.READY): GatewayStatus.DRAINING,
    (GatewayStatus.DRAINING, GatewayEvent.BREAK): GatewayStatus.DRAINING,
    (GatewayStatus.DRAINING, GatewayEvent.STOP): GatewayStatus.DRAINING,
}


def next_status(status: GatewayStatus, event: GatewayEvent) -> GatewayStatus:
    """Raises ValueError for a pair that must not happen."""
    try:
        return TRANSITIONS[status, event]
    except KeyError as error:
        raise ValueError(f"a gateway that is {status} cannot take {event.name}") from error
