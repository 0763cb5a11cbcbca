"""The erasure of a mesh: its actors are killed and its keys deleted, by one process at a time, and no other mesh's.

Two drivers may end the same mesh at the same time, and one of them may start a new one while the other is not done.
The token is the mesh's identity: it is created at its first start and deleted last.
"""

from __future__ import annotations

import logging
import time

from mesh.client.polling import poll
from mesh.cluster import ray_core, ray_placement
from mesh.cluster.keys import ACTOR_PREFIX, CONTROLLER_NAME, ERASURE_KEY, TOKEN_KEY
from mesh.settings import settings

logger = logging.getLogger("mesh")


def identity() -> bytes:
    """The id of the mesh on the cluster; empty if there is none."""
    return ray_core.kv_get(TOKEN_KEY) or b""


def erase(mesh: bytes) -> None:
    """Remove everything of the mesh of that identity. Does nothing if it is gone, whatever has taken its place."""
    while not ray_core.kv_put(ERASURE_KEY, own := _now(), overwrite=False):
        wait_erased()
    try:
        if identity() == mesh:
            poll(_kill_actors, settings().client.kill_timeout_s)
            _remove_placement_groups()
            _delete_keys()
    finally:
        _end_erasure(own)


def wait_erased() -> None:
    """Wait while other processes erase a mesh, each as long as that may take: it may have died."""
    while (begun := ray_core.kv_get(ERASURE_KEY)) is not None:
        if not poll(lambda: ray_core.kv_get(ERASURE_KEY) != begun, settings().client.shutdown_timeout_s):
            logger.warning("the erasure of the mesh that another process began is taken to be interrupted")
            _end_erasure(begun)


def _end_erasure(begun: bytes) -> None:
    """Not one that another process has begun since: two would erase then, and the slower one maybe a new mesh."""
    if ray_core.kv_get(ERASURE_KEY) == begun:
        ray_core.kv_delete(ERASURE_KEY)


def _delete_keys() -> None:
    keys = [key for key in ray_core.kv_keys("") if key != ERASURE_KEY]
    for key in sorted(keys, key=lambda key: key == TOKEN_KEY):
        ray_core.kv_delete(key)


def _kill_actors() -> bool:
    """Returns whether none is left: a name is in use until its actor is gone, and so is that of a dying controller."""
    # The controller first: it would replace actors that die, and may be starting some until it is gone.
    names = sorted(_own_actor_names(), key=lambda name: name != CONTROLLER_NAME)
    for name in names:
        actor = ray_core.find_actor(name)
        if actor is not None:
            ray_core.kill_actor(actor)
    return not names


def _remove_placement_groups() -> None:
    for name, group in ray_placement.list_placement_groups().items():
        if name.startswith(ACTOR_PREFIX):
            ray_placement.remove_placement_group(group)


def _own_actor_names() -> list[str]:
    """Actors of the mesh; named actors of user code may share the namespace."""
    return [name for name in ray_core.list_actor_names() if name.startswith(ACTOR_PREFIX)]


def _now() -> bytes:
    """For people who look at the key; tells erasures apart."""
    return f"{time.time():.6f}".encode()
