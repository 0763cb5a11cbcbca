"""Which nodes have gateways. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from mesh.controller.desired.desired_state import Desired
from mesh.controller.plan.actions import Action, KillGateway, Reason, StartGateway, StopGateway
from mesh.controller.plan.backoff import Backoff
from mesh.controller.plan.cluster_picture import NO_FAILURES, DepartedReplica, Gateway, GatewaySlot, Observed
from mesh.settings import settings
from mesh.status import GatewayStatus
from mesh.v1 import control_pb2

_RETRY = Backoff(first_s=0.5, max_s=10.0)


def plan_gateways(desired: Desired, observed: Observed, now_s: float) -> Iterator[Action]:
    """A gateway in every wanted slot; a broken one is replaced, one that will not start is retried more slowly."""
    wanted = wanted_slots(desired, observed, now_s)
    unwanted = Reason.SHUTDOWN if desired.is_shutting_down else Reason.UNWANTED_NODE
    for gateway in observed.gateways:
        yield from _plan_gateway(gateway, wanted, unwanted, now_s)
    occupied = {gateway.slot for gateway in observed.gateways}
    for slot in sorted(wanted - occupied):
        failures = observed.gateway_failures.get(slot, NO_FAILURES)
        if now_s >= failures.last_at_s + _RETRY.pause_s(failures.count):
            yield StartGateway(slot, Reason.REPLACEMENT if failures.count else Reason.SCALE_UP)


def wanted_slots(desired: Desired, observed: Observed, now_s: float) -> set[GatewaySlot]:
    processes = max(1, desired.gateways.processes)
    nodes = _wanted_nodes(desired, observed, now_s)
    return {GatewaySlot(node_id, index) for node_id in nodes for index in range(processes)}


def _wanted_nodes(desired: Desired, observed: Observed, now_s: float) -> set[str]:
    """Nodes that Ray drains send their clients away at once, those that operators drain when their replicas have moved.

    The head stays as long as the cluster, so it keeps its gateway when an operator drains it.
    """
    options = desired.gateways
    if desired.is_shutting_down:
        return set()
    staying = [node for node in observed.nodes if node.ends_at_s is None or node.is_emptied]
    heads = {node.node_id for node in staying if node.is_head}
    match options.location:
        case control_pb2.GATEWAY_LOCATION_EVERY_NODE:
            emptied = {node.node_id for node in staying if node.is_emptied}
            occupied = {replica.node_id for replica in observed.replicas}
            may_get_some = _left_lately(observed, now_s) - emptied
            return heads | ((occupied | may_get_some) & {node.node_id for node in staying})
        case control_pb2.GATEWAY_LOCATION_HEAD_ONLY:
            return heads
        case _:
            return set()


def _left_lately(observed: Observed, now_s: float) -> set[str]:
    """Nodes that had replicas lately: they may get some again (items 200, 209)."""
    return {each.bundle_nodes[0] for each in observed.departed if each.bundle_nodes and _is_recent(each, now_s)}


def _is_recent(departed: DepartedReplica, now_s: float) -> bool:
    return now_s - departed.at_s < settings().controller.gateway_linger_s


def _plan_gateway(gateway: Gateway, wanted: set[GatewaySlot], unwanted: Reason, now_s: float) -> Iterator[Action]:
    if gateway.state == GatewayStatus.DRAINING:
        if gateway.drain.is_overdue(gateway.since_at_s, now_s):
            yield KillGateway(gateway.gateway_id, Reason.OVERDUE)
    elif gateway.unhealthy:
        # Its name has to be free before the next one can have it, and a broken one drains nothing.
        yield KillGateway(gateway.gateway_id, Reason.UNHEALTHY)
    elif gateway.slot not in wanted:
        yield StopGateway(gateway.gateway_id, unwanted)
