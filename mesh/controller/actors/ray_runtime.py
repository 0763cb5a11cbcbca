"""The Runtime that runs actors on Ray."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mesh.cluster import ray_core, ray_placement
from mesh.cluster.keys import GATEWAY_PREFIX, POLICY_PREFIX, REPLICA_PREFIX
from mesh.controller.actors.cluster_runtime import (
    ActorCallError,
    ActorDiedError,
    ActorUnreachableError,
    MethodMissingError,
)
from mesh.controller.actors.failure_text import readable, readable_death
from mesh.controller.desired.resource_request import resource_request_of
from mesh.controller.plan.cluster_picture import Node
from mesh.controller.plan.replica_placement import NodeAssignment
from mesh.v1 import control_pb2
from mesh.wire.blocking_work import Work, run_blocking

_REPLICA_CLASS = "mesh.replica.replica_actor:ReplicaActor"
_GATEWAY_CLASS = "gateway.gateway_actor:GatewayActor"
_POLICY_CLASS = "mesh.controller.scaling.policy_actor:PolicyActor"
_PROBE_TIMEOUT_S = 1.0
"""How long a TCP connection may take that shows whether a process lives."""
IN_EVERY_VERSION = {
    REPLICA_PREFIX: frozenset(
        {"locate", "start", "describe", "check_health", "check_ready", "reconfigure", "drain", "wait_closed"}
    ),
    GATEWAY_PREFIX: frozenset({"start", "check_health", "drain", "wait_closed"}),
    POLICY_PREFIX: frozenset({"start", "decide"}),
}
"""Methods by the prefix of the actor's name: those that the processes of every version have which may be upgraded."""


@dataclass(slots=True, eq=False)
class _Actor:
    handle: Any
    methods: set[str] = field(default_factory=set)
    """That its process has though not every version has them."""


class RayRuntime:
    """Runs Ray's blocking calls in threads and translates what Ray raises to ActorCallError."""

    def __init__(self, clock: Callable[[], float], unix_clock: Callable[[], float]) -> None:
        self._clock = clock
        self._unix_clock = unix_clock
        self._actors: dict[str, _Actor] = {}
        self._groups: dict[str, Any] = {}
        """Placement groups by the name they share with their replica."""
        self._ends_at_s: dict[tuple[str, float], float] = {}
        """When nodes end, on our clock, by node id and the Unix time that Ray reports."""

    async def spawn_replica(self, name: str, spec: control_pb2.ReplicaSpec, assignment: NodeAssignment) -> None:
        await _outcome(self._spawn_replica(name, spec, assignment))

    async def spawn_gateway(self, name: str, spec: control_pb2.GatewaySpec) -> None:
        placement = ray_core.ActorPlacement(node_id=spec.node_id, is_bound=True)
        await self._spawn(_GATEWAY_CLASS, name, spec.SerializeToString(), placement)

    async def spawn_policy(self, name: str, spec: control_pb2.PolicySpec, actor: control_pb2.ActorOptions) -> None:
        placement = ray_core.ActorPlacement(runtime_env=json.loads(actor.runtime_env_json or "{}"))
        await self._spawn(_POLICY_CLASS, name, spec.SerializeToString(), placement)

    async def wait_placed(self, name: str) -> tuple[str, ...]:
        node_id = (await self.call(name, "locate") or b"").decode()
        group = self._groups.get(name)
        if group is None:
            return (node_id,)
        nodes: list[str] = await _in_thread(Work.FIND, ray_placement.bundle_nodes, group)
        return tuple(nodes)

    async def call(self, name: str, method: str, *arguments: bytes) -> bytes | None:
        actor = await self._actor(name)
        try:
            if not await _has(actor, name, method):
                raise MethodMissingError(f"its process is of an earlier version, which has no {method}")
            answer = await _outcome(getattr(actor.handle, method).remote(*arguments))
        except ActorDiedError:
            self._forget(name, actor)
            raise
        if answer is not None and not isinstance(answer, bytes):
            raise ActorCallError(f"its process answers {method} with {type(answer).__name__}")
        return answer

    async def kill(self, name: str) -> None:
        try:
            actor = await self._actor(name)
        except ActorDiedError:
            return
        await _in_thread(Work.END, ray_core.kill_actor, actor.handle)
        self._forget(name, actor)

    async def refuses(self, address: str) -> bool:
        host, _, port = address.rpartition(":")
        if not host:
            return False
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                _, writer = await asyncio.open_connection(host, int(port))
        except ConnectionRefusedError:
            return True
        except (OSError, TimeoutError):
            return False
        writer.close()
        return False

    async def release(self, name: str) -> None:
        group = self._groups.get(name)
        if group is not None:
            await _in_thread(Work.END, ray_placement.remove_placement_group, group)
            self._groups.pop(name, None)

    async def placement_group_names(self) -> list[str]:
        groups = await _in_thread(Work.OBSERVE, ray_placement.list_placement_groups)
        ours = {name: group for name, group in groups.items() if name.startswith(REPLICA_PREFIX)}
        self._groups.update(ours)
        return list(ours)

    async def actor_names(self) -> list[str]:
        names: list[str] = await _in_thread(Work.OBSERVE, ray_core.list_actor_names)
        return names

    async def pending_actor_names(self) -> list[str]:
        names: list[str] = await _in_thread(Work.OBSERVE, ray_placement.list_pending_actor_names)
        return names

    async def memory_deaths(self, within_s: float) -> dict[str, str]:
        deaths = await _in_thread(Work.OBSERVE, ray_placement.list_memory_deaths, self._unix_clock() - within_s)
        return {name: readable_death(text) for name, text in deaths.items()}

    async def nodes(self) -> list[Node]:
        states: list[ray_placement.NodeState] = await _in_thread(Work.OBSERVE, ray_placement.list_node_states)
        living = {state.node_id for state in states}
        self._ends_at_s = {key: end_at_s for key, end_at_s in self._ends_at_s.items() if key[0] in living}
        return [
            Node(
                node_id=state.node_id,
                is_head=state.is_head,
                address=state.address,
                total=state.total,
                available=state.available,
                ends_at_s=self._end_of(state),
            )
            for state in states
        ]

    async def _spawn_replica(self, name: str, spec: control_pb2.ReplicaSpec, assignment: NodeAssignment) -> None:
        options = spec.spec.options
        actor = options.actor
        if options.placement_group_bundles:
            bundles = [dict(bundle.resources) for bundle in options.placement_group_bundles]
            self._groups[name] = await _in_thread(
                Work.START,
                ray_placement.create_placement_group,
                name,
                bundles,
                options.placement_group_strategy,
                assignment.avoided,
            )
        group = self._groups.get(name)
        node_id = "" if options.placement_group_bundles or not assignment.node_ids else assignment.node_ids[0]
        # Ray ignores a soft node affinity of an actor that asks for no resources.
        is_bound = bool(node_id) and (options.max_replicas_per_node > 0 or not resource_request_of(options).whole)
        placement = ray_core.ActorPlacement(
            num_cpus=actor.num_cpus,
            num_gpus=actor.num_gpus,
            memory_bytes=actor.memory_bytes,
            resources=dict(actor.resources),
            accelerator_type=actor.accelerator_type,
            runtime_env=json.loads(actor.runtime_env_json or "{}"),
            node_id=node_id,
            is_bound=is_bound,
            label_selector=ray_placement.not_on(() if is_bound or group is not None else assignment.avoided),
            placement_group=group,
        )
        await self._spawn(_REPLICA_CLASS, name, spec.SerializeToString(), placement)

    def _end_of(self, state: ray_placement.NodeState) -> float | None:
        """On our clock. The same instant in every reading, so that comparing two readings shows no change."""
        if state.ends_unix_s is None or math.isinf(state.ends_unix_s):
            return state.ends_unix_s
        ends_at_s = self._clock() + state.ends_unix_s - self._unix_clock()
        return self._ends_at_s.setdefault((state.node_id, state.ends_unix_s), ends_at_s)

    async def _spawn(self, import_path: str, name: str, argument: bytes, placement: ray_core.ActorPlacement) -> None:
        handle = await _in_thread(
            Work.START, lambda: ray_core.spawn_actor(import_path, (argument,), name=name, placement=placement)
        )
        self._actors[name] = _Actor(handle)

    async def _actor(self, name: str) -> _Actor:
        actor = self._actors.get(name)
        if actor is None:
            handle = await _in_thread(Work.FIND, ray_core.find_actor, name)
            if handle is None:
                raise ActorDiedError(f"{name} does not exist")
            actor = self._actors[name] = _Actor(handle)
        return actor

    def _forget(self, name: str, actor: _Actor) -> None:
        """Unless another actor has taken its name."""
        if self._actors.get(name) is actor:
            del self._actors[name]


async def _has(actor: _Actor, name: str, method: str) -> bool:
    """Whether the actor's process has the method, which is asked first where a process of an earlier version may not.

    The handle does not know: Ray makes it from the class of this process. Nor can it be tried: Ray ends a process that
    is called by a name that its class does not have.
    """
    if method not in actor.methods and method not in IN_EVERY_VERSION[f"{name.partition('::')[0]}::"]:
        # A method that Ray adds to every actor: it calls a function with the actor.
        if not await _outcome(actor.handle.__ray_call__.remote(hasattr, method)):
            return False
        actor.methods.add(method)
    return True


async def _in_thread(work: Work, function: Any, *arguments: Any) -> Any:
    return await _outcome(run_blocking(work, function, *arguments))


async def _outcome(awaitable: Any) -> Any:
    """The result of a Ray call. Exceptions of user code arrive here too, so any kind is expected."""
    try:
        return await awaitable
    except ActorCallError:
        raise
    except ray_core.ActorDied as error:
        raise ActorDiedError(readable_death(str(error)), is_node_lost=ray_core.died_with_node(error)) from error
    except ray_core.ActorOutOfMemory as error:  # from now on Ray says nothing else about it
        raise ActorDiedError(readable_death(str(error))) from error
    except ray_core.ActorUnschedulable as error:
        raise ActorDiedError("the node on which it had to run is gone", is_node_lost=True) from error
    except ray_core.ActorUnavailable as error:
        raise ActorUnreachableError(str(error)) from error
    except Exception as error:
        raise ActorCallError(readable(str(error)) or type(error).__name__) from error
