"""What a handle and all handles derived from it share: above all their router, and where it comes from."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from mesh.caller.request_counter import RequestCounter
from mesh.membership.mesh_process import joined_process, mesh_process
from mesh.routing.router import Router
from mesh.routing.snapshot import DeploymentKey


class Routers(Protocol):
    """Where handles get their routers. It travels with them, as it is pickled."""

    def use(self, key: DeploymentKey, user: object) -> Router:
        """The router of a deployment, kept until all its users have left it. Raises MeshException without a mesh."""

    def leave(self, router: Router, user: object) -> Future[None]:
        """End the use of a router; the last user closes it. The future ends when it is closed."""


class HandleFamily:
    """One user of a router."""

    __slots__ = ("__weakref__", "_key", "is_used", "request_counter", "router", "routers")

    def __init__(self, key: DeploymentKey, routers: Routers | None) -> None:
        """`routers`: None for those of the mesh that this process is a member of."""
        self._key = key
        self.routers = routers
        self.router: Router | None = None
        self.is_used = False
        self.request_counter = RequestCounter(key)

    def connect(self) -> Router:
        self.is_used = True
        self.router = (self.routers or mesh_process()).use(self._key, self)
        return self.router

    def disconnect(self) -> Future[None]:
        router, self.router = self.router, None
        routers = self.routers or joined_process()
        if router is not None and routers is not None:
            return routers.leave(router, self)
        done: Future[None] = Future()
        done.set_result(None)
        return done
