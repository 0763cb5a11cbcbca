"""The first work of a restarted controller: it finds the actors that exist and adopts them.

A replica without a process cannot answer yet; it is adopted by its name. So is an actor that is too busy to answer: it
is asked again while the controller serves. What answers nonsense is killed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TypeVar

from google.protobuf.message import Message

from mesh.cluster.keys import GATEWAY_PREFIX, REPLICA_PREFIX, ReplicaName, read_gateway_name
from mesh.controller.actors.cluster_runtime import (
    ActorCallError,
    ActorUnreachableError,
    MethodMissingError,
    Runtime,
    read_answer,
)
from mesh.controller.actors.gateway_keeper import GatewayKeeper
from mesh.controller.actors.replica_keeper import ReplicaKeeper
from mesh.controller.plan.cluster_picture import GatewaySlot
from mesh.settings import settings
from mesh.v1 import control_pb2

logger = logging.getLogger("mesh")

_RETRY_PAUSE_S = 0.2
"""Pause before an actor that Ray could not reach is asked again."""

M = TypeVar("M", bound=Message)


async def recover(runtime: Runtime, replicas: ReplicaKeeper, gateways: GatewayKeeper) -> None:
    """Adopt the living replicas and gateways of this mesh. The planner decides which of them are kept."""
    # Groups first: a group that is created after this belongs to an actor that is created after this.
    groups = await runtime.placement_group_names()
    names = await runtime.actor_names()
    replica_names = [name for name in names if name.startswith(REPLICA_PREFIX)]
    pending = set(await runtime.pending_actor_names())
    await _record_memory_deaths(runtime, replicas)
    calls = asyncio.Semaphore(settings().controller.adopt_calls_max)
    await asyncio.gather(
        *(_release(runtime, name) for name in sorted(set(groups) - set(names))),
        *(_adopt_replica(runtime, replicas, name, calls) for name in replica_names if name not in pending),
        *(_adopt_pending(runtime, replicas, name) for name in replica_names if name in pending),
        *(_adopt_gateway(runtime, gateways, name, calls) for name in names if name.startswith(GATEWAY_PREFIX)),
    )


async def _record_memory_deaths(runtime: Runtime, replicas: ReplicaKeeper) -> None:
    """Count the replicas that were killed for lack of memory while no controller ran."""
    try:
        deaths = await runtime.memory_deaths(settings().controller.oom_lookback_s)
    except ActorCallError as error:
        logger.warning("the actors that died while no controller ran could not be listed: %s", error)
        return
    for name, reason in deaths.items():
        read = ReplicaName.read(name) if name.startswith(REPLICA_PREFIX) else None
        if read is not None:
            replicas.record_death(read, reason)


async def _adopt_replica(runtime: Runtime, replicas: ReplicaKeeper, name: str, calls: asyncio.Semaphore) -> None:
    read = ReplicaName.read(name)
    try:
        ready = await _answer(runtime, name, "describe", control_pb2.ReplicaReady, calls)
    except TimeoutError:
        if read is not None:
            replicas.adopt_silent(read)
        return
    if ready is not None and name.endswith(f"#{ready.replica_id}"):
        replicas.adopt(ready)
    else:
        await _kill(runtime, name, "it does not say which replica it is")


async def _adopt_pending(runtime: Runtime, replicas: ReplicaKeeper, name: str) -> None:
    read = ReplicaName.read(name)
    if read is None or not replicas.adopt_pending(read):
        await _kill(runtime, name, "it has no process yet, and its deployment does not want it")


async def _adopt_gateway(runtime: Runtime, gateways: GatewayKeeper, name: str, calls: asyncio.Semaphore) -> None:
    try:
        ready = await _gateway_ready(runtime, name, calls)
    except TimeoutError:
        gateways.adopt_silent(GatewaySlot(*read_gateway_name(name)))
        return
    if ready is not None and ready.gateway_id:
        gateways.adopt(ready)
    else:
        await _kill(runtime, name, "it does not say which gateway it is")


async def _gateway_ready(runtime: Runtime, name: str, calls: asyncio.Semaphore) -> control_pb2.GatewayReady | None:
    """Not from start(), which may wait for routes: those come from this controller, which waits for the answer."""
    try:
        return await _answer(runtime, name, "describe", control_pb2.GatewayReady, calls)
    except MethodMissingError:
        # Of an earlier version. A second start() of a gateway that serves only returns its addresses.
        return await _answer(runtime, name, "start", control_pb2.GatewayReady, calls)


async def _answer(runtime: Runtime, name: str, method: str, kind: type[M], calls: asyncio.Semaphore) -> M | None:
    """The actor's answer; None when it has ended, or user code has corrupted the answer.

    Raises TimeoutError, and MethodMissingError.
    """
    timeout_s = settings().controller.adopt_timeout_s
    try:
        async with calls, asyncio.timeout(timeout_s):
            return read_answer(kind, await _call(runtime, name, method))
    except MethodMissingError:
        raise
    except ActorCallError as error:
        logger.warning("%s of an earlier controller did not answer %s: %s", name, method, error)
        return None


async def _call(runtime: Runtime, name: str, method: str) -> bytes | None:
    """Repeat the call while messages get lost: a serving actor must not be killed for that."""
    while True:
        try:
            return await runtime.call(name, method)
        except ActorUnreachableError:
            await asyncio.sleep(_RETRY_PAUSE_S)


async def _kill(runtime: Runtime, name: str, reason: str) -> None:
    logger.info("killing %s of an earlier controller: %s", name, reason)
    try:
        await runtime.kill(name)
    except ActorCallError as error:
        logger.warning("%s could not be killed: %s", name, error)
    await _release(runtime, name)


async def _release(runtime: Runtime, name: str) -> None:
    """Remove a placement group that an earlier controller could not remove, or did not yet use."""
    try:
        await runtime.release(name)
    except ActorCallError as error:
        logger.warning("the placement group of %s could not be removed: %s", name, error)
