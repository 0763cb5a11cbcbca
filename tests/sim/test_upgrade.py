"""An upgrade of the mesh in fake time: this version's controller takes over what an earlier one has stored and started.

Replicas and gateways go on with the code of the earlier version until they end, so all that they and the controller say
to each other passes through its messages, which drop what they do not know.
"""

import asyncio
from typing import Any

import pytest

from mesh.controller.actors.cluster_runtime import MethodMissingError
from mesh.controller.control_servicer import ControlServicer
from mesh.controller.event_log import EventLog
from mesh.stored.schema_version import SCHEMA_VERSION
from mesh.v1 import control_pb2
from tests.released_mesh import RELEASES, Release
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running
from tests.unit.controller.builders import KEY
from tests.unit.controller.servicer_context import IDENTITY, Context

releases = pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)


class ReleasedCluster(FakeCluster):
    """Its actors run the code of an earlier version."""

    def __init__(self, seed: int, release: Release) -> None:
        super().__init__(seed)
        self._release = release
        self.is_of_release = True
        """False: those of this version, once its code is installed."""
        self._old_actors: set[str] = set()
        self.passed = 0

    async def spawn_replica(self, name: str, spec: control_pb2.ReplicaSpec, assignment: Any) -> None:
        if self.is_of_release:
            self._old_actors.add(name)
            spec = self._passed(spec)
        await super().spawn_replica(name, spec, assignment)

    async def spawn_gateway(self, name: str, spec: control_pb2.GatewaySpec) -> None:
        if self.is_of_release:
            self._old_actors.add(name)
            spec = self._passed(spec)
        await super().spawn_gateway(name, spec)

    async def call(self, name: str, method: str, *arguments: bytes) -> bytes | None:
        if name not in self._old_actors:
            return await super().call(name, method, *arguments)
        if method not in self._release.methods[f"{name.partition('::')[0]}::"]:
            raise MethodMissingError(f"no {method}")
        if method == "reconfigure":
            arguments = tuple(
                self._passed(control_pb2.ReplicaSpec.FromString(each)).SerializeToString() for each in arguments
            )
        answer = await super().call(name, method, *arguments)
        if method in ("start", "describe") and answer:
            is_gateway = isinstance(self.actors[name].spec, control_pb2.GatewaySpec)
            kind: Any = control_pb2.GatewayReady if is_gateway else control_pb2.ReplicaReady
            answer = self._passed(kind.FromString(answer)).SerializeToString()
        return answer

    def _passed(self, message: Any) -> Any:
        self.passed += 1
        return self._release.passed_on(message)


def servicer(mesh: Mesh) -> ControlServicer:
    return ControlServicer(mesh.loop, mesh.publisher, lambda: 99.0, IDENTITY, EventLog(lambda: 99.0))


@releases
async def test_the_stored_state_of_an_earlier_version_serves_on(release: Release) -> None:
    """Both generations of what was being updated, numbers, pauses, history and the way back."""
    mesh = Mesh(seed=1)
    mesh.cluster.broken_versions = {"failed-o"}
    mesh.kv.entries.update(release.stored())
    written = control_pb2.DesiredState.FromString(mesh.kv.entries["controller/state"])
    await mesh.boot()
    serving = mesh.cluster.serving
    await mesh.until(lambda: len(serving("good-o")) == 2 and len(serving("only-o")) == 4)
    await mesh.until(lambda: len(serving("two-o")) == 3 and len(serving("canary-o")) == 1)
    assert mesh.loop.config_file == "the file"
    calls = servicer(mesh)
    revisions = {
        app.name: app.revision for app in (await calls.Status(control_pb2.StatusRequest(), Context())).applications
    }
    assert revisions.keys() == {"failing", "scaled", "updated"}
    assert all(0 < each <= written.version for each in revisions.values())
    history = await calls.History(control_pb2.HistoryRequest(application="updated"), Context())
    assert [record.lines[0] for record in history.records][-1] == "updated: new"
    late = control_pb2.ScaleRequest(application="scaled", deployment="Model", num_replicas=1, request_id="scale")
    await calls.Scale(late, Context())
    assert len(serving("only-o")) == 4, "a request that the earlier controller has stored is repeated to this one"
    await calls.Promote(control_pb2.PromoteRequest(application="updated"), Context())
    await calls.Pause(control_pb2.PauseRequest(application="updated"), Context())
    await mesh.until(lambda: len(serving("canary-o")) == 3 and not serving("two-o"))
    assert mesh.stored().schema_version == SCHEMA_VERSION
    expected = control_pb2.ExpectedRevisions(revisions={"failing": revisions["failing"]})
    await calls.Rollback(control_pb2.RollbackRequest(application="failing", expected=expected), Context())
    await mesh.until(lambda: {app.status for app in mesh.loop.status().applications} == {"RUNNING"})
    await mesh.crash()


@releases
async def test_replicas_and_gateways_of_an_earlier_version_are_adopted_and_replaced(release: Release) -> None:
    """They serve on under the new controller, adopt another configuration, and stop for a new version as ever."""
    cluster = ReleasedCluster(1, release)
    mesh = Mesh(seed=1, cluster=cluster)
    await mesh.boot()
    await mesh.deploy("v1", 3)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    olds = {actor.name for actor in cluster.actors.values()}
    assert len(olds) == 4, "and the gateway"
    await mesh.crash()
    cluster.is_of_release = False  # this version is installed, and its controller starts
    await mesh.boot()
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    await mesh.deploy("v1", 4, user_config_json="{}")
    await mesh.until(lambda: is_running(mesh, "v1", 4))
    assert olds < cluster.actors.keys()
    assert all(actor.spec.spec.options.user_config_json == "{}" for actor in cluster.replicas())
    await mesh.deploy("v2", 3)
    await mesh.until(lambda: is_running(mesh, "v2", 3))
    assert len(olds & cluster.actors.keys()) == 1, "the gateway"
    assert cluster.passed > 10
    await mesh.shut_down()
    await mesh.until(mesh.is_empty)
    await mesh.crash()


@releases
async def test_a_process_of_an_earlier_version_gets_its_snapshots(release: Release) -> None:
    """Whole ones first, then their changes, on a stream whose messages drop what it does not know."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 2)
    await mesh.until(lambda: is_running(mesh, "v1", 2))
    context = Context()
    hello = control_pb2.ProcessHello(process_id="old", kind=control_pb2.PROCESS_KIND_GATEWAY, reads_changes=True)
    key = {"app": KEY.app, "name": KEY.name}
    await context.reports.put(release.passed_on(control_pb2.Report(hello=hello, subscribe=[key])))
    load = control_pb2.DeploymentLoad(deployment=key, queued=1.0, ongoing=2.0)
    await context.reports.put(release.passed_on(control_pb2.Report(loads=[load])))
    stream = asyncio.create_task(servicer(mesh).Sync(None, context), name="the stream of an old gateway")
    first = release.passed_on(await context.updates.get())
    assert [len(each.replicas) for each in first.snapshots] == [2]
    assert [route.app for route in first.routes.routes] == ["app"]
    known = {each.replica_id for each in first.snapshots[0].replicas}
    await mesh.deploy("v1", 3)
    while len(known) < 3:
        update = release.passed_on(await context.updates.get())
        for snapshot in update.snapshots:
            known = known if snapshot.changes_version else set()
            known |= {each.replica_id for each in snapshot.replicas}
            known -= set(snapshot.removed_replica_ids)
    assert all(actor.spec.replica_id in known for actor in mesh.cluster.serving())
    stream.cancel()
    await asyncio.wait([stream])
    await mesh.crash()
