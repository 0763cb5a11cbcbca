"""Owns the real Runtime: actors over Ray."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from mesh import ray_core
from mesh.controller.failure_text import readable
from mesh.controller.observe import Node
from mesh.controller.runtime import ActorCallFailed, ActorGone, ActorOutOfReach
from mesh.v1 import control_pb2

_REPLICA_CLASS = "mesh.replica.actor:ReplicaActor"
_GATEWAY_CLASS = "gateway.actor:GatewayActor"
_POLICY_CLASS = "mesh.policy_actor:PolicyActor"


class RayRuntime:
    """Ray's blocking calls go to threads. What Ray raises becomes ActorCallFailed here and nowhere else."""

    def __init__(self) -> None:
        self._handles: dict[str, Any] = {}

    async def spawn_replica(self, name: str, spec: control_pb2.ReplicaSpec) -> None:
        actor = spec.spec.options.actor
        placement = ray_core.ActorPlacement(
            num_cpus=actor.num_cpus,
            num_gpus=actor.num_gpus,
            memory_bytes=actor.memory_bytes,
            resources=dict(actor.resources),
            accelerator_type=actor.accelerator_type,
            runtime_env=json.loads(actor.runtime_env_json or "{}"),
        )
        await self._spawn(_REPLICA_CLASS, name, spec.SerializeToString(), placement)

    async def spawn_gateway(self, name: str, spec: control_pb2.GatewaySpec) -> None:
        placement = ray_core.ActorPlacement(node_id=spec.node_id)
        await self._spawn(_GATEWAY_CLASS, name, spec.SerializeToString(), placement)

    async def spawn_policy(self, name: str, spec: control_pb2.PolicySpec, actor: control_pb2.ActorOptions) -> None:
        placement = ray_core.ActorPlacement(runtime_env=json.loads(actor.runtime_env_json or "{}"))
        await self._spawn(_POLICY_CLASS, name, spec.SerializeToString(), placement)

    async def wait_placed(self, name: str) -> None:
        handle = await self._handle(name)
        # Every Ray actor has this method; it answers as soon as there is a process.
        await _outcome(handle.__ray_ready__.remote())

    async def call(self, name: str, method: str, *arguments: bytes) -> bytes | None:
        handle = await self._handle(name)
        try:
            answer: bytes | None = await _outcome(getattr(handle, method).remote(*arguments))
        except ActorGone:
            # Another actor may have its name by now.
            if self._handles.get(name) is handle:
                del self._handles[name]
            raise
        return answer

    async def kill(self, name: str) -> None:
        try:
            handle = await self._handle(name)
        except ActorGone:
            return
        await _in_thread(ray_core.kill_actor, handle)
        if self._handles.get(name) is handle:
            del self._handles[name]

    async def actor_names(self) -> list[str]:
        names: list[str] = await _in_thread(ray_core.list_actor_names)
        return names

    async def nodes(self) -> list[Node]:
        nodes: list[ray_core.Node] = await _in_thread(ray_core.list_nodes)
        return [Node(node_id=node.node_id, is_head=node.is_head) for node in nodes if node.is_alive]

    async def _spawn(self, import_path: str, name: str, argument: bytes, placement: ray_core.ActorPlacement) -> None:
        self._handles[name] = await _in_thread(
            lambda: ray_core.spawn_actor(import_path, (argument,), name=name, placement=placement)
        )

    async def _handle(self, name: str) -> Any:
        handle = self._handles.get(name)
        if handle is None:
            handle = await _in_thread(ray_core.find_actor, name)
            if handle is None:
                raise ActorGone(f"{name} does not exist")
            self._handles[name] = handle
        return handle


async def _in_thread(function: Any, *arguments: Any) -> Any:
    return await _outcome(asyncio.to_thread(function, *arguments))


async def _outcome(awaitable: Any) -> Any:
    """The result of Ray's work. User code's own exceptions come this way too, so every kind is expected."""
    try:
        return await awaitable
    except ray_core.ActorDied as error:
        raise ActorGone(str(error)) from error
    except ray_core.ActorUnavailable as error:
        raise ActorOutOfReach(str(error)) from error
    except Exception as error:
        raise ActorCallFailed(readable(str(error)) or type(error).__name__) from error
