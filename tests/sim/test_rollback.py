"""A rollback goes back to the version that served before, in fake time, without a gap."""

import functools

import grpc
import pytest

from mesh.controller.desired.changes.desired_change import scaled
from mesh.controller.desired.changes.invalid_change import InvalidChangeError
from mesh.controller.desired.desired_keeper import DesiredKeeper
from mesh.controller.report.loop_metrics import TurnResult
from mesh.status import ApplicationStatus
from mesh.v1 import control_pb2
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import fewest, is_running
from tests.unit.controller.builders import KEY, application


async def test_a_rollback_of_a_version_that_served_replaces_it_without_a_gap() -> None:
    """Also after a restart of the controller; a second rollback goes forward again (items 189, 190)."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    for version in ("v1", "v2"):
        await mesh.deploy(version, 3)
        await mesh.until(lambda version=version: is_running(mesh, version, 3))
    await mesh.until(lambda: not mesh.stored().predecessors)
    await mesh.crash()
    await mesh.boot()
    for version in ("v1", "v2"):
        await mesh.roll_back()
        assert await fewest(lambda: len(mesh.cluster.serving()), for_s=20.0) >= 3
        await mesh.until(lambda version=version: is_running(mesh, version, 3))
        await mesh.until(lambda: not mesh.stored().predecessors)
    await mesh.crash()


async def test_a_rollback_keeps_the_number_that_was_asked_for_since() -> None:
    """Who scales a version that turns out to be slow, and goes back to the one before, has that many of it."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    for version in ("v1", "v2"):
        await mesh.deploy(version, 2)
        await mesh.until(lambda version=version: is_running(mesh, version, 2))
    await mesh.until(lambda: not mesh.stored().predecessors)
    await mesh.ask(lambda: (functools.partial(scaled, key=KEY, num_replicas=6), ()))
    await mesh.until(lambda: is_running(mesh, "v2", 6))
    await mesh.roll_back()
    assert await fewest(lambda: len(mesh.cluster.serving()), for_s=30.0) >= 6
    await mesh.until(lambda: is_running(mesh, "v1", 6))
    await mesh.crash()


async def test_a_rollback_ends_a_rollout_that_failed() -> None:
    """The replicas that have served all the time stay."""
    mesh = Mesh(seed=1)
    mesh.cluster.broken_versions = {"v2"}
    await mesh.boot()
    await mesh.deploy("v1", 3)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    olds = set(mesh.cluster.serving("v1"))
    await mesh.deploy("v2", 3)
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED)
    await mesh.roll_back()
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    assert set(mesh.cluster.serving("v1")) == olds
    await mesh.crash()


async def test_an_update_is_undone_without_the_route_that_another_application_has_since() -> None:
    """A refusal would come again in every turn, and with it nothing would be planned for any application."""
    mesh = await _with_taken_route()
    await mesh.until(lambda: is_serving(mesh, one="v1", two="v1"))
    await mesh.until(lambda: not mesh.stored().predecessors)
    assert {app.name: app.route_prefix for app in mesh.stored().applications} == {"one": "", "two": "/shop"}
    await mesh.run(lambda: application("three", "v1", 1))
    await mesh.until(lambda: is_serving(mesh, one="v1", two="v1", three="v1"))
    assert not mesh.loop.times.turns[TurnResult.FAILED]
    await mesh.crash()


async def test_an_update_that_cannot_be_undone_does_not_keep_others_from_being_deployed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DesiredKeeper, "undoing", lambda *_: _refuse)
    mesh = await _with_taken_route()
    await mesh.until(lambda: is_serving(mesh, two="v1"))
    await mesh.until(lambda: "DEPLOY_FAILED" in [each.status for each in mesh.loop.status().applications])
    await mesh.run(lambda: application("three", "v1", 1))
    await mesh.until(lambda: is_serving(mesh, three="v1"))
    statuses = {each.name: each.status for each in mesh.loop.status().applications}
    assert statuses == {
        "one": ApplicationStatus.DEPLOY_FAILED,
        "two": ApplicationStatus.RUNNING,
        "three": ApplicationStatus.RUNNING,
    }
    await mesh.crash()


def _refuse(state: control_pb2.DesiredState) -> control_pb2.DesiredState:
    raise InvalidChangeError(grpc.StatusCode.ALREADY_EXISTS, "It does not fit.")


async def _with_taken_route() -> Mesh:
    """The update of one application to another route fails, and another application has its former route."""
    mesh = Mesh(seed=1)
    mesh.cluster.broken_versions = {"v2"}
    await mesh.boot()
    await mesh.run(lambda: _routed("one", "v1", "/shop"))
    await mesh.until(lambda: is_serving(mesh, one="v1"))
    await mesh.run(lambda: _routed("one", "v2", "/new"))
    await mesh.run(lambda: _routed("two", "v1", "/shop"))
    return mesh


def _routed(name: str, version: str, route_prefix: str) -> control_pb2.ApplicationSpec:
    app = application(name, version, 1)
    app.route_prefix = route_prefix
    app.deployments[0].options.rollback_on_failure = True
    return app


def is_serving(mesh: Mesh, **versions: str) -> bool:
    """These applications run, with these versions."""
    running = {each.name for each in mesh.loop.status().applications if each.status == ApplicationStatus.RUNNING}
    wanted = {app.name: app.deployments[0].version for app in mesh.stored().applications}
    return versions.keys() <= running and versions.items() <= wanted.items()
