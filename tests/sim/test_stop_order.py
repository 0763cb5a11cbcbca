"""Calls go through chains of deployments while their application is deleted, redeployed or the mesh is shut down.

What has been let in gets through: every call inside finds the deployment that it needs (item 61).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from mesh.controller.report.publisher import Publisher
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2
from tests.sim.fake_actor import Actor
from tests.sim.fake_mesh import Mesh

CHAIN = ("A", "B", "C")
LATENCY_MAX_S = 0.1
WORK_MAX_S = 2.0
NEW_CALL_EVERY_S = 0.05


def chain(names: Sequence[str], version: str = "v1") -> control_pb2.ApplicationSpec:
    """The first calls the second, and so on."""
    app = control_pb2.ApplicationSpec(name="app", ingress=names[0])
    for number, name in enumerate(names):
        spec = app.deployments.add(name=name, version=version, code=name.encode(), callees=names[number + 1 :][:1])
        spec.options.num_replicas = 2
        spec.options.max_ongoing_requests = 100
        spec.options.graceful_shutdown_timeout_s = 20.0
    return app


class Process:
    """Follows the controller's snapshots some milliseconds late, as every process does, and calls by them."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._snapshots: dict[DeploymentKey, control_pb2.DeploymentSnapshot] = {}
        self._following = asyncio.create_task(self._follow())

    def leave(self) -> None:
        self._following.cancel()

    async def pick(self, name: str) -> Actor | None:
        """A replica that takes the call; None where there is no such deployment (any more)."""
        while True:
            snapshot = self._snapshots.get(DeploymentKey("app", name))
            if snapshot is not None and snapshot.unavailable:
                return None
            for info in snapshot.replicas if snapshot is not None else ():
                for actor in self._mesh.cluster.serving():
                    if actor.name.endswith(f"#{info.replica_id}"):
                        return actor
            await asyncio.sleep(0.02)

    async def _follow(self) -> None:
        """One stream after the other, as controllers come and go."""
        while True:
            publisher = self._mesh.publisher
            reading = asyncio.create_task(self._read(publisher))
            while self._mesh.publisher is publisher or not self._mesh.is_up:  # noqa: ASYNC110 - costs nothing in fake time
                await asyncio.sleep(0.05)
            reading.cancel()

    async def _read(self, publisher: Publisher) -> None:
        stream = publisher.open(control_pb2.ProcessHello(process_id="p"))
        publisher.subscribe(stream, [DeploymentKey("app", name) for name in CHAIN])
        while True:
            update = await publisher.next_update(stream)
            await asyncio.sleep(self._mesh.cluster.random.uniform(0.0, LATENCY_MAX_S))
            for each in update.snapshots:
                self._snapshots[DeploymentKey(each.deployment.app, each.deployment.name)] = each


class Traffic:
    """Callers outside, and the replicas that call each other."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._outside = Process(mesh)
        self._inside = Process(mesh)
        self._calls: set[asyncio.Task[None]] = set()
        self.through = 0
        self.failed: list[str] = []
        self._source = asyncio.create_task(self._keep_calling())

    async def end(self) -> None:
        """No new calls; those under way are waited for."""
        self._source.cancel()
        await asyncio.gather(*self._calls)
        self._outside.leave()
        self._inside.leave()

    async def _keep_calling(self) -> None:
        while True:
            await asyncio.sleep(NEW_CALL_EVERY_S)
            actor = await self._outside.pick(CHAIN[0])
            if actor is not None:
                task = asyncio.create_task(self._execute(actor))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)

    async def _execute(self, actor: Actor) -> None:
        """A call inside of a replica: some work, then the calls that its own arguments make, then some work."""
        actor.ongoing += 1
        try:
            await self._work(actor)
            assert isinstance(actor.spec, control_pb2.ReplicaSpec)
            for callee in actor.spec.spec.callees:
                nested = await self._inside.pick(callee)
                if nested is None:
                    self.failed.append(f"{actor.name} does not find {callee}")
                else:
                    await self._execute(nested)
            await self._work(actor)
            self.through += 1
        finally:
            actor.ongoing -= 1

    async def _work(self, actor: Actor) -> None:
        await asyncio.sleep(self._mesh.cluster.random.uniform(0.0, WORK_MAX_S))
        if actor.closed.is_set():
            self.failed.append(f"{actor.name} ended under a call")


def direct() -> control_pb2.ApplicationSpec:
    """The new A calls C itself, and B is not wanted."""
    return chain(["A", "C"], "v2")


ENDINGS: dict[str, tuple[Callable[[Mesh], Awaitable[None]], Callable[[Mesh], bool]]] = {
    "delete": (lambda mesh: mesh.delete(), lambda mesh: not mesh.cluster.replicas()),
    "shutdown": (lambda mesh: mesh.shut_down(), lambda mesh: not mesh.cluster.actors),
    "another graph": (lambda mesh: mesh.run(direct), lambda mesh: is_through(mesh, 4)),
    "the same again": (lambda mesh: mesh.run(lambda: chain(CHAIN, "v2")), lambda mesh: is_through(mesh, 6)),
}


def is_through(mesh: Mesh, count: int) -> bool:
    return len(mesh.cluster.replicas()) == count == len(mesh.cluster.serving("v2"))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("with_crash", [False, True])
@pytest.mark.parametrize("seed", range(10))
async def test_calls_under_way_get_through(seed: int, ending: str, with_crash: bool) -> None:
    mesh = Mesh(seed)
    await mesh.boot()
    await mesh.run(lambda: chain(CHAIN))
    await mesh.until(lambda: len(mesh.cluster.serving()) == 6)
    traffic = Traffic(mesh)
    await asyncio.sleep(5.0)
    ask, is_done = ENDINGS[ending]
    await ask(mesh)
    if with_crash:
        await asyncio.sleep(mesh.cluster.random.uniform(0.0, 3.0))
        await mesh.crash()
        await mesh.boot()
    await mesh.until(lambda: is_done(mesh))
    await traffic.end()
    assert traffic.failed == []
    assert traffic.through > 20
    await mesh.crash()


@pytest.mark.parametrize("ending", ["delete", "shutdown"])
async def test_however_the_replicas_hang_an_end_comes_in_time(ending: str) -> None:
    """docs/operations.md, Draining: the sum of the stages, and what it takes to notice."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.run(lambda: chain(CHAIN))
    await mesh.until(lambda: len(mesh.cluster.serving()) == 6)
    mesh.cluster.faults.hang_in_drain = 1.0
    began_at_s = asyncio.get_running_loop().time()
    ask, is_done = ENDINGS[ending]
    await ask(mesh)
    gateways_s = 35.0 if ending == "shutdown" else 0.0
    await mesh.until(lambda: is_done(mesh), within_s=300.0)
    took_s = asyncio.get_running_loop().time() - began_at_s
    assert len(CHAIN) * 20.0 < took_s < gateways_s + len(CHAIN) * 25.0 + 10.0
    await mesh.crash()
