"""Backups of the desired state and their restoration, by the real controller in fake time."""

import functools

import grpc
import pytest

from mesh.cluster.keys import CODE_PREFIX, DESCRIPTORS_PREFIX
from mesh.controller.control_servicer import ControlServicer
from mesh.controller.event_log import EventLog
from mesh.controller.nodes.cordons import cordoned, uncordoned
from mesh.stored.backup_file import from_file, to_file
from mesh.stored.schema_version import SCHEMA_VERSION
from mesh.v1 import control_pb2
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import counts, fewest, is_running
from tests.unit.controller.builders import application
from tests.unit.controller.servicer_context import IDENTITY, Aborted, Context


def servicer(mesh: Mesh) -> ControlServicer:
    return ControlServicer(mesh.loop, mesh.publisher, lambda: 12.5, IDENTITY, EventLog(lambda: 12.5))


async def saved_by(mesh: Mesh) -> control_pb2.MeshBackup:
    """As it comes out of the file."""
    reply = await servicer(mesh).Backup(control_pb2.BackupRequest(author="ann@host"), Context())
    return from_file(to_file(reply), "shop.backup")


async def restore(mesh: Mesh, saved: control_pb2.MeshBackup, **fields: bool) -> control_pb2.ApplyReply:
    request = control_pb2.RestoreRequest(author="bob@host", **fields)
    request.backup.CopyFrom(saved)
    return await servicer(mesh).Restore(request, Context())


async def deploy(mesh: Mesh, *applications: control_pb2.ApplicationSpec, config_file: str | None = None) -> None:
    request = control_pb2.ApplyRequest(applications=applications, author="ann@host", config_file=config_file)
    await servicer(mesh).Apply(request, Context())


async def test_an_empty_mesh_serves_again_what_was_backed_up() -> None:
    """Applications with their code, options, file and history, and with their way back (item 182)."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    await deploy(mesh, application(version="v1-o", num_replicas=1), config_file="the file")
    await mesh.until(lambda: is_running(mesh, "v1-o", 1))
    await deploy(mesh, application(version="v2-o", num_replicas=1), config_file="the file")
    await mesh.until(lambda: is_running(mesh, "v2-o", 1) and not mesh.stored().predecessors)
    scale = control_pb2.ScaleRequest(application="app", deployment="Model", num_replicas=3)
    await servicer(mesh).Scale(scale, Context())
    saved = await saved_by(mesh)
    code = {key: value for key, value in mesh.kv.entries.items() if key.startswith(CODE_PREFIX)}
    await mesh.crash()

    other = Mesh(seed=2)
    await other.boot()
    await restore(other, saved)
    await other.until(lambda: is_running(other, "v2-o", 3))
    assert {key: value for key, value in other.kv.entries.items() if key.startswith(CODE_PREFIX)} == code
    stored = other.stored()
    assert stored.config_file == "the file"
    assert stored.applications[0].deployer == control_pb2.DEPLOYER_FILE
    assert [each.revision for each in stored.proven_before] == [0], "that of the other mesh means nothing here"
    history = (await servicer(other).History(control_pb2.HistoryRequest(application="app"), Context())).records
    assert [(each.is_restore, each.author) for each in history] == [
        (True, "bob@host"),
        (False, ""),
        (False, "ann@host"),
        (False, "ann@host"),
    ]
    await servicer(other).Rollback(control_pb2.RollbackRequest(application="app"), Context())
    await other.until(lambda: is_running(other, "v1-o", 3))
    await other.crash()


async def test_an_update_that_failed_comes_back_as_it_was() -> None:
    """The version before serves, and not the failed one alone."""
    mesh = Mesh(seed=1)
    mesh.cluster.broken_versions = {"v2-o"}
    await mesh.boot()
    await deploy(mesh, application(version="v1-o"))
    await mesh.until(lambda: is_running(mesh, "v1-o", 2))
    await deploy(mesh, application(version="v2-o"))
    await mesh.until(lambda: mesh.app_status() == "DEPLOY_FAILED")
    saved = await saved_by(mesh)
    await mesh.crash()

    other = Mesh(seed=2)
    other.cluster.broken_versions = {"v2-o"}
    await other.boot()
    await restore(other, saved)
    await other.until(lambda: len(other.cluster.serving("v1-o")) == 2)
    await servicer(other).Rollback(control_pb2.RollbackRequest(application="app"), Context())
    await other.until(lambda: is_running(other, "v1-o", 2))
    assert not other.cluster.serving("v2-o")
    assert [each.version for each in other.stored().applications[0].deployments] == ["v1-o"]
    await other.crash()


async def test_what_runs_is_replaced_only_by_request_and_without_a_gap() -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    await deploy(mesh, application(version="v1-o"), application("stays", "s-o", 1))
    await mesh.until(lambda: len(mesh.cluster.serving()) == 3)
    saved = await saved_by(mesh)
    assert not any(each.lines for each in (await restore(mesh, saved)).changes), "as it is already"
    del saved.state.applications[1]
    await deploy(mesh, application(version="v2-o"))
    await mesh.until(lambda: len(mesh.cluster.serving("v2-o")) == 2 and len(mesh.cluster.serving()) == 3)
    before = mesh.stored()
    with pytest.raises(Aborted, match="The mesh runs 'app' already, and not as in the backup") as caught:
        await restore(mesh, saved)
    assert caught.value.code == grpc.StatusCode.ALREADY_EXISTS
    shown = await restore(mesh, saved, may_replace=True, is_dry_run=True)
    assert {each.application: bool(each.lines) for each in shown.changes} == {"app": True, "stays": False}
    assert mesh.stored() == before, "neither a refusal nor a dry run stores anything"
    await restore(mesh, saved, may_replace=True)
    await mesh.until(lambda: len(mesh.cluster.serving("v1-o")) == 2 and len(mesh.cluster.serving()) == 3)
    assert len(mesh.cluster.serving("s-o")) == 1
    await mesh.crash()


async def test_all_applications_are_restored_or_none() -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    await deploy(mesh, application("one", "v1-o", 1), application("two", "v2-o", 1))
    saved = await saved_by(mesh)
    await mesh.crash()

    other = Mesh(seed=2)
    await other.boot()
    taken = application("another", "a-o", 1)
    taken.route_prefix = "/two"
    await deploy(other, taken)
    before = dict(other.kv.entries)
    with pytest.raises(Aborted, match="Route prefix '/two' belongs to application 'another'"):
        await restore(other, saved)
    saved.contents.pop(next(iter(saved.contents)))
    with pytest.raises(Aborted, match="The backup is not whole: code/"):
        await restore(other, saved)
    saved.state.schema_version = SCHEMA_VERSION + 1
    with pytest.raises(Aborted, match="The backup was written by a newer version of the mesh"):
        await restore(other, saved)
    assert other.kv.entries == before
    await other.crash()


async def test_a_canary_and_what_follows_its_load_come_back_with_their_numbers() -> None:
    rules = control_pb2.AutoscalingOptions(min_replicas=1, max_replicas=9, target_ongoing_requests=1, is_external=True)
    mesh = Mesh(seed=1)
    await mesh.boot()
    await deploy(mesh, application(version="v1-o", autoscaling=rules))
    scale = control_pb2.ScaleRequest(application="app", deployment="Model", num_replicas=5)
    await servicer(mesh).Scale(scale, Context())
    await mesh.until(lambda: len(mesh.cluster.serving("v1-o")) == 5)
    canary = application(version="v2-o", autoscaling=rules)
    canary.traffic.percent = 20.0
    await deploy(mesh, canary)
    await mesh.until(lambda: len(mesh.cluster.serving("v2-o")) == 1)
    saved = await saved_by(mesh)
    await mesh.crash()

    other = Mesh(seed=2)
    await other.boot()
    await restore(other, saved)
    await other.until(lambda: len(other.cluster.serving("v1-o")) == 5 and len(other.cluster.serving("v2-o")) == 1)
    ((restored,), (canary,)) = other.stored().applications, other.stored().canaries
    assert (restored.deployments[0].options.num_replicas, canary.traffic.percent) == (5, 20.0)
    await other.crash()


async def test_a_canary_that_was_promoted_since_does_not_keep_its_application_from_being_restored() -> None:
    """The version that it was beside replaces it, without a gap, and a rollback goes back to it."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    await deploy(mesh, application())
    await mesh.until(lambda: is_running(mesh, "v1", 2))
    canary = application(version="c1")
    canary.traffic.percent = 50.0
    await deploy(mesh, canary)
    await mesh.until(lambda: counts(mesh) == {"v1": 2, "c1": 1})
    saved = await saved_by(mesh)
    await servicer(mesh).Promote(control_pb2.PromoteRequest(application="app"), Context())
    await mesh.until(lambda: is_running(mesh, "c1", 2) and not mesh.stored().predecessors)
    await restore(mesh, saved, may_replace=True)
    assert await fewest(lambda: len(mesh.cluster.serving()), for_s=30.0) >= 2
    await mesh.until(lambda: is_running(mesh, "v1", 2) and not mesh.stored().predecessors)
    assert not mesh.stored().canaries
    await servicer(mesh).Rollback(control_pb2.RollbackRequest(application="app"), Context())
    await mesh.until(lambda: is_running(mesh, "c1", 2))
    await mesh.crash()


async def test_a_restore_leaves_cordons_as_they_are() -> None:
    """They are about nodes of the cluster as it was."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    await deploy(mesh, application("one", "v1", 1))
    await mesh.ask(lambda: (functools.partial(cordoned, cordon=control_pb2.Cordon(node_id="n1")), ()))
    saved = await saved_by(mesh)
    assert [each.node_id for each in saved.state.cordons] == ["n1"]
    await mesh.ask(lambda: (functools.partial(uncordoned, node_ids=("n1",)), ()))
    await mesh.ask(lambda: (functools.partial(cordoned, cordon=control_pb2.Cordon(node_id="n2")), ()))
    await restore(mesh, saved, may_replace=True)
    assert [each.node_id for each in mesh.stored().cordons] == ["n2"]
    await mesh.crash()


async def test_code_that_is_lost_makes_no_backup() -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    await deploy(mesh, application(version="v1-o"))
    for key in mesh.kv.keys(CODE_PREFIX):
        mesh.kv.delete(key)
    with pytest.raises(Aborted, match="The code of app/Model is gone") as caught:
        await saved_by(mesh)
    assert caught.value.code == grpc.StatusCode.FAILED_PRECONDITION
    await mesh.crash()


async def test_descriptors_that_are_lost_make_no_backup() -> None:
    """It could not be restored."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    described = application(version="v1-o")
    described.descriptors = b"a file descriptor set"
    await deploy(mesh, described)
    await saved_by(mesh)
    for key in mesh.kv.keys(DESCRIPTORS_PREFIX):
        mesh.kv.delete(key)
    with pytest.raises(Aborted, match="The set of gRPC descriptors of app is gone") as caught:
        await saved_by(mesh)
    assert caught.value.code == grpc.StatusCode.FAILED_PRECONDITION
    await mesh.crash()


async def test_a_route_that_a_version_before_has_given_away_does_not_keep_it_from_coming_back() -> None:
    """Two applications had the same route one after the other, and both are being updated to another one."""
    mesh = Mesh(seed=1)
    mesh.cluster.broken_versions = {"v2-o"}
    await mesh.boot()
    for name in ("one", "two"):
        old, new = routed(name, "v1-o", "/shared"), routed(name, "v2-o", f"/{name}")
        await deploy(mesh, old)
        await mesh.until(lambda name=name: name in proven(mesh))  # type: ignore[misc]
        await deploy(mesh, new)
    saved = await saved_by(mesh)
    assert [app.route_prefix for app in saved.state.predecessors] == ["/shared"] * 2
    await mesh.crash()

    other = Mesh(seed=2)
    other.cluster.broken_versions = {"v2-o"}
    await other.boot()
    taken = routed("another", "a-o", "/shared")
    await deploy(other, taken)
    await restore(other, saved)
    await other.until(lambda: len(other.cluster.serving("v1-o")) == 2)
    assert {app.name: app.route_prefix for app in other.stored().predecessors} == {"one": "/shared", "two": "/shared"}
    await other.crash()


def routed(name: str, version: str, route_prefix: str) -> control_pb2.ApplicationSpec:
    app = application(name, version, 1)
    app.route_prefix = route_prefix
    return app


def proven(mesh: Mesh) -> set[str]:
    return {app.name for app in mesh.stored().applications if all(each.is_proven for each in app.deployments)}
