"""The life of the mesh on a cluster: finding it, starting it and shutting it down."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from mesh.client.control_client import ControlClient, revisions_of
from mesh.client.mesh_erasure import erase, identity, wait_erased
from mesh.client.polling import poll
from mesh.cluster import ray_core
from mesh.cluster.keys import CONTROLLER_FAILURE_KEY, CONTROLLER_NAME, SERVICER_FUNCTIONS_KEY
from mesh.exceptions import ChangeConflictError, MeshException
from mesh.membership.mesh_process import joined_process
from mesh.settings import settings
from mesh.usercode.served_methods import load_servicer_function
from mesh.usercode.user_code import UserCode, pack, unpack
from mesh.v1 import control_pb2
from mesh.wire.mesh_token import forget_token, mesh_id

logger = logging.getLogger("mesh")

_CONTROLLER_CLASS = "mesh.controller.controller_actor:ControllerActor"
_HEAD_SHARE = 0.001
"""The controller's share of the resource that only the head node has. Ray's smallest unit is a tenth of it."""
_POLL_S = 0.05
"""Pause between two looks at the controller's actor."""


@dataclass(frozen=True, slots=True)
class SeenMesh:
    """A mesh as someone was shown it before a decision about all of it."""

    identity: bytes
    status: control_pb2.StatusReply


def find() -> ControlClient | None:
    """The mesh of the cluster that this process is connected to; None if it has none."""
    if not ray_core.is_connected() or ray_core.find_actor(CONTROLLER_NAME) is None:
        return None
    return _client()


def require() -> ControlClient:
    """The mesh of the cluster. Raises MeshException if it has none."""
    client = find()
    if client is None:
        raise MeshException(
            "There is no mesh instance running on this Ray cluster. Start one with mesh.start() or mesh.run(), "
            "or with `mesh deploy` on the command line."
        )
    return client


def start(
    options: control_pb2.GatewayOptions, servicer_functions: bytes, env_vars: Mapping[str, str] | None = None
) -> ControlClient:
    """Start the controller, or find the one another process starts at the same time, and wait until it serves.

    `env_vars` are those of its process. The packed `servicer_functions` of the process that comes first are stored in
    the cluster's KV for later runs of any driver. What an interrupted shutdown has left is removed before.
    """
    # A membership in an earlier mesh, shut down by another process, has the wrong token.
    _leave()
    wait_erased()
    is_first = ray_core.find_actor(CONTROLLER_NAME) is None
    if is_first:
        store_servicer_functions(servicer_functions)
    environment = {"env_vars": dict(env_vars)} if env_vars else {}
    # An affinity would be ignored, because the controller asks for nothing else. Any head node has the resource, also
    # one with another id on which Ray starts the controller again.
    on_head = {ray_core.HEAD_RESOURCE: _HEAD_SHARE}
    placement = ray_core.ActorPlacement(resources=on_head, max_restarts=-1, runtime_env=environment)
    actor = ray_core.spawn_actor(
        _CONTROLLER_CLASS,
        (options.SerializeToString(),),
        name=CONTROLLER_NAME,
        placement=placement,
        get_if_exists=True,
    )
    _wait_serving(actor, is_first=is_first)
    client = _client()
    if client.status().is_shutting_down:
        destroy(client)
        return start(options, servicer_functions, env_vars)
    return client


def leftover() -> bytes:
    """The identity of a mesh without a controller, as an interrupted shutdown leaves it; empty if there is none."""
    # In this order: the token of a mesh that starts comes after its controller.
    mesh = identity()
    return mesh if ray_core.find_actor(CONTROLLER_NAME) is None else b""


def destroy_leftover(mesh: bytes) -> None:
    """Remove what `leftover` has found."""
    _leave()
    erase(mesh)


def look(client: ControlClient) -> SeenMesh:
    """The mesh as it is now, for `destroy`."""
    # First the identity: a mesh that takes the place of this one in between is another one.
    return SeenMesh(identity(), client.status())


def destroy(client: ControlClient, seen: SeenMesh | None = None) -> None:
    """Shut down the mesh on the cluster and this process's membership. Actors that do not end are killed.

    Raises ChangeConflictError, and changes nothing, if the mesh or one of its applications is not as it was `seen`.
    """
    timeout_s = settings().client.shutdown_timeout_s
    mesh = identity() if seen is None else seen.identity
    try:
        client.shutdown(mesh_id(mesh), None if seen is None else revisions_of(seen.status))
        if not poll(lambda: identity() != mesh or _is_empty(client.status()), timeout_s):
            logger.warning("killing the mesh: its shutdown did not end within %.0f s", timeout_s)
    except ChangeConflictError as error:
        if seen is not None:
            raise
        logger.info("%s", error)
    except MeshException as error:
        logger.warning("killing the mesh: %s", error)
    _leave()
    erase(mesh)
    client.close()


def packed_servicer_functions(functions: Sequence[str | Callable[..., Any]]) -> bytes:
    """Raises what `load_servicer_function` raises, and TypeError for a function that cannot be pickled."""
    loaded = tuple(load_servicer_function(function) for function in functions)
    # The callable does not matter here; only the functions must reach other processes.
    return pack(UserCode(tuple, servicer_functions=loaded))


def store_servicer_functions(packed: bytes) -> None:
    """For the applications that any driver deploys from now on."""
    ray_core.kv_put(SERVICER_FUNCTIONS_KEY, packed)


def servicer_functions() -> tuple[Callable[..., Any], ...]:
    """The `add_XServicer_to_server` functions given to `mesh.start`."""
    data = ray_core.kv_get(SERVICER_FUNCTIONS_KEY)
    return () if data is None else unpack(data).servicer_functions


def inherited_runtime_env() -> dict[str, Any]:
    """The runtime environment of the driver's job: the default for its deployments."""
    return {key: value for key, value in ray_core.job_runtime_env().items() if not key.startswith("_")}


def head_node_id() -> str:
    """Empty if there is none."""
    return next((node.node_id for node in ray_core.list_nodes() if node.is_head and node.is_alive), "")


@cache
def _client() -> ControlClient:
    return ControlClient()


def _leave() -> None:
    process = joined_process()
    if process is not None:
        process.close()
    forget_token()


def _wait_serving(actor: Any, *, is_first: bool) -> None:
    """Ray restarts a controller that fails to start. It gets several attempts, because the cause may be temporary.

    A first start that is given up is taken back, or it would keep trying, and block a start with better options.
    """
    limits = settings().client
    deadline_at_s = time.monotonic() + limits.start_timeout_s
    not_ready = (
        f"The controller of the mesh was not ready within {limits.start_timeout_s:.0f} s. "
        "`mesh logs` shows what it logged."
    )
    first_failed_at_s: float | None = None
    while True:
        # Before the question: another driver may have started another mesh when the answer comes, and that must stay.
        mesh = identity()
        try:
            ray_core.get_object(actor.ready.remote(), timeout_s=max(0.0, deadline_at_s - time.monotonic()))
        except ray_core.ActorUnavailable as error:  # Ray is restarting it
            if time.monotonic() >= deadline_at_s:
                raise TimeoutError(not_ready) from error
            time.sleep(_POLL_S)
        except ray_core.ActorDied as error:
            _take_back(mesh, is_first=is_first)
            raise MeshException(f"The controller of the mesh could not be started: {error}") from error
        except TimeoutError as error:
            raise TimeoutError(not_ready) from error
        except Exception as error:  # any error that its start raised
            first_failed_at_s = first_failed_at_s or time.monotonic()
            if time.monotonic() - first_failed_at_s > limits.start_failing_timeout_s:
                reason = _failure() or error
                _take_back(mesh, is_first=is_first)
                raise MeshException(f"The controller of the mesh cannot start: {reason}") from error
            time.sleep(_POLL_S)
        else:
            return


def _take_back(mesh: bytes, *, is_first: bool) -> None:
    """Without an identity nothing of it was stored, and a mesh that has none yet may be that of another driver."""
    if is_first and mesh:
        erase(mesh)


def _failure() -> str:
    return (ray_core.kv_get(CONTROLLER_FAILURE_KEY) or b"").decode(errors="replace")


def _is_empty(reply: control_pb2.StatusReply) -> bool:
    return not reply.applications and not reply.gateways
