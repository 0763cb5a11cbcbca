"""What the controller says about its decisions, in fake time: one log line and a reason in the status for each."""

import asyncio
import logging

import pytest

from mesh.controller.actors.cluster_runtime import ActorCallError
from mesh.status import ApplicationStatus, ReplicaState, from_reply
from mesh.v1 import control_pb2
from tests.sim.fake_actor import Actor, Faults
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh


@pytest.fixture(autouse=True)
def _with_decisions(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="mesh")


def lines(caplog: pytest.LogCaptureFixture, verb: str) -> list[str]:
    return [record.message for record in caplog.records if record.message.startswith(verb)]


def deployment(mesh: Mesh) -> control_pb2.DeploymentStatus:
    return mesh.loop.status().applications[0].deployments[0]


class FailingCluster(FakeCluster):
    async def _construct(self, actor: Actor) -> None:
        raise ActorCallError("ValueError: no model\n  line 1")


async def _serving(mesh: Mesh, count: int) -> None:
    await mesh.until(lambda: len(mesh.cluster.serving()) == count == len(mesh.cluster.replicas()))
    await asyncio.sleep(5.0)


async def test_each_start_and_stop_is_logged_once_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 2)
    await _serving(mesh, 2)
    await mesh.deploy("v1", 1)
    await _serving(mesh, 1)
    await mesh.crash()
    assert len(lines(caplog, "starting replica app/Model#")) == 2
    assert all(line.endswith(": fewer than wanted") for line in lines(caplog, "starting replica"))
    assert len(lines(caplog, "starting gateway")) == 1
    (stop,) = lines(caplog, "stopping replica app/Model#")
    assert stop.endswith(": more than wanted")
    assert not lines(caplog, "killing")
    assert lines(caplog, "deployment app/Model: HEALTHY (CONFIG_UPDATE_COMPLETED)")


async def test_each_new_configuration_of_a_replica_is_logged_once_with_its_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 2, user_config_json="1")
    await _serving(mesh, 2)
    await mesh.deploy("v1", 2, user_config_json="2")
    await mesh.until(lambda: len(lines(caplog, "reconfiguring replica app/Model#")) == 2)
    await _serving(mesh, 2)
    await mesh.crash()
    assert len(lines(caplog, "reconfiguring")) == 2
    assert all(line.endswith(": another configuration is wanted") for line in lines(caplog, "reconfiguring"))


async def test_a_death_is_logged_and_stays_in_the_status(caplog: pytest.LogCaptureFixture) -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 1)
    await _serving(mesh, 1)
    (actor,) = mesh.cluster.serving()
    mesh.cluster.end(actor)
    await _serving(mesh, 1)
    assert deployment(mesh).last_ended.startswith("replica r")
    assert [(each.replica_id, each.version) for each in deployment(mesh).deaths] == [(actor.spec.replica_id, "v1")]
    await mesh.crash()
    (death,) = lines(caplog, "replica app/Model#")
    assert " ended: " in death
    assert lines(caplog, "starting replica app/Model#")[-1].endswith(": replaces one that failed")


async def test_what_a_constructor_and_a_health_check_raise_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    mesh.cluster.broken_versions.add("v1")
    await mesh.deploy("v1", 1)
    await mesh.until(lambda: bool(lines(caplog, "the start of")))
    await mesh.deploy("v2", 1)
    await _serving(mesh, 1)
    mesh.cluster.faults = Faults(sick=1.0)
    await mesh.until(lambda: len(lines(caplog, "the health check of")) == 3)
    await mesh.crash()
    assert lines(caplog, "the start of replica app/Model#")[0].endswith(" failed: ValueError: no model")
    assert lines(caplog, "killing replica app/Model#")[0].endswith(": failed to start (ValueError: no model)")
    assert lines(caplog, "the health check of replica app/Model#")[0].endswith(" failed: not feeling well")


async def test_a_traceback_is_logged_again_when_its_deployment_is_deployed_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of the failures of one in a row only the first has it. What was deleted is forgotten."""
    mesh = Mesh(seed=1, cluster=FailingCluster(seed=1))
    await mesh.boot()
    for _ in range(2):
        await mesh.deploy("v1", 1)
        await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED)
        await mesh.delete()
        await mesh.until(mesh.is_without_applications)
    await mesh.crash()
    failures = [line for line in caplog.messages if line.startswith("the start of")]
    assert len(failures) > 2
    assert [line.endswith("line 1") for line in failures].count(True) == 2


async def test_the_status_says_why_a_replica_is_stopping() -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 2)
    await _serving(mesh, 2)
    for actor in mesh.cluster.serving():
        actor.ongoing = 1
    await mesh.deploy("v1", 1)
    await mesh.until(lambda: any(each.state == ReplicaState.STOPPING for each in deployment(mesh).replicas))
    (stopping,) = (each for each in deployment(mesh).replicas if each.state == ReplicaState.STOPPING)
    assert stopping.stop_reason == "more than wanted"
    overview = from_reply(mesh.loop.status()).applications["app"].deployments["Model"]
    assert overview.stop_reasons == {stopping.replica_id: "more than wanted"}
    for actor in mesh.cluster.replicas():
        actor.ongoing = 0
    await _serving(mesh, 1)
    assert deployment(mesh).last_ended == f"replica {stopping.replica_id}: more than wanted"
    await mesh.crash()


async def test_a_change_of_scale_is_logged_with_the_load_that_caused_it(caplog: pytest.LogCaptureFixture) -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    scaling = control_pb2.AutoscalingOptions(min_replicas=1, max_replicas=3, initial_replicas=3)
    scaling.target_ongoing_requests = scaling.metrics_interval_s = scaling.look_back_period_s = 1.0
    await mesh.deploy("v1", 3, autoscaling=scaling)
    await mesh.until(lambda: len(mesh.cluster.serving()) == 1)
    await mesh.crash()
    assert lines(caplog, "scaling app/Model from 3 to 1 replicas: target 1: 0 requests")
