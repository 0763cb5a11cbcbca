"""A controller that dies at a step of an operation, and what must hold when the next ones have finished it.

A step is one side of a call to the cluster or to the KV: before it was made, or after it was carried out.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mesh.cluster.keys import CONTROLLER_ADDRESS_KEY, CONTROLLER_STARTS_KEY, STATE_KEY
from mesh.controller.store.state_contents import all_generations
from mesh.v1 import control_pb2
from tests.sim.fake_actor import Actor
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running

SIZE = 2
LONG_S = 30.0
NODES = {"n1": 8.0, "n2": 8.0}


async def nothing(mesh: Mesh) -> None:
    """Is asked for."""


@dataclass(frozen=True)
class Operation:
    """What is asked for, of a mesh in which v1 runs or nothing, and how one sees that it is done."""

    request: Callable[[Mesh], Awaitable[None]]
    is_done: Callable[[Mesh], bool]
    starts_running: bool = True
    prepare: Callable[[Mesh], Awaitable[None]] = nothing
    """What comes before it, in which no controller dies."""
    is_tried_again: bool = False
    """By a new controller, which has forgotten that it failed."""
    keeps: bool = False
    """The replicas that serve before it serve after it."""
    never_below: int = 0
    most: int = SIZE
    """More replicas of one version are duplicates."""


async def die_at(operation: Operation, steps: list[int]) -> bool:
    """Returns whether the (first) controller lived long enough to die at its step."""
    mesh = Mesh(seed=7, cpus=NODES)
    await mesh.boot()
    if operation.starts_running:
        await mesh.deploy("v1", SIZE)
        await mesh.until(lambda: is_running(mesh, "v1", SIZE))
    await operation.prepare(mesh)
    before = set(mesh.cluster.serving())
    watch = Watch(mesh)
    life = mesh.life
    life.dies_at_step = life.steps + steps[0]
    mesh.deaths = steps[1:]
    await operation.request(mesh)
    await mesh.until(lambda: operation.is_done(mesh))
    # What is left undone, or done twice, shows in the time after.
    await asyncio.sleep(LONG_S)
    if operation.is_tried_again:
        await mesh.until(lambda: operation.is_done(mesh))
    assert operation.is_done(mesh), steps
    assert watch.most <= operation.most, f"duplicates when dying at {steps}"
    assert watch.fewest >= operation.never_below, f"an outage when dying at {steps}"
    if operation.keeps:
        assert before <= set(mesh.cluster.serving()), f"replicas were replaced when dying at {steps}"
    assert_tidy(mesh)
    assert not mesh.failed, steps
    has_died = life.is_over
    await mesh.crash()
    return has_died


def assert_tidy(mesh: Mesh) -> None:
    """Everything that is there belongs to what was asked for."""
    known = {replica.replica_id for app in mesh.loop.status().applications for replica in _replicas(app)}
    assert {actor.name.rpartition("#")[2] for actor in mesh.cluster.replicas()} == known
    state = mesh.stored()
    codes = {deployment.code_key for app in all_generations(state) for deployment in app.deployments}
    assert set(mesh.kv.keys("")) - {STATE_KEY, CONTROLLER_ADDRESS_KEY, CONTROLLER_STARTS_KEY} == codes


def _replicas(app: control_pb2.ApplicationStatus) -> list[control_pb2.ReplicaStatus]:
    return [replica for deployment in app.deployments for replica in deployment.replicas]


class Watch:
    """Counts replicas whenever one is started or told to leave."""

    def __init__(self, mesh: Mesh) -> None:
        cluster = self._cluster = mesh.cluster
        self.most = 0
        self.fewest = len(cluster.serving())
        self._construct, cluster._construct = cluster._construct, self._watched_construct  # type: ignore[method-assign]
        self._drain, cluster._drain = cluster._drain, self._watched_drain  # type: ignore[method-assign]

    async def _watched_construct(self, actor: Actor) -> None:
        version = actor.spec.spec.version  # type: ignore[union-attr]
        same = [each for each in self._cluster.replicas() if each.spec.spec.version == version]  # type: ignore[union-attr]
        self.most = max(self.most, sum(not each.is_draining for each in same))
        await self._construct(actor)

    async def _watched_drain(self, actor: Actor) -> None:
        self.fewest = min(self.fewest, sum(each is not actor for each in self._cluster.serving()))
        await self._drain(actor)
