"""Two drivers, two controllers and lost keys, in fake time: none undoes the work of another."""

from __future__ import annotations

import asyncio
import functools
import logging

import pytest

from mesh.cluster.keys import STATE_KEY
from mesh.controller.control_loop import LostStateError
from mesh.controller.control_servicer import ControlServicer
from mesh.controller.desired.desired_keeper import DesiredKeeper
from mesh.controller.event_log import EventLog
from mesh.controller.store.desired_store import FencedError, StateStore
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2
from tests.sim.fake_actor import Faults
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running
from tests.unit.controller.builders import application, with_application
from tests.unit.controller.dict_kv import DictKeyValue
from tests.unit.controller.servicer_context import IDENTITY, Aborted, Context


async def test_a_late_retry_does_not_undo_a_newer_deploy() -> None:
    """The controller dies between storing a deploy and answering it; another driver deploys before the retry."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 1)
    await mesh.until(lambda: is_running(mesh, "v1", 1))
    put = mesh.kv.put

    def put_and_die(key: str, value: bytes) -> None:
        put(key, value)
        if key == STATE_KEY and not mesh.life.is_over:
            mesh.life.dies_at_step = mesh.life.steps + 1

    mesh.kv.put = put_and_die  # type: ignore[method-assign]
    first = asyncio.ensure_future(mesh.deploy("first", 1))
    await asyncio.sleep(0.05)
    mesh.kv.put = put  # type: ignore[method-assign]
    assert mesh.stored().applications[0].deployments[0].version == "first"
    assert not first.done()
    while not mesh.is_up:  # noqa: ASYNC110 - before the first driver looks again
        await asyncio.sleep(0.01)
    await mesh.deploy("second", 1)
    await first
    assert mesh.stored().applications[0].deployments[0].version == "second"
    await mesh.until(lambda: is_running(mesh, "second", 1))
    await mesh.crash()


async def test_of_two_people_who_change_what_both_have_read_one_is_refused() -> None:
    """A deploy, a rollback, a scaling and a delete, each after another one's change: it says who that was."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    drivers = Drivers(mesh)
    await drivers.deploy("ann@host", "v1")
    await mesh.until(lambda: is_running(mesh, "v1-of options", 1))
    read = mesh.revision()
    await drivers.deploy("bob@host", "v2", expected=read)
    with pytest.raises(Aborted, match=r"'app' was changed by bob@host at 1970-.* after this change was computed"):
        await drivers.deploy("ann@host", "v3", expected=read)
    await mesh.until(lambda: is_running(mesh, "v2-of options", 1))
    read = mesh.revision()
    await drivers.rollback("ann@host", expected=read)
    with pytest.raises(Aborted, match="changed by ann@host"):
        await drivers.rollback("bob@host", expected=read)
    await mesh.until(lambda: is_running(mesh, "v1-of options", 1))
    read = mesh.revision()
    await drivers.scale("cleo@host", change=2)
    with pytest.raises(Aborted, match=r"changed by cleo@host .*num_replicas: 1 -> 3"):
        await drivers.delete(expected=read)
    await drivers.delete(expected=mesh.revision())
    with pytest.raises(Aborted, match="'app' was deleted"):
        await drivers.deploy("bob@host", "v4", expected=read)
    await mesh.until(mesh.is_without_applications)
    await mesh.crash()


async def changed_by_bob() -> tuple[Mesh, Drivers, int]:
    """Bob has deployed v2 over the v1 of Ann: requests, and the revision that was read between the two."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    drivers = Drivers(mesh)
    await drivers.deploy("ann@host", "v1")
    read = mesh.revision()
    await drivers.deploy("bob@host", "v2")
    return mesh, drivers, read


async def test_a_number_a_pause_and_a_shutdown_of_what_was_changed_meanwhile_are_refused() -> None:
    """Each was decided on what is there no more. What was decided on the present state is done."""
    mesh, drivers, read = await changed_by_bob()
    stored = mesh.stored()
    for late in (
        drivers.scale("ann@host", num_replicas=5, expected=read),
        drivers.pause("ann@host", expected=read),
        drivers.shut_down(expected=read),
        drivers.shut_down(expected=0),
    ):
        with pytest.raises(Aborted, match="changed by bob@host"):
            await late
    assert mesh.stored() == stored
    await drivers.scale("ann@host", num_replicas=5, expected=mesh.revision())
    await drivers.pause("ann@host", expected=mesh.revision())
    assert mesh.stored().applications[0].deployments[0].options.num_replicas == 5
    await drivers.shut_down(expected=mesh.revision())
    await mesh.until(mesh.is_empty)
    await mesh.crash()


async def test_a_backup_replaces_only_what_its_operator_has_seen() -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    drivers = Drivers(mesh)
    await drivers.deploy("ann@host", "v1")
    backup = await mesh.loop.backup(1.0)
    read = mesh.revision()
    await drivers.deploy("bob@host", "v2")
    with pytest.raises(Aborted, match="changed by bob@host"):
        await drivers.restore(backup, expected=read)
    assert mesh.stored().applications[0].deployments[0].version == "v2-of options"
    await drivers.restore(backup, expected=mesh.revision())
    assert mesh.stored().applications[0].deployments[0].version == "v1-of options"
    await mesh.crash()


async def test_a_change_with_an_expected_revision_is_applied_once_when_its_answer_is_lost() -> None:
    """Its own revision is not a conflict for its repetition, also at the next controller."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    drivers = Drivers(mesh)
    await drivers.deploy("ann@host", "v1")
    read = mesh.revision()
    await drivers.scale("ann@host", change=1, request_id="one more")
    await drivers.deploy("ann@host", "v2", expected=mesh.revision(), request_id="the deploy")
    stored = mesh.stored()
    await mesh.crash()
    await mesh.boot()
    await drivers.scale("ann@host", change=1, request_id="one more")
    await drivers.deploy("ann@host", "v2", expected=read, request_id="the deploy")
    assert mesh.stored().applications == stored.applications
    await mesh.crash()


async def test_what_no_one_asked_for_is_no_conflict() -> None:
    """Load, an external scaler, and a replica that came up: a deploy that was computed before them is right."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    drivers = Drivers(mesh)
    rules = control_pb2.AutoscalingOptions(min_replicas=1, max_replicas=9, target_ongoing_requests=1, is_external=True)
    await drivers.deploy("ann@host", "v1", autoscaling=rules)
    read = mesh.revision()
    await mesh.until(lambda: is_running(mesh, "v1-of options", 1))
    await drivers.scale("scaler", num_replicas=3)
    await mesh.until(lambda: is_running(mesh, "v1-of options", 3))
    assert mesh.revision() == read
    await drivers.deploy("ann@host", "v2", autoscaling=rules, expected=read)
    await mesh.until(lambda: is_running(mesh, "v2-of options", 3))
    await mesh.crash()


async def test_who_repeats_what_is_there_already_is_not_refused() -> None:
    mesh, drivers, read = await changed_by_bob()
    await drivers.deploy("ann@host", "v2", expected=read)
    assert mesh.stored().applications[0].deployments[0].version == "v2-of options"
    await drivers.delete(expected=mesh.revision())
    await drivers.delete(expected=read)
    assert not mesh.stored().applications
    await mesh.crash()


class Drivers:
    """Requests as they reach the controller from several programs."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    @property
    def _servicer(self) -> ControlServicer:
        return ControlServicer(self._mesh.loop, self._mesh.publisher, lambda: 12.5, IDENTITY, EventLog(lambda: 12.5))

    async def deploy(
        self,
        author: str,
        version: str,
        expected: int | None = None,
        request_id: str = "",
        autoscaling: control_pb2.AutoscalingOptions | None = None,
    ) -> None:
        app = application("app", f"{version}-of options", 1, autoscaling)
        request = control_pb2.ApplyRequest(
            applications=[app], author=author, request_id=request_id, expected=_revisions(expected)
        )
        await self._servicer.Apply(request, Context())

    async def rollback(self, author: str, expected: int) -> None:
        request = control_pb2.RollbackRequest(application="app", author=author, expected=_revisions(expected))
        await self._servicer.Rollback(request, Context())

    async def scale(
        self,
        author: str,
        num_replicas: int = 0,
        change: int = 0,
        request_id: str = "",
        expected: int | None = None,
    ) -> None:
        request = control_pb2.ScaleRequest(
            application="app",
            deployment="Model",
            num_replicas=num_replicas,
            change=change,
            author=author,
            request_id=request_id,
            expected=_revisions(expected),
        )
        await self._servicer.Scale(request, Context())

    async def pause(self, author: str, expected: int) -> None:
        request = control_pb2.PauseRequest(
            application="app", is_paused=True, author=author, expected=_revisions(expected)
        )
        await self._servicer.Pause(request, Context())

    async def shut_down(self, expected: int) -> None:
        request = control_pb2.ShutdownRequest(expected=_revisions(expected))
        await self._servicer.Shutdown(request, Context())

    async def restore(self, backup: control_pb2.MeshBackup, expected: int) -> None:
        request = control_pb2.RestoreRequest(backup=backup, may_replace=True, expected=_revisions(expected))
        await self._servicer.Restore(request, Context())

    async def delete(self, expected: int) -> None:
        request = control_pb2.DeleteRequest(application="app", expected=_revisions(expected))
        await self._servicer.Delete(request, Context())


def _revisions(revision: int | None) -> control_pb2.ExpectedRevisions | None:
    return None if revision is None else control_pb2.ExpectedRevisions(revisions={"app": revision})


async def test_an_old_controller_that_lives_on_stores_nothing() -> None:
    """Ray took its node for dead; it makes one autoscaling decision more."""
    kv = DictKeyValue()
    old, new = (DesiredKeeper(StateStore(kv), lambda desired: None) for _ in range(2))
    await old.claim()
    await old.load(control_pb2.GatewayOptions())
    scaled = control_pb2.AutoscalingOptions(min_replicas=1, max_replicas=9, target_ongoing_requests=1)
    one, two = application("one", "v1", 1, scaled), application("two", "v1", 1)
    await old.change(functools.partial(with_application, application=one, unix_time_s=0.0), [one])
    await new.claim()
    await new.load(control_pb2.GatewayOptions())
    await new.change(functools.partial(with_application, application=two, unix_time_s=0.0), [two])
    before = dict(kv.entries)
    with pytest.raises(FencedError):
        await old.scale({DeploymentKey("one", "Model"): (1, 2)})
    assert kv.entries == before


async def test_a_controller_that_finds_replicas_but_no_state_touches_nothing() -> None:
    """Its keys were deleted; the replicas serve on."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 5)
    await mesh.until(lambda: is_running(mesh, "v1", 5))
    mesh.kv.entries.clear()
    await mesh.crash()
    with pytest.raises(LostStateError, match="5 replicas live"):
        await mesh.boot()
    await asyncio.sleep(60.0)
    assert len(mesh.cluster.serving()) == 5
    await mesh.crash()


async def test_a_store_that_is_away_is_logged_once_and_ends_no_controller(caplog: pytest.LogCaptureFixture) -> None:
    """It looks every second whether a newer one has started: that it cannot means nothing."""
    caplog.set_level(logging.WARNING, "mesh")
    mesh = Mesh(1)
    await mesh.boot()
    for _ in range(2):
        mesh.cluster.faults = Faults(kv=1.0)
        await asyncio.sleep(30.0)
        mesh.cluster.faults = Faults()
        await asyncio.sleep(30.0)
    said = [record for record in caplog.records if "epoch of the controller" in record.getMessage()]
    assert len(said) == 2
    assert mesh.is_up
    await mesh.crash()
