"""The life of a gateway, as the controller sees it: a transition table."""

from enum import Enum, auto

from mesh.status import GatewayStatus


class GatewayEvent(Enum):
    READY = auto()
    """start() answered: the ports are open."""
    BREAK = auto()
    """It could not start, or failed its health checks."""
    STOP = auto()


# A drained gateway leaves the registry, so the controller never sees DRAINED.
GATEWAY_TRANSITIONS: dict[tuple[GatewayStatus, GatewayEvent], GatewayStatus] = {
    (GatewayStatus.STARTING, GatewayEvent.READY): GatewayStatus.HEALTHY,
    (GatewayStatus.STARTING, GatewayEvent.BREAK): GatewayStatus.UNHEALTHY,
    (GatewayStatus.STARTING, GatewayEvent.STOP): GatewayStatus.DRAINING,
    (GatewayStatus.HEALTHY, GatewayEvent.READY): GatewayStatus.HEALTHY,
    (GatewayStatus.HEALTHY, GatewayEvent.BREAK): GatewayStatus.UNHEALTHY,
    (GatewayStatus.HEALTHY, GatewayEvent.STOP): GatewayStatus.DRAINING,
    # An unhealthy gateway is killed, whatever it reports later.
    (GatewayStatus.UNHEALTHY, GatewayEvent.READY): GatewayStatus.UNHEALTHY,
    (GatewayStatus.UNHEALTHY, GatewayEvent.BREAK): GatewayStatus.UNHEALTHY,
    (GatewayStatus.UNHEALTHY, GatewayEvent.STOP): GatewayStatus.UNHEALTHY,
    # Answers that were on their way when it was stopped.
    (GatewayStatus.DRAINING, GatewayEvent.READY): GatewayStatus.DRAINING,
    (GatewayStatus.DRAINING, GatewayEvent.BREAK): GatewayStatus.DRAINING,
    (GatewayStatus.DRAINING, GatewayEvent.STOP): GatewayStatus.DRAINING,
}
