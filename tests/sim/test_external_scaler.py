"""Something outside sets the number of replicas, within the bounds, in fake time."""

import asyncio
import functools

import pytest

from mesh.controller.desired.changes.deploy_history import recorded
from mesh.controller.desired.changes.desired_change import scaled
from mesh.controller.desired.changes.invalid_change import InvalidChangeError
from mesh.options.deployments.autoscaling_options import AutoscalingConfig
from mesh.v1 import control_pb2
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running
from tests.unit.controller.builders import KEY, application


async def scale(mesh: Mesh, num_replicas: int) -> None:
    await mesh.ask(lambda: (functools.partial(scaled, key=KEY, num_replicas=num_replicas), ()))


async def test_an_external_scaler_sets_the_number_within_the_bounds() -> None:
    """Neither time without load, nor a restart of the controller, nor another deploy changes it (items 234, 246)."""
    rules = AutoscalingConfig(min_replicas=1, max_replicas=6, external_scaler=True, downscale_delay_s=1).to_message()
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 1, autoscaling=rules)
    await mesh.until(lambda: is_running(mesh, "v1", 1))
    for asked, number in ((4, 4), (100, 6), (0, 1), (3, 3)):
        await scale(mesh, asked)
        await mesh.until(lambda number=number: is_running(mesh, "v1", number))
    await asyncio.sleep(300.0)
    assert is_running(mesh, "v1", 3)
    await mesh.crash()
    await mesh.boot()
    await mesh.deploy("v2", 1, autoscaling=rules)
    await mesh.until(lambda: is_running(mesh, "v2", 3))
    await mesh.crash()


def test_many_changes_of_a_scaler_leave_the_deploys_in_the_history() -> None:
    state = control_pb2.DesiredState(applications=[application()])
    state.history.add(application="app", lines=["new"])
    for number in range(3, 30):
        edit = functools.partial(scaled, key=KEY, num_replicas=number)
        state = recorded(edit, float(number), "scaler", is_scaling=True)(state)
    assert [(each.is_scaling, each.unix_time_s) for each in state.history] == [(False, 0.0), (True, 29.0)]


def test_a_deployment_that_follows_its_load_is_refused_with_advice() -> None:
    app = application(autoscaling=AutoscalingConfig(max_replicas=3).to_message())
    with pytest.raises(InvalidChangeError, match="external_scaler in its autoscaling_config"):
        scaled(control_pb2.DesiredState(applications=[app]), KEY, 2)


def test_a_policy_and_an_external_scaler_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        AutoscalingConfig(max_replicas=3, policy="a.b:c", external_scaler=True)
