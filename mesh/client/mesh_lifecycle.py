"""The life of the mesh on a cluster: finding it, starting it and shutting it down."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from mesh.client.control_client import ControlClient
from mesh.cluster import ray_core, ray_placement
from mesh.cluster.keys import ACTOR_PREFIX, CONTROLLER_FAILURE_KEY, CONTROLLER_NAME, SERVICER_FUNCTIONS_KEY
from mesh.exceptions import MeshException
from mesh.membership.mesh_process import joined_process
from mesh.settings import settings
from mesh.usercode.served_methods import load_servicer_function
from mesh.usercode.user_code import UserCode, pack, unpack
from mesh.v1 import control_pb2
from mesh.wire.mesh_token import forget_token

logger = logging.getLogger("mesh")

_CONTROLLER_CLASS = "mesh.controller.controller_actor:ControllerActor"
_POLL_S = 0.05


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


def start(options: control_pb2.GatewayOptions, servicer_functions: bytes) -> ControlClient:
    """Start the controller, or find the one another process starts at the same time, and wait until it serves.

    The packed `servicer_functions` are stored in the cluster's KV for later runs of any driver.
    """
    # A membership in an earlier mesh, shut down by another process, has the wrong token.
    _leave()
    ray_core.kv_put(SERVICER_FUNCTIONS_KEY, servicer_functions)
    is_first = ray_core.find_actor(CONTROLLER_NAME) is None
    placement = ray_core.ActorPlacement(node_id=head_node_id(), max_restarts=-1)
    actor = ray_core.spawn_actor(
        _CONTROLLER_CLASS,
        (options.SerializeToString(),),
        name=CONTROLLER_NAME,
        placement=placement,
        get_if_exists=True,
    )
    try:
        _wait_serving(actor)
    except MeshException:
        if is_first:
            # It would keep trying with options that do not work, and block a start with better ones.
            _erase()
        raise
    return _client()


def destroy(client: ControlClient) -> None:
    """Shut down the mesh on the cluster and this process's membership. Actors that do not end are killed."""
    timeout_s = settings().client.shutdown_timeout_s
    try:
        client.shutdown()
        if not poll(lambda: _is_empty(client.status()), timeout_s):
            logger.warning("killing the mesh: its shutdown did not end within %.0f s", timeout_s)
    except MeshException as error:
        logger.warning("killing the mesh: %s", error)
    _leave()
    _erase()
    client.close()


def poll(is_reached: Callable[[], bool], timeout_s: float | None) -> bool:
    """Poll until `is_reached`; False once `timeout_s` have passed. None: no timeout."""
    deadline_at_s = float("inf") if timeout_s is None else time.monotonic() + timeout_s
    while not is_reached():
        if time.monotonic() >= deadline_at_s:
            return False
        time.sleep(_POLL_S)
    return True


def packed_servicer_functions(functions: Sequence[str | Callable[..., Any]]) -> bytes:
    """Raises what `load_servicer_function` raises, and TypeError for a function that cannot be pickled."""
    loaded = tuple(load_servicer_function(function) for function in functions)
    # The callable does not matter here; only the functions must reach other processes.
    return pack(UserCode(tuple, servicer_functions=loaded))


def servicer_functions() -> tuple[Callable[..., Any], ...]:
    """The `add_XServicer_to_server` functions given to `mesh.start`."""
    data = ray_core.kv_get(SERVICER_FUNCTIONS_KEY)
    return () if data is None else unpack(data).servicer_functions


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


def _wait_serving(actor: Any) -> None:
    """Ray restarts a controller that fails to start. It gets several attempts, because the cause may be temporary."""
    limits = settings().client
    deadline_at_s = time.monotonic() + limits.start_timeout_s
    not_ready = (
        f"The controller of the mesh was not ready within {limits.start_timeout_s:.0f} s. "
        "`mesh logs` shows what it logged."
    )
    first_failed_at_s: float | None = None
    while True:
        try:
            ray_core.get_object(actor.ready.remote(), timeout_s=max(0.0, deadline_at_s - time.monotonic()))
        except ray_core.ActorUnavailable as error:  # Ray is restarting it
            if time.monotonic() >= deadline_at_s:
                raise TimeoutError(not_ready) from error
            time.sleep(_POLL_S)
        except ray_core.ActorDied as error:
            raise MeshException(f"The controller of the mesh could not be started: {error}") from error
        except TimeoutError as error:
            raise TimeoutError(not_ready) from error
        except Exception as error:  # any error that its start raised
            first_failed_at_s = first_failed_at_s or time.monotonic()
            if time.monotonic() - first_failed_at_s > limits.start_failing_timeout_s:
                raise MeshException(f"The controller of the mesh cannot start: {_failure() or error}") from error
            time.sleep(_POLL_S)
        else:
            return


def _failure() -> str:
    return (ray_core.kv_get(CONTROLLER_FAILURE_KEY) or b"").decode()


def _is_empty(reply: control_pb2.StatusReply) -> bool:
    return not reply.applications and not reply.gateways


def _erase() -> None:
    _kill_actors()
    for key in ray_core.kv_keys(""):
        ray_core.kv_delete(key)


def _kill_actors() -> None:
    # The controller first: it would replace actors that die.
    for name in sorted(_own_actor_names(), key=lambda name: name != CONTROLLER_NAME):
        actor = ray_core.find_actor(name)
        if actor is not None:
            ray_core.kill_actor(actor)
    # A name is in use until its actor is gone: the next start would find the dying controller.
    poll(lambda: not _own_actor_names(), settings().client.kill_timeout_s)
    for name, group in ray_placement.list_placement_groups().items():
        if name.startswith(ACTOR_PREFIX):
            ray_placement.remove_placement_group(group)


def _own_actor_names() -> list[str]:
    """Actors of the mesh; named actors of user code may share the namespace."""
    return [name for name in ray_core.list_actor_names() if name.startswith(ACTOR_PREFIX)]
