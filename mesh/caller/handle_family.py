"""What a handle and all handles derived from it share: above all their router, and where it comes from."""

from __future__ import annotations

import secrets
from collections.abc import Callable
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


def _none(app: str) -> Routers | None:
    return None


find_local_routers: Callable[[str], Routers | None] = _none
"""Finds the application of a name among those that run in this process. `mesh.local` replaces it."""


class HandleFamily:
    """One user of a router."""

    __slots__ = ("__weakref__", "_handle_id", "_key", "is_used", "request_counter", "router", "routers")

    def __init__(self, key: DeploymentKey, routers: Routers | None) -> None:
        """`routers`: None for those of a local application of this name, or of the mesh that this process is in."""
        self._key = key
        self.routers = routers
        self.router: Router | None = None
        self.is_used = False
        self.request_counter = RequestCounter(key)
        self._handle_id = ""

    @property
    def handle_id(self) -> str:
        """Made when it is asked for: few programs do."""
        self._handle_id = self._handle_id or secrets.token_hex(4)
        return self._handle_id

    def router_for_call(self) -> Router:
        """The router that sends the next call, which is counted."""
        router = self.connected()
        next(self.request_counter.numbers)
        return router

    def connected(self) -> Router:
        """The router of the handles, as long as it is not closed; otherwise another one."""
        router = self.router
        return self.connect() if router is None or router.is_closed else router

    def connect(self) -> Router:
        """Take a router, in the place of one that was closed."""
        self.is_used = True
        self.router = (self._own_routers or mesh_process()).use(self._key, self)
        return self.router

    def disconnect(self) -> Future[None]:
        """Leave the router, if there is one. The future ends when that is done."""
        router, self.router = self.router, None
        routers = self._own_routers or joined_process()
        if router is not None and routers is not None:
            return routers.leave(router, self)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @property
    def _own_routers(self) -> Routers | None:
        return self.routers or find_local_routers(self._key.app)
