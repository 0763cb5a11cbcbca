"""The registry of gateways, a part of that of all actors: each one's state, and the failed starts of each place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Set
from dataclasses import replace

from mesh.cluster.keys import gateway_name
from mesh.controller.actors.registry.deployment_records import MESSAGE_MAX_CHARS
from mesh.controller.actors.registry.gateway_state import GATEWAY_TRANSITIONS, GatewayEvent
from mesh.controller.plan.actions import Reason
from mesh.controller.plan.cluster_picture import NO_FAILURES, Failures, Gateway, GatewaySlot
from mesh.phases.transitions import next_state
from mesh.settings import settings
from mesh.status import GatewayStatus
from mesh.v1 import control_pb2


class GatewayRegistry:
    """Written by the keeper of gateways. Events of gateways that have ended are ignored."""

    def __init__(self, clock: Callable[[], float], on_change: Callable[[], None]) -> None:
        self._clock = clock
        self._on_change = on_change
        self._gateways: dict[str, Gateway] = {}
        self._failures: dict[GatewaySlot, Failures] = {}

    def __repr__(self) -> str:
        return f"<GatewayRegistry {dict(Counter(each.state.value for each in self._gateways.values()))}>"

    def observed(self) -> tuple[Gateway, ...]:
        return tuple(self._gateways.values())

    def failures(self) -> dict[GatewaySlot, Failures]:
        """Failed starts, by place and revision of the options."""
        return dict(self._failures)

    def find(self, gateway_id: str) -> Gateway | None:
        return self._gateways.get(gateway_id)

    def actor_names(self) -> set[str]:
        slots = [each.slot for each in self._gateways.values()]
        return {gateway_name(slot.node_id, slot.index, slot.revision) for slot in slots}

    def add(self, gateway: Gateway) -> None:
        self._put(replace(gateway, since_at_s=self._clock()))

    def ready(self, ready: control_pb2.GatewayReady) -> None:
        gateway = self._gateways.get(ready.gateway_id)
        if gateway and gateway.state == GatewayStatus.STARTING:
            self._failures = _of_other_places(self._failures, gateway.slot)
            addressed = replace(gateway, grpc_address=ready.grpc_address, http_address=ready.http_address)
            self._moved(addressed, GatewayEvent.READY)

    def stopping(self, gateway_id: str, reason: Reason) -> bool:
        """The gateway is being drained or killed. Returns whether that is a new decision about it."""
        gateway = self._gateways.get(gateway_id)
        if gateway is None or reason in gateway.stop_reasons:
            return False
        self._moved(replace(gateway, stop_reasons=(*gateway.stop_reasons, reason)), GatewayEvent.STOP)
        return True

    def broken(self, gateway_id: str, message: str) -> None:
        gateway = self._gateways.get(gateway_id)
        if gateway and gateway.state != GatewayStatus.DRAINING and not gateway.unhealthy:
            self._count_failure(gateway, message)
            self._moved(replace(gateway, unhealthy=message), GatewayEvent.BREAK)

    def checked(self, gateway_id: str, failure: str | None) -> None:
        gateway = self._gateways.get(gateway_id)
        if gateway is None or (failure is None and gateway.health_failures == 0):
            return
        count = 0 if failure is None else gateway.health_failures + 1
        self._put(replace(gateway, health_failures=count))
        if failure is not None and count >= settings().controller.health_failures_max:
            self.broken(gateway_id, f"the gateway failed {count} health checks in a row: {failure}")

    def closed(self, gateway_id: str, message: str) -> None:
        if gateway := self._gateways.pop(gateway_id, None):
            if gateway.state in (GatewayStatus.STARTING, GatewayStatus.HEALTHY):
                self._count_failure(gateway, message)
            self._on_change()

    def nodes_gone(self, gone: Set[str]) -> None:
        """Gateways on these nodes count as ended, and what failed there is forgotten."""
        for gateway in list(self._gateways.values()):
            if gateway.slot.node_id in gone:
                self.closed(gateway.gateway_id, "its node is gone")
        for slot in [each for each in self._failures if each.node_id in gone]:
            del self._failures[slot]

    def _moved(self, gateway: Gateway, event: GatewayEvent) -> None:
        state = next_state(GATEWAY_TRANSITIONS, gateway.state, event)
        since_at_s = gateway.since_at_s if state == gateway.state else self._clock()
        self._put(replace(gateway, state=state, since_at_s=since_at_s))

    def _put(self, gateway: Gateway) -> None:
        self._gateways[gateway.gateway_id] = gateway
        self._on_change()

    def _count_failure(self, gateway: Gateway, message: str) -> None:
        failures = self._failures.get(gateway.slot, NO_FAILURES)
        self._failures[gateway.slot] = replace(
            failures, count=failures.count + 1, last_at_s=self._clock(), message=message[:MESSAGE_MAX_CHARS]
        )


def _of_other_places(failures: Mapping[GatewaySlot, Failures], slot: GatewaySlot) -> dict[GatewaySlot, Failures]:
    """Without those in the place of `slot`, unless they are of later options."""
    place = (slot.node_id, slot.index)
    return {
        each: found
        for each, found in failures.items()
        if (each.node_id, each.index) != place or each.revision > slot.revision
    }
