"""Owns which nodes have a gateway. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from mesh.controller.actions import Action, KillGateway, StartGateway, StopGateway
from mesh.controller.desired import Desired
from mesh.controller.observe import NO_FAILURES, Gateway, Observed
from mesh.status import GatewayStatus
from mesh.v1 import control_pb2

GATEWAY_DRAIN_TIMEOUT_S = 35.0
_DELAY_BASE_S = 0.5
_DELAY_MAX_S = 10.0


def plan_gateways(desired: Desired, observed: Observed, now_s: float) -> Iterator[Action]:
    """One gateway on every wanted node; a broken one is replaced, one that will not start is retried more slowly."""
    wanted = wanted_nodes(desired, observed)
    for gateway in observed.gateways:
        yield from _plan_gateway(gateway, wanted, now_s)
    occupied = {gateway.node_id for gateway in observed.gateways}
    for node_id in sorted(wanted - occupied):
        failures = observed.gateway_failures.get(node_id, NO_FAILURES)
        if now_s >= failures.last_s + retry_delay_s(failures.count):
            yield StartGateway(node_id)


def wanted_nodes(desired: Desired, observed: Observed) -> set[str]:
    options = desired.gateways
    if desired.is_shutting_down or not (options.grpc_port or options.http_port):
        return set()
    match options.location:
        case control_pb2.GATEWAY_LOCATION_EVERY_NODE:
            return {node.node_id for node in observed.nodes}
        case control_pb2.GATEWAY_LOCATION_HEAD_ONLY:
            return {node.node_id for node in observed.nodes if node.is_head}
        case _:
            return set()


def retry_delay_s(failures: int) -> float:
    """Pause before the next try after this many failures in a row."""
    return float(min(_DELAY_BASE_S * 2.0 ** min(failures - 1, 30), _DELAY_MAX_S)) if failures else 0.0


def _plan_gateway(gateway: Gateway, wanted: set[str], now_s: float) -> Iterator[Action]:
    if gateway.state == GatewayStatus.DRAINING:
        if now_s - gateway.since_s > GATEWAY_DRAIN_TIMEOUT_S:
            yield KillGateway(gateway.gateway_id)
    elif gateway.unhealthy:
        # Its name has to be free before the next one can have it, and a broken one drains nothing.
        yield KillGateway(gateway.gateway_id)
    elif gateway.node_id not in wanted:
        yield StopGateway(gateway.gateway_id)
