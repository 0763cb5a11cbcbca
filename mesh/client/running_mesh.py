"""The mesh that runs, as API calls need it: joined, or with the revisions of the applications that a call changes."""

from __future__ import annotations

from mesh.client import mesh_lifecycle
from mesh.client.control_client import ControlClient, revisions_of
from mesh.cluster import ray_core


def attach() -> ControlClient:
    """The mesh of the Ray cluster, which this process joins. Raises MeshException if there is none."""
    ray_core.attach_ray()
    return mesh_lifecycle.require()


def find_with_revisions(*applications: str) -> tuple[ControlClient | None, dict[str, int]]:
    """The mesh of the cluster, if there is one, and the present revisions of these applications.

    Removes what an interrupted shutdown has left.
    """
    client = mesh_lifecycle.find()
    if client is None:
        return None, {}
    reply = client.status(*applications)
    if reply.is_shutting_down:
        mesh_lifecycle.destroy(client)
        return None, {}
    return client, revisions_of(reply)
