"""A canary of several deployments, some of which its application serves for both, and that changes, in fake time."""

import asyncio

from mesh.v1 import control_pb2
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import counts, fewest, is_running
from tests.sim.shop_canary import TEN_PERCENT, run_shop, with_canary
from tests.unit.controller.builders import application


async def test_an_update_of_what_a_canary_shares_takes_no_replica_away() -> None:
    """And it starts as many as it needs, once."""
    mesh = await with_canary({"A": "a2", "B": "b1"}, 10)
    first = next(mesh._ids)
    await run_shop(mesh, {"A": "a1", "B": "b2"}, 10)
    assert await fewest(lambda: counts(mesh).get("b1", 0) + counts(mesh).get("b2", 0), for_s=90.0) >= 10
    await mesh.until(lambda: counts(mesh) == {"a1": 10, "a2": 1, "b2": 10})
    assert next(mesh._ids) - first < 15
    await mesh.promote()
    await mesh.until(lambda: counts(mesh) == {"a2": 10, "b2": 10})
    await mesh.crash()


async def test_a_deployment_that_only_the_canary_goes_on_with_keeps_one_of_its_replicas() -> None:
    mesh = await with_canary({"A": "a2", "B": "b1"}, 5)
    before = {actor.name for actor in mesh.cluster.serving("b1")}
    await run_shop(mesh, {"A": "a1"}, 5)
    assert await fewest(lambda: counts(mesh).get("b1", 0), for_s=60.0) >= 1
    await mesh.until(lambda: counts(mesh) == {"a1": 5, "a2": 1, "b1": 1})
    assert {actor.name for actor in mesh.cluster.serving("b1")} < before
    await mesh.crash()


async def test_a_canary_s_version_of_what_its_application_drops_goes_on() -> None:
    """That of the application goes on beside it until nothing calls it any more."""
    mesh = await with_canary({"A": "a2", "B": "b2"}, 5)
    mesh.cluster.broken_versions = {"a3"}
    (canary,) = mesh.cluster.serving("b2")
    await run_shop(mesh, {"A": "a3"}, 5)
    assert await fewest(lambda: counts(mesh)["b1"], for_s=60.0) == 5
    assert [actor.name for actor in mesh.cluster.serving("b2")] == [canary.name]
    await run_shop(mesh, {"A": "a4"}, 5)
    await mesh.until(lambda: counts(mesh) == {"a4": 5, "a2": 1, "b2": 1})
    await mesh.crash()


async def test_another_canary_replaces_the_replicas_that_only_canaries_have() -> None:
    mesh = await with_canary({"A": "a2", "B": "b1", "N": "n1"}, 5)
    shared = {actor.name for actor in mesh.cluster.serving() if actor not in mesh.cluster.serving("n1")}
    await run_shop(mesh, {"A": "a2", "B": "b1", "N": "n2"}, 5, 10.0)
    await mesh.until(lambda: counts(mesh) == {"a1": 5, "b1": 5, "a2": 1, "n2": 1})
    assert {actor.name for actor in mesh.cluster.serving() if actor not in mesh.cluster.serving("n2")} == shared
    await mesh.crash()


async def test_a_canary_that_waits_for_room_keeps_its_place_under_the_next_controller() -> None:
    mesh = Mesh(seed=1, cpus={"n1": 3.0})
    await mesh.boot()

    def make(version: str, rule: control_pb2.TrafficRule | None = None) -> control_pb2.ApplicationSpec:
        app = application(version=version, num_replicas=3)
        app.deployments[0].options.actor.num_cpus = 1.0
        if rule is not None:
            app.traffic.CopyFrom(rule)
        return app

    await mesh.run(lambda: make("v1"))
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    before = set(mesh.cluster.actors)
    await mesh.run(lambda: make("v2", TEN_PERCENT))
    await asyncio.sleep(5.0)
    (waiting,) = set(mesh.cluster.actors) - before
    await mesh.crash()
    await mesh.boot()
    await asyncio.sleep(5.0)
    assert waiting in mesh.cluster.actors
    mesh.cluster.cpus["n2"] = 1.0
    await mesh.until(lambda: counts(mesh) == {"v1": 3, "v2": 1})
    assert [actor.name for actor in mesh.cluster.serving("v2")] == [waiting]
    await mesh.crash()
