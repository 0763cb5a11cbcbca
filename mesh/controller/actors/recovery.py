"""Owns what a restarted controller does first: find the actors there are, adopt who answers, end who does not.

Who has no process yet cannot answer: there its name must do.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TypeVar

from google.protobuf.message import Message

from mesh.controller.actors.action_dispatch import Applier
from mesh.controller.actors.cluster_runtime import (
    GATEWAY_PREFIX,
    REPLICA_PREFIX,
    ActorCallError,
    ActorUnreachableError,
    ReplicaName,
    Runtime,
    read_answer,
)
from mesh.v1 import control_pb2

logger = logging.getLogger("mesh")

_ANSWER_TIMEOUT_S = 10.0
_RETRY_PAUSE_S = 0.2
_MOURNED_S = 60.0
"""Ray may kill the controller first and then the replica that took all the memory: as long ago that may have been."""

M = TypeVar("M", bound=Message)


async def recover(runtime: Runtime, applier: Applier) -> None:
    """Adopt the living replicas and gateways of this mesh. Which of them are wanted is the planner's question."""
    # Groups first: one that is made after this belongs to an actor that is made after this.
    groups = await runtime.placement_group_names()
    names = await runtime.actor_names()
    replicas = [name for name in names if name.startswith(REPLICA_PREFIX)]
    pending = set(await runtime.pending_actor_names())
    await _record_memory_deaths(runtime, applier)
    await asyncio.gather(
        *(_release(runtime, name) for name in set(groups) - set(names)),
        *(_adopt_replica(runtime, applier, name) for name in replicas if name not in pending),
        *(_adopt_pending(runtime, applier, name) for name in replicas if name in pending),
        *(_adopt_gateway(runtime, applier, name) for name in names if name.startswith(GATEWAY_PREFIX)),
    )


async def _record_memory_deaths(runtime: Runtime, applier: Applier) -> None:
    """Count the replicas that were killed for want of memory while nobody was there to see it."""
    try:
        deaths = await runtime.memory_deaths(_MOURNED_S)
    except ActorCallError as error:
        logger.warning("what died while there was no controller is not known: %s", error)
        return
    for name, reason in deaths.items():
        read = ReplicaName.read(name) if name.startswith(REPLICA_PREFIX) else None
        if read is not None:
            applier.replicas.record_death(read, reason)


async def _adopt_replica(runtime: Runtime, applier: Applier, name: str) -> None:
    ready = await _answer(runtime, name, "describe", control_pb2.ReplicaReady)
    if ready is not None and name.endswith(f"#{ready.replica_id}"):
        applier.replicas.adopt(ready)
    else:
        await _end(runtime, name)


async def _adopt_pending(runtime: Runtime, applier: Applier, name: str) -> None:
    read = ReplicaName.read(name)
    if read is None or not applier.replicas.adopt_pending(read):
        await _end(runtime, name)


async def _adopt_gateway(runtime: Runtime, applier: Applier, name: str) -> None:
    # A second start() of a gateway that runs only tells its addresses.
    ready = await _answer(runtime, name, "start", control_pb2.GatewayReady)
    if ready is not None and ready.gateway_id:
        applier.gateways.adopt(ready)
    else:
        await _end(runtime, name)


async def _answer(runtime: Runtime, name: str, method: str, kind: type[M]) -> M | None:
    """None when it gives none: its process hangs, or user code has spoiled it."""
    try:
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            return read_answer(kind, await _reached(runtime, name, method))
    except (ActorCallError, TimeoutError) as error:
        reason = str(error) or f"no answer within {_ANSWER_TIMEOUT_S:g} s"
        logger.warning("%s was left by an earlier controller and does not say who it is: %s", name, reason)
        return None


async def _reached(runtime: Runtime, name: str, method: str) -> bytes | None:
    """A message that was lost is no answer: what serves must not be ended for it."""
    while True:
        try:
            return await runtime.call(name, method)
        except ActorUnreachableError:
            await asyncio.sleep(_RETRY_PAUSE_S)


async def _end(runtime: Runtime, name: str) -> None:
    try:
        await runtime.kill(name)
    except ActorCallError as error:
        logger.warning("%s could not be killed: %s", name, error)
    await _release(runtime, name)


async def _release(runtime: Runtime, name: str) -> None:
    """The controller crashed between the end of an actor and that of its placement group, or before the actor."""
    try:
        await runtime.release(name)
    except ActorCallError as error:
        logger.warning("the placement group of %s could not be removed: %s", name, error)
