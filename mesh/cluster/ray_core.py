"""Ray in the mesh's own terms: attaching to a cluster, actors, nodes, tasks and the key-value store.

Beside it stand mesh.cluster.ray_objects and mesh.cluster.ray_placement; no other module imports ray.
"""

from __future__ import annotations

import importlib
import json
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import FrameType
from typing import Any, TypeAlias

import ray
from ray import cloudpickle as cloudpickle
from ray.exceptions import ActorDiedError, ActorUnavailableError, ActorUnschedulableError, OutOfMemoryError
from ray.exceptions import RayActorError as RayActorError
from ray.exceptions import TaskCancelledError as TaskCancelledError
from ray.experimental import internal_kv
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from mesh.cluster.ray_address import LOCAL, is_ray_here, require_reachable
from mesh.settings import prepare_local_ray, ray_address

ActorDied: TypeAlias = ActorDiedError
ActorUnavailable: TypeAlias = ActorUnavailableError
ActorUnschedulable: TypeAlias = ActorUnschedulableError
ActorOutOfMemory: TypeAlias = OutOfMemoryError

NAMESPACE = "mesh"
_KV_NAMESPACE = b"mesh"
_ACTOR_CONCURRENCY = 10_000
_TOKEN_LOGGER = "ray._private.authentication.authentication_token_setup"
HEAD_RESOURCE = "node:__internal_head__"
_ZONE_LABEL = "ray.io/availability-zone"
_attaching = threading.RLock()
"""Threads attach one after the other: Ray refuses the second of two that do it at once."""
_INIT_OPTIONS: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": "warning"}


@dataclass(frozen=True, slots=True)
class RayNode:
    node_id: str
    is_head: bool
    is_alive: bool
    zone: str
    """Availability zone, empty where the node has no such label."""
    address: str = ""
    """Address of the node's machine; several nodes may share one in tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorPlacement:
    """Resources an actor holds and where it runs."""

    num_cpus: float = 0.0
    num_gpus: float = 0.0
    memory_bytes: int = 0
    resources: dict[str, float] = field(default_factory=dict)
    accelerator_type: str = ""
    runtime_env: dict[str, Any] = field(default_factory=dict)
    node_id: str = ""
    """Run on this node; empty: spread over the cluster."""
    is_bound: bool = False
    """On that node and no other; otherwise Ray takes another one where there is no room on it."""
    label_selector: dict[str, str] = field(default_factory=dict)
    """Only on nodes with these labels."""
    placement_group: Any = None
    """Run in its first bundle; tasks and actors of the actor run in it too unless they say otherwise."""
    max_restarts: int = 0


# ---- Cluster ---------------------------------------------------------------------------------------------------------


def ensure_ray(address: str | None = None, **job: Any) -> None:
    """Attach this process to the running Ray cluster, or start a local Ray when there is none."""
    with _attaching:
        if not attach_ray(address, **job):
            prepare_local_ray()
            _init(address=LOCAL, include_dashboard=False, **job)


def attach_ray(address: str | None = None, **job: Any) -> bool:
    """Attach this process to a running Ray cluster, with such options of `ray.init`; False when there is none.

    Raises ConnectionError when the cluster at `address`, or at RAY_ADDRESS, does not answer.
    """
    with _attaching:
        return bool(ray.is_initialized()) or _attached(address, job)


def _attached(address: str | None, job: dict[str, Any]) -> bool:
    logging.getLogger(_TOKEN_LOGGER).addFilter(_is_news)
    named = address or ray_address()
    if named == LOCAL:
        return False
    if named is not None:
        require_reachable(named)
        _init(address=named, **job)
        return True
    if not is_ray_here():
        return False
    try:
        _init(address="auto", **job)
    except ConnectionError:
        return False
    return True


def _init(**options: Any) -> None:
    with _first_interrupt_held():
        ray.init(**options, **_INIT_OPTIONS)


@contextmanager
def _first_interrupt_held() -> Iterator[None]:
    """Ctrl-C waits for the end of the block: Ray, left half-way into its start, crashes the process when that ends.

    The second one does not wait.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    previous = signal.getsignal(signal.SIGINT)

    def hold(number: int, frame: FrameType | None) -> None:
        if held and callable(previous):
            previous(number, frame)
        held.append(number)

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if held and callable(previous):
        previous(held[0], None)


def _is_news(record: logging.LogRecord) -> bool:
    """Ray warns every process that its safe default, token authentication, is on. That it is off stays a warning."""
    return "Token authentication is enabled" not in record.getMessage()


def is_connected() -> bool:
    """Whether this process is connected to a Ray."""
    return bool(ray.is_initialized())


def is_ray_client() -> bool:
    """Whether this process is connected through Ray Client (ray://), from outside the cluster's network."""
    return bool(ray.util.client.ray.is_connected())


def node_id() -> str:
    """Hexadecimal, of this process's node."""
    return str(ray.get_runtime_context().get_node_id())


def process_ids() -> dict[str, str]:
    """What Ray calls this process: the ids of its node, its worker, and its actor if it is one."""
    context = ray.get_runtime_context()
    ids = {"node_id": context.get_node_id(), "worker_id": context.get_worker_id(), "actor_id": context.get_actor_id()}
    return {name: str(value) for name, value in ids.items() if value}


def node_ip() -> str:
    """Address of this process's node, as others reach it."""
    return str(ray.util.get_node_ip_address())


def node_zone() -> str:
    """Availability zone of this process's node, empty where the node has no such label."""
    return _zone_of(node_id())


@cache
def _zone_of(own_node_id: str) -> str:
    return next((node.zone for node in list_nodes() if node.node_id == own_node_id), "")


def list_nodes() -> list[RayNode]:
    """The cluster's nodes, dead ones too."""
    return [
        RayNode(
            node_id=node["NodeID"],
            is_head=HEAD_RESOURCE in node["Resources"],
            is_alive=node["Alive"],
            zone=(node.get("Labels") or {}).get(_ZONE_LABEL, ""),
            address=node["NodeManagerAddress"],
        )
        for node in ray.nodes()
    ]


def logs_directory() -> str:
    """Ray's directory for the logs of this session on this process's node."""
    return str(ray._private.worker._global_node.get_logs_dir_path())


def job_runtime_env() -> dict[str, Any]:
    """Runtime environment of this driver's job; deployments inherit it."""
    return dict(json.loads(ray.get_runtime_context().get_runtime_env_string() or "{}"))


# ---- KV --------------------------------------------------------------------------------------------------------------
# Each blocks for a round trip, a few milliseconds, and raises what Ray raises while its GCS is away.


def kv_put(key: str, value: bytes, *, overwrite: bool = True) -> bool:
    """Store a value; returns whether it was stored (False: the key exists and `overwrite` is off)."""
    existed = internal_kv._internal_kv_put(key.encode(), value, overwrite=overwrite, namespace=_KV_NAMESPACE)
    return overwrite or not existed


def kv_get(key: str) -> bytes | None:
    """The value, None where there is none."""
    return internal_kv._internal_kv_get(key.encode(), namespace=_KV_NAMESPACE)  # type: ignore[no-any-return]


def kv_delete(key: str) -> None:
    """A key that is not there is no error."""
    internal_kv._internal_kv_del(key.encode(), namespace=_KV_NAMESPACE)


def kv_keys(prefix: str) -> list[str]:
    """Those that begin so."""
    return [key.decode() for key in internal_kv._internal_kv_list(prefix.encode(), namespace=_KV_NAMESPACE)]


# ---- Actors ----------------------------------------------------------------------------------------------------------


def spawn_actor(
    import_path: str,
    arguments: tuple[Any, ...],
    *,
    name: str,
    placement: ActorPlacement,
    get_if_exists: bool = False,
) -> Any:
    """Start a detached actor of a plain class given as "module:Class" and return its handle immediately.

    The class's async methods run on the actor's own Ray loop, which nothing else uses: they answer under any load.
    """
    module, _, name_in_module = import_path.partition(":")
    cls = getattr(importlib.import_module(module), name_in_module)
    options: dict[str, Any] = {
        "name": name,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": get_if_exists,
        "num_cpus": placement.num_cpus,
        "num_gpus": placement.num_gpus,
        "resources": placement.resources,
        "max_restarts": placement.max_restarts,
        "max_task_retries": 0,
        "max_concurrency": _ACTOR_CONCURRENCY,
        "scheduling_strategy": _strategy(placement),
        # Ray's history of tasks would be of health checks, and cost every process more than they do.
        "enable_task_events": False,
    }
    if placement.memory_bytes:
        options["memory"] = placement.memory_bytes
    if placement.accelerator_type:
        options["accelerator_type"] = placement.accelerator_type
    if placement.runtime_env:
        options["runtime_env"] = placement.runtime_env
    if placement.label_selector:
        options["label_selector"] = placement.label_selector
    return ray.remote(cls).options(**options).remote(*arguments)


def _strategy(placement: ActorPlacement) -> Any:
    if placement.placement_group is not None:
        return PlacementGroupSchedulingStrategy(placement.placement_group, 0, placement_group_capture_child_tasks=True)
    if not placement.node_id:
        return "SPREAD"
    if placement.is_bound:
        return NodeAffinitySchedulingStrategy(placement.node_id, soft=False)
    return NodeAffinitySchedulingStrategy(placement.node_id, soft=True, _spill_on_unavailable=True)


def find_actor(name: str) -> Any | None:
    """Handle of a living named actor of the mesh."""
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None


def list_actor_names() -> list[str]:
    """Names of all living actors of the mesh."""
    actors = ray.util.list_named_actors(all_namespaces=True)
    return [actor["name"] for actor in actors if actor["namespace"] == NAMESPACE]


def get_object(reference: Any, timeout_s: float | None = None) -> Any:
    """What a method of an actor answers. Blocks; raises TimeoutError, and what the method raised."""
    return ray.get(reference, timeout=timeout_s)


def kill_actor(handle: Any) -> None:
    """End an actor's process immediately."""
    ray.kill(handle, no_restart=True)


def died_with_node(error: ActorDied) -> bool:
    """Ray says it in words only."""
    return "node has died" in str(error)


def name_this_actor(actor: object, name: str) -> None:
    """Show the calling actor's process under this name in `ps` and `top`; Ray titles processes after classes."""
    type(actor).__name__ = name
    ray._raylet.setproctitle(f"ray::{name}")


# ---- Tasks -----------------------------------------------------------------------------------------------------------


def run_task(import_path: str, arguments: tuple[Any, ...], runtime_env: dict[str, Any], timeout_s: float) -> Any:
    """What the function "module:name" returns in a process of its own with that environment. Blocks.

    Raises RuntimeError when the environment cannot be made or the process dies, TimeoutError.
    """
    module, _, name_in_module = import_path.partition(":")
    function = getattr(importlib.import_module(module), name_in_module)
    # max_calls: the next task must not find the modules that this one has imported.
    task = ray.remote(num_cpus=0, max_calls=1, max_retries=0)(function).options(runtime_env=runtime_env)
    reference = task.remote(*arguments)
    try:
        return ray.get(reference, timeout=timeout_s)
    except ray.exceptions.GetTimeoutError as error:
        ray.cancel(reference, force=True)
        raise TimeoutError(f"{import_path} was not done within {timeout_s:.0f} s in {_shown(runtime_env)}.") from error
    except ray.exceptions.RuntimeEnvSetupError as error:
        # Its last line says what went wrong, the others where in Ray.
        reason = str(error).strip().rpartition("\n")[2]
        raise RuntimeError(f"The runtime environment {_shown(runtime_env)} cannot be made: {reason}") from error
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"The task that imports the application failed: {error}") from error


def start_task(import_path: str, arguments: tuple[Any, ...], node_id: str) -> Any:
    """Run the function "module:name" in a process on that node; `get_object` waits for what it returns."""
    module, _, name_in_module = import_path.partition(":")
    function = getattr(importlib.import_module(module), name_in_module)
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(num_cpus=0, max_retries=0)(function).options(scheduling_strategy=strategy).remote(*arguments)


def _shown(runtime_env: dict[str, Any]) -> dict[str, Any]:
    """Without the values of its variables: they may be secrets."""
    return {key: dict.fromkeys(value, "...") if key == "env_vars" else value for key, value in runtime_env.items()}
