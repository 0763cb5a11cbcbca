"""The version before stays until the wanted one is proven, in fake time: renamed, failing, and after outages."""

import asyncio

import pytest

from mesh.controller.actors.cluster_runtime import ActorCallError
from mesh.routing.snapshot import DeploymentKey
from mesh.status import ApplicationStatus
from mesh.v1 import control_pb2
from tests.sim.fake_actor import Actor
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running, listed
from tests.sim.traffic import Caller
from tests.unit.controller.builders import application

HOUR_S, DAY_S = 3600.0, 24 * 3600.0


class Dependent(FakeCluster):
    """Constructors need something that may be away, for instance a model store, and take their time."""

    def __init__(self, construct_s: float = 1.0) -> None:
        super().__init__(seed=1)
        self.is_away = False
        self._construct_s = construct_s

    async def _construct(self, actor: Actor) -> None:
        await asyncio.sleep(self._construct_s)
        if self.is_away:
            raise ActorCallError("ConnectionError: the model store is away")
        await super()._construct(actor)


def named(ingress: str, version: str, num_replicas: int = 3) -> control_pb2.ApplicationSpec:
    app = application("app", version, num_replicas)
    app.ingress = app.deployments[0].name = ingress
    app.deployments[0].grpc_methods.add(full_name=f"/shop.{ingress}/Price")
    return app


def routed(mesh: Mesh) -> list[str]:
    """What gateways route calls of the application to: its ingress and methods."""
    (route,) = mesh.publisher._routes.routes
    return [route.ingress, *(method.full_name for method in route.grpc_methods)]


@pytest.mark.parametrize("is_broken", [False, True])
async def test_a_renamed_ingress_serves_until_the_new_one_does(is_broken: bool) -> None:
    """Its routes too, however long that takes, and for good if the new one fails."""
    mesh = Mesh(1, cluster=(cluster := Dependent(construct_s=600.0)))
    cluster.broken_versions = {"v2"} if is_broken else set()
    await mesh.boot()
    await mesh.run(lambda: named("Old", "v1"))
    await mesh.until(lambda: is_running(mesh, "v1", 3), within_s=HOUR_S)
    await mesh.run(lambda: named("New", "v2"))
    for _ in range(3000):
        await asyncio.sleep(1.0)
        ingress, method = routed(mesh)
        assert method == f"/shop.{ingress}/Price"
        assert len(listed(mesh, DeploymentKey("app", ingress))) == 3
    if is_broken:
        assert (ingress, mesh.app_status()) == ("Old", ApplicationStatus.DEPLOY_FAILED)
        cluster.end(cluster.serving("v1")[0])
        await mesh.until(lambda: len(cluster.serving("v1")) == 3, within_s=HOUR_S)
    else:
        assert ingress == "New"
        await mesh.until(lambda: is_running(mesh, "v2", 3))
        assert not mesh.stored().predecessors
        assert len(mesh.kv.keys("code/")) == 2, "its own, and that of the version before for a rollback"
    await mesh.delete()
    await mesh.until(lambda: not cluster.replicas())
    assert not mesh.stored().predecessors
    await mesh.crash()


async def test_an_ingress_of_the_same_name_has_the_methods_of_the_versions_that_serve() -> None:
    def shop(version: str, method: str) -> control_pb2.ApplicationSpec:
        app = application("app", version, 1)
        app.deployments[0].grpc_methods.add(full_name=method)
        return app

    mesh = Mesh(1, cluster=Dependent(construct_s=60.0))
    await mesh.boot()
    await mesh.run(lambda: shop("v1", "/shop/Old"))
    await mesh.until(lambda: is_running(mesh, "v1", 1))
    await mesh.run(lambda: shop("v2", "/shop/New"))
    await asyncio.sleep(30.0)
    assert routed(mesh) == ["Model", "/shop/Old"]
    await mesh.until(lambda: len(mesh.cluster.serving("v2")) == 1)
    await asyncio.sleep(2.0)
    assert routed(mesh) == ["Model", "/shop/Old", "/shop/New"]
    await mesh.until(lambda: is_running(mesh, "v2", 1))
    await asyncio.sleep(2.0)
    assert routed(mesh) == ["Model", "/shop/New"]
    await mesh.crash()


@pytest.mark.parametrize("num_replicas", [1, 2])
@pytest.mark.parametrize("meanwhile", ["nothing", "deployed again", "controller restarted"])
async def test_a_version_that_ever_ran_comes_back_by_itself(num_replicas: int, meanwhile: str) -> None:
    """A replica dies while what its constructor needs is away for half a minute."""
    mesh = Mesh(1, cluster=(cluster := Dependent()))
    await mesh.boot()
    await mesh.deploy("v1", num_replicas)
    await mesh.until(lambda: is_running(mesh, "v1", num_replicas))
    await asyncio.sleep(HOUR_S)
    if meanwhile == "deployed again":
        await mesh.deploy("v1", num_replicas)
        await asyncio.sleep(60.0)
    if meanwhile == "controller restarted":
        await mesh.crash()
    cluster.is_away = True
    for actor in cluster.serving():
        cluster.end(actor)
    if meanwhile == "controller restarted":
        await mesh.boot()
    await asyncio.sleep(30.0)
    assert not cluster.serving()
    cluster.is_away = False
    await mesh.until(lambda: is_running(mesh, "v1", num_replicas), within_s=60.0)
    await mesh.crash()


async def test_replicas_of_the_version_before_are_replaced_while_the_new_one_fails() -> None:
    """After a restart of the controller too: the version before is stored, with its code."""
    mesh = Mesh(1, cluster=(cluster := Dependent()))
    cluster.broken_versions = {"v2"}
    await mesh.boot()
    await mesh.deploy("v1", 4)
    await mesh.until(lambda: is_running(mesh, "v1", 4))
    await mesh.deploy("v2", 4)
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED)
    for number in range(8):
        if number == 4:
            await mesh.crash()
            await mesh.boot()
        cluster.end(cluster.serving("v1")[0])
        await mesh.until(lambda: len(cluster.serving("v1")) == 4 == len(listed(mesh)))
        await asyncio.sleep(HOUR_S)
        assert len(cluster.serving("v1")) == 4
    assert len(mesh.kv.keys("code/")) == 2
    cluster.broken_versions = set()
    await mesh.deploy("v2", 4)
    await mesh.until(lambda: is_running(mesh, "v2", 4))
    await mesh.until(lambda: not mesh.stored().predecessors)
    assert len(mesh.kv.keys("code/")) == 2, "its own, and that of the version before for a rollback"
    await mesh.crash()


async def test_a_restarted_controller_knows_how_long_new_replicas_have_served() -> None:
    """The rollout goes on where it was."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 1)
    await mesh.until(lambda: is_running(mesh, "v1", 1))
    await mesh.deploy("v2", 1, min_ready_s=60.0)
    await mesh.until(lambda: len(mesh.cluster.serving("v2")) == 1)
    await asyncio.sleep(50.0)
    await mesh.crash()
    await mesh.boot()
    assert len(mesh.cluster.serving("v1")) == 1
    await mesh.until(lambda: is_running(mesh, "v2", 1), within_s=20.0)
    await mesh.crash()


async def test_a_version_that_fails_at_its_first_call_after_zero_replicas_leaves_the_one_before() -> None:
    """It was deployed while there were no calls, so nothing had shown that it works."""
    mesh = Mesh(1, cluster=(cluster := Dependent()))
    scaling = control_pb2.AutoscalingOptions(min_replicas=0, max_replicas=2, target_ongoing_requests=2)
    scaling.metrics_interval_s = scaling.look_back_period_s = 1.0
    scaling.upscaling_factor = scaling.downscaling_factor = 1.0
    scaling.downscale_delay_s = scaling.downscale_to_zero_delay_s = 30.0
    await mesh.boot()
    caller = Caller(mesh, interval_s=1.0)
    await mesh.deploy("v1", 0, autoscaling=scaling)
    caller.report(1.0)
    await mesh.until(lambda: len(cluster.serving("v1")) == 1)
    caller.report(0.0)
    await mesh.until(lambda: not cluster.replicas())
    cluster.broken_versions = {"v2"}
    await mesh.deploy("v2", 0, autoscaling=scaling)
    await asyncio.sleep(60.0)
    assert mesh.app_status() == ApplicationStatus.RUNNING
    caller.report(1.0)
    await mesh.until(lambda: len(cluster.serving("v1")) == 1 == len(listed(mesh)))
    caller.fall_silent()
    await mesh.crash()


async def test_replicas_of_the_version_before_are_replaced_while_the_new_one_loads() -> None:
    mesh = Mesh(1, cluster=(cluster := Dependent()))
    await mesh.boot()
    await mesh.deploy("v1", 4)
    await mesh.until(lambda: is_running(mesh, "v1", 4))
    cluster._construct_s = HOUR_S
    await mesh.deploy("v2", 4)
    await asyncio.sleep(60.0)
    cluster._construct_s = 1.0
    cluster.end(cluster.serving("v1")[0])
    await mesh.until(lambda: len(cluster.serving("v1")) == 4, within_s=30.0)
    assert (mesh.app_status(), len(cluster.serving("v2"))) == (ApplicationStatus.DEPLOYING, 0)
    await mesh.until(lambda: is_running(mesh, "v2", 4), within_s=8 * HOUR_S)
    await mesh.crash()


async def test_a_replacement_starts_with_the_configuration_that_has_worked() -> None:
    """Not with the wanted one, which its constructor would refuse."""
    mesh = Mesh(1, cluster=(cluster := Dependent()))
    cluster.refused_configs = {"2"}
    await mesh.boot()
    await mesh.deploy("v1", 3, user_config_json="1")
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    await mesh.deploy("v1", 3, user_config_json="2")
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED)
    for _ in range(3):
        cluster.end(cluster.serving()[0])
        await mesh.until(lambda: len(cluster.serving()) == 3)
    await mesh.deploy("v1", 3, user_config_json="3")
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    assert {actor.spec.spec.options.user_config_json for actor in cluster.serving()} == {"3"}
    await mesh.crash()
