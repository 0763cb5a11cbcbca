"""Which nodes have gateways, and when those with former options are replaced. Pure.

New options come to one node at a time. A gateway with the new ones takes over the ports of the one it replaces, and
that ends when the new one has served for `gateway_min_ready_s`. While one cannot start, no other node is touched: the
gateways with the former options serve on, and one of them that dies is replaced by its like. Where that has failed to
start more often than with the new options, it gets those: they may be the correction.

Where a node is to have more of them than before, the others start when those that were there have been replaced: only
then is the port one that can be shared. Where it is to have fewer, those that stay get the new options first, and the
others end one after the other: a process that closes its own socket of a shared port resets the connections that wait
there, and clients come to it while another one sends them away.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from functools import cached_property

from mesh.controller.desired.desired_state import Desired
from mesh.controller.plan.actions import Action, KillGateway, Reason, StartGateway, StopGateway
from mesh.controller.plan.backoff import Backoff
from mesh.controller.plan.cluster_picture import NO_FAILURES, DepartedReplica, Gateway, GatewaySlot, Observed
from mesh.settings import settings
from mesh.status import GatewayStatus
from mesh.v1 import control_pb2

_RETRY = Backoff(first_s=0.5, max_s=10.0)
_RETRY_OF_UPDATES = Backoff(first_s=1.0, max_s=60.0)
"""Other gateways serve meanwhile."""
_LIVE = (GatewayStatus.STARTING, GatewayStatus.HEALTHY)


def plan_gateways(desired: Desired, observed: Observed, now_s: float) -> Iterator[Action]:
    """A gateway in every wanted slot; a broken one is replaced, one that will not start is retried more slowly."""
    rollout = _GatewayRollout(desired, observed, now_s)
    unwanted = Reason.SHUTDOWN if desired.is_shutting_down else Reason.UNWANTED_NODE
    for gateway in observed.gateways:
        yield from _plan_gateway(gateway, rollout, unwanted, now_s)
    for start in rollout.starts():
        failures = observed.gateway_failures.get(start.slot, NO_FAILURES)
        retry = _RETRY if start.replaces is None else _RETRY_OF_UPDATES
        if now_s >= failures.last_at_s + retry.pause_s(failures.count):
            is_again = start.replaces is None and failures.count
            yield replace(start, reason=Reason.REPLACEMENT) if is_again else start


def wanted_slots(desired: Desired, observed: Observed, now_s: float) -> set[GatewaySlot]:
    """With the options that gateways are to have in the end."""
    processes = max(1, desired.gateways.processes)
    nodes = _wanted_nodes(desired, observed, now_s)
    return {GatewaySlot(node_id, index, desired.gateways_revision) for node_id in nodes for index in range(processes)}


def have_all_changed(desired: Desired, observed: Observed, now_s: float) -> bool:
    """Whether options that have changed have come to every gateway, and all have proven themselves with them.

    A controller that has not seen the nodes yet cannot say so.
    """
    if desired.gateways_before is None:
        return False
    rollout = _GatewayRollout(desired, observed, now_s)
    others = any(_is_live(each) and each.slot.revision != desired.gateways_revision for each in observed.gateways)
    return bool(observed.nodes) and not others and all(map(rollout.is_proven, rollout.wanted))


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


def _plan_gateway(gateway: Gateway, rollout: _GatewayRollout, unwanted: Reason, now_s: float) -> Iterator[Action]:
    if gateway.state == GatewayStatus.DRAINING:
        if gateway.drain.is_overdue(gateway.since_at_s, now_s):
            yield KillGateway(gateway.gateway_id, Reason.OVERDUE)
    elif gateway.unhealthy:
        # Its name has to be free before the next one can have it, and a broken one drains nothing.
        yield KillGateway(gateway.gateway_id, Reason.UNHEALTHY)
    elif rollout.successor_of(gateway.slot) not in rollout.wanted:
        if rollout.is_spare(gateway.slot):
            yield StopGateway(gateway.gateway_id, Reason.OPTIONS)
        elif rollout.is_of_unwanted_node(gateway):
            yield StopGateway(gateway.gateway_id, unwanted)
    elif gateway.slot not in rollout.wanted and rollout.is_proven(rollout.successor_of(gateway.slot)):
        yield StopGateway(gateway.gateway_id, Reason.OPTIONS)


@dataclass(frozen=True)
class _GatewayRollout:
    """How far the wanted options have come."""

    desired: Desired
    observed: Observed
    now_s: float

    @cached_property
    def wanted(self) -> Set[GatewaySlot]:
        return wanted_slots(self.desired, self.observed, self.now_s)

    def starts(self) -> Iterator[StartGateway]:
        """What is missing, and what takes the place of another one."""
        for slot in sorted(self.wanted - self._gateways.keys()):
            here = [each for each in self.observed.gateways if self.successor_of(each.slot) == slot]
            living = [each.slot for each in here if _is_live(each)]
            if living:
                # Only from one that serves can it take over the ports.
                is_served = any(self._is_serving(each) for each in living)
                if is_served and slot.node_id == self._current_node:
                    yield StartGateway(slot, Reason.OPTIONS, replaces=max(living))
            elif not any(each.unhealthy for each in here):  # it still has the ports
                missing = self._options_of_missing(slot)
                if missing not in self._gateways and self._is_port_shared_with(missing):
                    yield StartGateway(missing, Reason.SCALE_UP)

    def is_of_unwanted_node(self, gateway: Gateway) -> bool:
        """Not one whose node is not listed, which shows nothing about the node: after a start of the controller the
        list may be late or incomplete. Where the node is gone, the gateway ends with it."""
        node_id = gateway.slot.node_id
        is_listed = any(node.node_id == node_id for node in self.observed.nodes)
        return self.desired.is_shutting_down or (is_listed and not self._wanted_on(node_id))

    def is_spare(self, slot: GatewaySlot) -> bool:
        """Whether its node has all the gateways that it is to have, serving with the wanted options, and this is the
        next of the others to end."""
        wanted = self._wanted_on(slot.node_id)
        here = [each for each in self.observed.gateways if each.slot.node_id == slot.node_id]
        spare = [each.slot for each in here if _is_live(each) and self.successor_of(each.slot) not in self.wanted]
        others = [each for each in here if each.slot not in spare and each.slot not in wanted]
        return bool(wanted) and all(map(self.is_proven, wanted)) and not others and slot == max(spare, default=None)

    def is_proven(self, slot: GatewaySlot) -> bool:
        """Whether there is a gateway that has served for long enough for another one to end."""
        gateway = self._gateways.get(slot)
        if gateway is None or gateway.state != GatewayStatus.HEALTHY or gateway.unhealthy:
            return False
        has_predecessors = self.desired.gateways_before is not None
        return not has_predecessors or self.now_s - gateway.since_at_s >= settings().controller.gateway_min_ready_s

    def successor_of(self, slot: GatewaySlot) -> GatewaySlot:
        """The slot in its place, with the wanted options."""
        return replace(slot, revision=self.desired.gateways_revision)

    def _wanted_on(self, node_id: str) -> list[GatewaySlot]:
        return [slot for slot in self.wanted if slot.node_id == node_id]

    def _is_port_shared_with(self, slot: GatewaySlot) -> bool:
        """Whether this gateway can listen beside the others of its node."""
        before = self.desired.gateways_before
        had = 1 if before is None else max(1, before.options.processes)
        if slot.index < had:
            return True
        return slot.revision == self.desired.gateways_revision and slot.node_id not in self._outdated_nodes

    @cached_property
    def _outdated_nodes(self) -> set[str]:
        """Nodes with gateways of other options that are to be replaced."""
        return {
            each.slot.node_id
            for each in self.observed.gateways
            if _is_live(each) and each.slot not in self.wanted and self.successor_of(each.slot) in self.wanted
        }

    @cached_property
    def _gateways(self) -> dict[GatewaySlot, Gateway]:
        return {each.slot: each for each in self.observed.gateways}

    @cached_property
    def _current_node(self) -> str:
        """The node whose gateways are replaced now; empty: none is.

        One that was begun is finished first, and another one only when all before it serve.
        """
        tried = self._gateways.keys() | self.observed.gateway_failures.keys()
        begun = self._outdated_nodes & {slot.node_id for slot in self.wanted & tried}
        if begun:
            return min(begun)
        others = (slot for slot in self.wanted if slot.node_id not in self._outdated_nodes)
        return min(self._outdated_nodes, default="") if all(map(self.is_proven, others)) else ""

    def _is_serving(self, slot: GatewaySlot) -> bool:
        return self._gateways[slot].state == GatewayStatus.HEALTHY

    def _options_of_missing(self, slot: GatewaySlot) -> GatewaySlot:
        """The slot of a gateway that replaces none: of the former options until the wanted ones have served somewhere,
        unless the former ones have failed more often there."""
        before = self.desired.gateways_before
        if before is None or any(map(self.is_proven, self.wanted)):
            return slot
        former = replace(slot, revision=before.number)
        failed = [self.observed.gateway_failures.get(each, NO_FAILURES).count for each in (former, slot)]
        return slot if failed[0] > failed[1] else former


def _is_live(gateway: Gateway) -> bool:
    return gateway.state in _LIVE and not gateway.unhealthy
