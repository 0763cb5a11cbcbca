"""A fault of the controller's own that one deployment brings out, in fake time: the others notice nothing of it."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from mesh.controller.actors.replica_keeper import ReplicaKeeper
from mesh.controller.plan import planner
from mesh.controller.report import status_judge
from mesh.controller.scaling import scaling_memory
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2
from tests.sim.fake_mesh import Mesh
from tests.sim.fake_time import fake_time_loop
from tests.sim.traffic import Caller
from tests.unit.controller.builders import application

BAD = DeploymentKey("bad", "Model")


def raises_for_bad(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with a fault: it fails where the bad application is among its arguments."""

    def faulty(*arguments: Any, **options: Any) -> Any:
        if any(_is_bad(each) for each in arguments):
            raise LookupError("no such thing")
        return function(*arguments, **options)

    return faulty


def _is_bad(argument: object) -> bool:
    return (
        BAD in (argument, *(getattr(argument, each, None) for each in ("key", "deployment")))
        or getattr(argument, "max_replicas", 0) == 13
    )


FAULTS = {
    "planning": (planner, "next_step"),
    "judgement": (status_judge, "next_verdict"),
    "work on replicas": (ReplicaKeeper, "_start"),
    "autoscaling": (scaling_memory, "decide"),
}


@pytest.mark.parametrize("step", FAULTS)
async def test_a_deployment_that_the_controller_fails_at_stops_no_other(
    step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The status has a trigger of its own for it (item 195)."""
    owner, name = FAULTS[step]
    monkeypatch.setattr(owner, name, raises_for_bad(getattr(owner, name)))
    mesh = Mesh(seed=1)
    await mesh.boot()
    unlike = control_pb2.AutoscalingOptions(min_replicas=1, max_replicas=13, target_ongoing_requests=2)
    await mesh.run(lambda: application("bad", "v1", 2, autoscaling=unlike))
    await mesh.run(lambda: application("good", "v1", 2))
    await mesh.until(lambda: statuses(mesh)["good"].status == "RUNNING")
    await asyncio.sleep(60.0)
    (bad,) = statuses(mesh)["bad"].deployments
    assert (bad.status, bad.trigger, statuses(mesh)["bad"].status) == ("UNHEALTHY", "INTERNAL_ERROR", "UNHEALTHY")
    assert f"{step} of this deployment fails" in bad.message
    assert "LookupError: no such thing" in bad.message
    await mesh.run(lambda: application("good", "v2", 3))
    await mesh.until(lambda: len(mesh.cluster.serving("v2")) == 3 and statuses(mesh)["good"].status == "RUNNING")
    assert not mesh.failed
    assert len([record for record in caplog.records if "no such thing" in record.message]) == 1
    await mesh.crash()


def statuses(mesh: Mesh) -> dict[str, control_pb2.ApplicationStatus]:
    return {app.name: app for app in mesh.loop.status().applications}


async def test_a_slow_kv_that_holds_up_the_scaling_of_one_deployment_holds_up_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nor loses the event that says why it is scaled."""
    caplog.set_level(logging.INFO, "mesh")
    mesh = Mesh(seed=1)
    await mesh.boot()
    scaling = control_pb2.AutoscalingOptions(min_replicas=1, max_replicas=9, target_ongoing_requests=2)
    scaling.metrics_interval_s = scaling.look_back_period_s = scaling.upscaling_factor = 1.0
    await mesh.run(lambda: application("app", "v1", 1, autoscaling=scaling))
    await mesh.run(lambda: application("good", "v1", 2))
    await mesh.until(lambda: len(mesh.cluster.serving()) == 3)
    fake_time_loop().thread_delay_s = 30.0
    Caller(mesh).report(8)
    await asyncio.sleep(3.0)
    mesh.cluster.end(next(each for each in mesh.cluster.serving() if each.spec.deployment.app == "good"))  # type: ignore[union-attr]
    await mesh.until(lambda: len(mesh.cluster.serving()) == 3, within_s=8.0)
    assert len(mesh.cluster.replicas()) == 3, "the number is not stored yet"
    await mesh.until(lambda: len(mesh.cluster.serving()) == 6)
    assert not mesh.failed
    await mesh.crash()
    assert len([record for record in caplog.records if "KV is slow" in record.message]) == 1
    assert [line for line in caplog.messages if line.startswith("scaling app/Model from 1 to 4 replicas: target 4:")]


async def test_nothing_is_done_before_it_is_stored() -> None:
    """Nor shown to callers: a controller that dies meanwhile would not know of it (item 189)."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 2)
    await mesh.until(lambda: statuses(mesh)["app"].status == "RUNNING")
    fake_time_loop().thread_delay_s = 5.0
    deploy = asyncio.create_task(mesh.deploy("v2", 2))
    while mesh.stored().applications[0].deployments[0].version == "v1":
        versions = {actor.spec.spec.version for actor in mesh.cluster.replicas()}
        assert (versions, statuses(mesh)["app"].status) == ({"v1"}, "RUNNING")
        await asyncio.sleep(0.1)
    await deploy
    await mesh.until(lambda: len(mesh.cluster.serving("v2")) == 2 and not mesh.cluster.serving("v1"))
    await mesh.crash()
