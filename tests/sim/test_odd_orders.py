"""What users ask for in odd orders, by a seed. In the end the mesh is what was asked for last.

Applications are deployed again while they stop, deployments change their names, numbers change in the middle of an
update, two drivers deploy at once, versions fail, and controllers die in between.
"""

import asyncio
from dataclasses import replace

import pytest

from mesh.controller.desired.changes.desired_change import without_application
from mesh.status import ApplicationStatus
from mesh.v1 import control_pb2
from tests.sim.fake_actor import Faults
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.storm import STORMY

APPS = ("one", "two")
NAMES = ("A", "B", "C", "D")
VERSIONS = ("v1", "v2", "broken")
STEPS = 25
SEEDS = 60


class Wishes:
    """Random applications, and what was asked for last."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.dice = cluster.random
        self.last: dict[str, control_pb2.ApplicationSpec] = {}

    def some(self, name: str, versions: tuple[str, ...] = VERSIONS) -> control_pb2.ApplicationSpec:
        """A chain of one to three deployments in any order, the first is the ingress."""
        dice = self.dice
        chain = dice.sample(NAMES, dice.randint(1, 3))
        app = control_pb2.ApplicationSpec(name=name, route_prefix=f"/{name}", ingress=chain[0])
        for deployment, callee in zip(chain, [*chain[1:], ""], strict=True):
            spec = app.deployments.add(name=deployment, callees=filter(None, [callee]))
            # What is bound to a deployment is part of its version.
            spec.version = dice.choice(versions) + callee
            spec.code = f"{name} {deployment} {spec.version}".encode()
            spec.options.num_replicas = dice.choice([0, 1, 1, 2, 3])
            spec.options.max_ongoing_requests = 5
            spec.options.graceful_shutdown_timeout_s = dice.choice([0.0, 1.0, 10.0])
            spec.options.user_config_json = dice.choice(["1", "2"])
            spec.options.actor.num_cpus = dice.choice([0.0, 1.0])
        return app


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_in_the_end_the_mesh_is_what_was_asked_for_last(seed: int) -> None:
    cluster = FakeCluster(seed, cpus={"n1": 6.0, "n2": 3.0})
    cluster.broken_versions = {f"broken{callee}" for callee in ("", *NAMES)}
    mesh, wishes, dice = Mesh(seed, cluster=cluster), Wishes(cluster), cluster.random
    cluster.faults = replace(STORMY) if seed % 2 else Faults(hang_in_drain=0.1)
    await mesh.boot()
    for _ in range(STEPS):
        await _one_step(mesh, wishes)
        await asyncio.sleep(dice.choice([0.0, 0.1, 1.0, dice.uniform(0.0, 15.0)]))
    cluster.faults = Faults()
    cluster.cpus["n3"] = 100.0
    finals = [wishes.some(name, ("v1", "v2")) for name in APPS]
    for final in finals:
        await mesh.run(lambda final=final: _copy(final))
    await mesh.until(lambda: all(_is_there(mesh, final) for final in finals), within_s=240.0)
    # Those without callers may take their time to stop.
    count = sum(each.options.num_replicas for app in finals for each in app.deployments)
    await mesh.until(lambda: len(cluster.replicas()) == count)
    await mesh.shut_down()
    await mesh.until(lambda: mesh.is_empty() and not cluster.actors)
    assert mesh.kv.keys("code/") == []
    assert not mesh.failed, mesh.failed
    await mesh.crash()


async def _one_step(mesh: Mesh, wishes: Wishes) -> None:
    dice, name = wishes.dice, wishes.dice.choice(APPS)
    match dice.randrange(8):
        case 0 | 1:
            app = wishes.some(name)
            await mesh.run(lambda: _copy(app))
        case 2 if mesh.is_up:
            # Two drivers at once.
            first, second = wishes.some(name), wishes.some(name)
            await asyncio.gather(mesh.run(lambda: _copy(first)), mesh.run(lambda: _copy(second)))
        case 3:
            # Deleted and deployed again at once, with nothing changed.
            before = [app for app in mesh.stored().applications if app.name == name]
            await _delete(mesh, name)
            if before:
                await mesh.run(lambda: _copy(before[0]))
        case 4:
            await _delete(mesh, name)
        case 5:
            # The same with other numbers.
            for app in mesh.stored().applications:
                for deployment in app.deployments:
                    deployment.options.num_replicas = dice.choice([0, 1, 4])
                await mesh.run(lambda app=app: _copy(app))
        case 6:
            await mesh.crash()
            await mesh.boot()
        case _:
            mesh.life.dies_at_step = mesh.life.steps + dice.randint(1, 30)


async def _delete(mesh: Mesh, name: str) -> None:
    await mesh.ask(lambda: (lambda state: without_application(state, name), ()))


def _is_there(mesh: Mesh, wanted: control_pb2.ApplicationSpec) -> bool:
    """Every deployment has exactly its replicas, of its version and configuration, and the status is at peace."""
    found = [app for app in mesh.loop.status().applications if app.name == wanted.name]
    if [app.status for app in found] != [ApplicationStatus.RUNNING]:
        return False
    if {each.name for each in found[0].deployments} != {each.name for each in wanted.deployments}:
        return False
    for spec in wanted.deployments:
        actors = [
            actor
            for actor in mesh.cluster.serving(spec.version)
            if actor.spec.deployment.app == wanted.name and actor.spec.deployment.name == spec.name  # type: ignore[union-attr]
        ]
        configs = {actor.spec.spec.options.user_config_json for actor in actors}  # type: ignore[union-attr]
        if len(actors) != spec.options.num_replicas or configs - {spec.options.user_config_json}:
            return False
    return not any(each.message for each in found[0].deployments)


def _copy(spec: control_pb2.ApplicationSpec) -> control_pb2.ApplicationSpec:
    copy = control_pb2.ApplicationSpec()
    copy.CopyFrom(spec)
    return copy
