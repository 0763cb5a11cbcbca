"""A mesh whose deployment has a request router of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from mesh.routing.snapshot import RouterSpec
from tests.unit.fakes.small_mesh import SmallMesh, do_on_io, mesh_of

DEADLINE_S = 30.0


@contextmanager
def routed_by(name: str, *, limit: int = 10, replicas: int = 3, queued_max: int = -1) -> Iterator[SmallMesh]:
    """A mesh whose snapshots name a router of `request_routers`."""
    with mesh_of(*(Shard() for _ in range(replicas)), limit=limit, queued_max=queued_max) as mesh:
        publish(mesh, name)
        yield mesh
        for each in mesh.replicas:
            each.target.gate.set()  # type: ignore[attr-defined]
        mesh.assert_idle()


def publish(mesh: SmallMesh, name: str | None, kwargs: str = "{}") -> None:
    spec = None if name is None else RouterSpec(f"tests.unit.fakes.request_routers:{name}", kwargs)
    published = mesh.router.listing.snapshot
    assert published is not None
    infos = tuple(each.info for each in mesh.replicas)
    do_on_io(mesh.router.update, replace(published, replicas=infos, request_router=spec))


def by_shard(mesh: SmallMesh) -> list[int]:
    return [id(each.target) for each in sorted(mesh.replicas, key=lambda each: each.replica_id)]


def result(response: Any) -> Any:
    return response.result(timeout_s=DEADLINE_S)


class Shard:
    def __init__(self) -> None:
        self.gate = threading.Event()
        self.started = 0

    async def who(self, number: int) -> int:
        return id(self)

    async def hold(self, number: int) -> int:
        self.started += 1
        await asyncio.to_thread(self.gate.wait, DEADLINE_S)
        return id(self)
