"""The keeper of gateways: tasks that start, watch, check and stop each one and report to the registry."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, assert_never

from mesh.cluster.keys import gateway_name
from mesh.controller.actors.actor_calls import ActorCalls
from mesh.controller.actors.cluster_runtime import ActorCallError, ActorDiedError, Runtime, read_answer
from mesh.controller.actors.registry.gateway_registry import GatewayRegistry
from mesh.controller.plan.actions import GatewayAction, KillGateway, Reason, StartGateway, StopGateway
from mesh.controller.plan.cluster_picture import Gateway, GatewaySlot
from mesh.options.deployments.drain_policy import DrainPolicy
from mesh.settings import settings
from mesh.status import GatewayStatus
from mesh.v1 import control_pb2

logger = logging.getLogger("mesh")


class GatewayKeeper:
    def __init__(
        self,
        registry: GatewayRegistry,
        runtime: Runtime,
        calls: ActorCalls,
        spawn_task: Callable[[Coroutine[Any, Any, None], str], object],
        new_id: Callable[[], str],
    ) -> None:
        self._registry = registry
        self._runtime = runtime
        self._calls = calls
        self._spawn_task = spawn_task
        self._new_id = new_id
        self.options: Mapping[int, control_pb2.GatewayOptions] = {}
        """Options of the gateways that are started from now on, by revision."""

    def begin(self, action: GatewayAction) -> None:
        """Record the action in the registry and start the task that carries it out. Ignores a gateway that is gone."""
        match action:
            case StartGateway(slot, reason, replaces):
                self._start(slot, reason, replaces)
            case StopGateway(gateway_id, reason):
                self._stop(gateway_id, reason)
            case KillGateway(gateway_id, reason):
                self._kill(gateway_id, reason)
            case _:
                assert_never(action)

    def adopt(self, ready: control_pb2.GatewayReady) -> None:
        """Take over a gateway that an earlier controller started. One that starts or drains goes on with that."""
        slot = GatewaySlot(ready.node_id, ready.index, ready.revision)
        self._add(ready.gateway_id, slot)
        self._keep("watch", ready.gateway_id, self._watch(ready.gateway_id, slot))
        if ready.pid:
            self._registry.ready(ready)
        if ready.is_draining:
            self._stop(ready.gateway_id, Reason.ADOPTED)
        elif not ready.pid:
            self._keep("start", ready.gateway_id, self._await_start(_spec(ready.gateway_id, slot), slot))
        else:
            self._keep("check", ready.gateway_id, self._check(ready.gateway_id))

    def adopt_silent(self, slot: GatewaySlot) -> None:
        """Take over a gateway that does not answer yet. It has the time of a start to do so."""
        spec = _spec(self._new_id(), slot)
        self._add(spec.gateway_id, slot)
        self._keep("watch", spec.gateway_id, self._watch(spec.gateway_id, slot))
        self._keep("start", spec.gateway_id, self._await_start(spec, slot))

    def _start(self, slot: GatewaySlot, reason: Reason, replaces: GatewaySlot | None) -> None:
        spec = _spec(self._new_id(), slot)
        spec.options.CopyFrom(self.options[slot.revision])
        if slot.index:
            # The first one adds up the metrics of the node.
            spec.options.ClearField("http_port")
        self._add(spec.gateway_id, slot)
        logger.info("starting gateway %s on node %s: %s", spec.gateway_id, slot.node_id[:8], reason)
        self._keep("start", spec.gateway_id, self._bring_up(spec, slot, replaces))

    def _stop(self, gateway_id: str, reason: Reason) -> None:
        gateway = self._registry.find(gateway_id)
        if gateway and self._registry.stopping(gateway_id, reason):
            logger.info("stopping gateway %s on node %s: %s", gateway_id, gateway.slot.node_id[:8], reason)
            drain = self._calls.drain(_name(gateway.slot), lambda: self._registry.find(gateway_id) is not None)
            self._keep("drain", gateway_id, drain)

    def _kill(self, gateway_id: str, reason: Reason) -> None:
        if gateway := self._registry.find(gateway_id):
            if self._registry.stopping(gateway_id, reason):
                text = f"{reason} ({gateway.unhealthy})" if gateway.unhealthy else reason
                logger.info("killing gateway %s on node %s: %s", gateway_id, gateway.slot.node_id[:8], text)
            self._keep("kill", gateway_id, self._calls.kill(_name(gateway.slot)))

    def _add(self, gateway_id: str, slot: GatewaySlot) -> None:
        gateway = settings().gateway
        drain = DrainPolicy(gateway.lame_duck_s + gateway.drain_timeout_s, settings().controller.drain_margin_s)
        self._registry.add(Gateway(gateway_id=gateway_id, slot=slot, drain=drain))

    def _keep(self, verb: str, gateway_id: str, coroutine: Coroutine[Any, Any, None]) -> None:
        self._spawn_task(coroutine, f"{verb} gateway {gateway_id}")

    async def _bring_up(self, spec: control_pb2.GatewaySpec, slot: GatewaySlot, replaces: GatewaySlot | None) -> None:
        name = _name(slot)
        try:
            if replaces is not None:
                spec.takes_over = await self._hand_over_of(replaces)
            await self._runtime.spawn_gateway(name, spec)
        except ActorCallError as error:
            self._registry.closed(spec.gateway_id, str(error))
            return
        self._keep("watch", spec.gateway_id, self._watch(spec.gateway_id, slot))
        gateway = self._registry.find(spec.gateway_id)
        if gateway and gateway.state == GatewayStatus.DRAINING:
            # It was stopped before it had a process that could drain.
            await self._calls.kill(name)
            return
        await self._await_start(spec, slot)

    async def _hand_over_of(self, slot: GatewaySlot) -> str:
        """Where that gateway hands over its ports. Raises ActorCallError."""
        try:
            async with asyncio.timeout(settings().controller.gateway_check_timeout_s):
                return (await self._runtime.call(_name(slot), "offer_ports") or b"").decode()
        except (ActorCallError, TimeoutError) as error:
            reason = str(error).partition("\n")[0] or "no answer"
            raise ActorCallError(f"the gateway that it replaces does not hand over its ports: {reason}") from error

    async def _await_start(self, spec: control_pb2.GatewaySpec, slot: GatewaySlot) -> None:
        timeout_s = settings().controller.gateway_start_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._calls.answered(lambda: self._runtime.call(_name(slot), "start"))
                ready = read_answer(control_pb2.GatewayReady, answer)
        except TimeoutError:
            self._broken(spec, f"the gateway did not start within {timeout_s:g} s")
            return
        except ActorDiedError:
            return  # _watch reports it, with the reason
        except ActorCallError as error:
            # No user code is involved, so users need no traceback.
            self._broken(spec, str(error).partition("\n")[0])
            return
        ready.gateway_id = spec.gateway_id
        self._registry.ready(ready)
        if ready.is_draining:
            self._stop(spec.gateway_id, Reason.ADOPTED)
        await self._check(spec.gateway_id)

    def _broken(self, spec: control_pb2.GatewaySpec, reason: str) -> None:
        logger.warning("the start of gateway %s on node %s failed: %s", spec.gateway_id, spec.node_id[:8], reason)
        self._registry.broken(spec.gateway_id, reason)

    async def _watch(self, gateway_id: str, slot: GatewaySlot) -> None:
        reason = str(await self._calls.death_reason(_name(slot)))
        gateway = self._registry.find(gateway_id)
        if gateway is not None and gateway.state != GatewayStatus.DRAINING:
            logger.warning("gateway %s on node %s ended: %s", gateway_id, slot.node_id[:8], reason)
        self._registry.closed(gateway_id, reason)

    async def _check(self, gateway_id: str) -> None:
        """Check its health while it serves."""
        while (gateway := self._registry.find(gateway_id)) and gateway.state == GatewayStatus.HEALTHY:
            await asyncio.sleep(settings().controller.gateway_check_interval_s)
            timeout_s = settings().controller.gateway_check_timeout_s
            failure = await self._calls.check(_name(gateway.slot), timeout_s)
            self._registry.checked(gateway_id, failure)


def _spec(gateway_id: str, slot: GatewaySlot) -> control_pb2.GatewaySpec:
    """Without options."""
    return control_pb2.GatewaySpec(
        gateway_id=gateway_id, node_id=slot.node_id, index=slot.index, revision=slot.revision
    )


def _name(slot: GatewaySlot) -> str:
    return gateway_name(slot.node_id, slot.index, slot.revision)
