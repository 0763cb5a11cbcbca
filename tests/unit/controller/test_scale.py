"""Budgets of the controller's pure parts at 10,000 replicas: CPU time of this thread, the best of a few runs.

They are many times what an idle machine needs, and far below what a quadratic algorithm would take. They are seconds of
an idle machine: a core that is shared runs a loop of known cost slower (`slowness`), and may take as much longer here.
"""

import asyncio
from dataclasses import replace

import pytest

from mesh.controller.actors.registry.actor_registry import ActorRegistry
from mesh.controller.desired.changes.desired_change import ConfigSource, undone, with_applications
from mesh.controller.desired.changes.generations import Proofs, with_proofs
from mesh.controller.desired.desired_state import DeploymentTarget, Desired, read_desired
from mesh.controller.plan.actions import StartReplica
from mesh.controller.plan.cluster_picture import Observed
from mesh.controller.plan.planner import plan
from mesh.controller.plan.progress import held_replicas
from mesh.controller.report.mesh_picture import MeshPicture
from mesh.controller.report.publisher import Publisher, Subscriber
from mesh.controller.report.snapshots import SnapshotMemory, build_routes, build_snapshots
from mesh.controller.report.status_judge import StatusJudge
from mesh.controller.report.status_report import build_status
from mesh.controller.scaling.reported_loads import ReportedLoads
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.status import ReplicaState
from mesh.v1 import control_pb2
from tests.unit.controller.builders import application
from tests.unit.controller.cpu_time import RUNS, cpu_s, measured
from tests.unit.controller.ten_thousand import FULL, NODES, NOW_S, SHAPES, replicas_of, wanted

KEY = DeploymentKey("app0", "D0")


class Controller:
    """The pure parts of a turn."""

    def __init__(self) -> None:
        self.judge = StatusJudge()
        self.publisher = Publisher(1)
        self._memory = SnapshotMemory()

    def turn(self, desired: Desired, observed: Observed) -> None:
        plan(desired, observed, NOW_S, settings().controller)
        self.publish(desired, observed)

    def publish(self, desired: Desired, observed: Observed) -> None:
        self.judge.update(desired, observed, NOW_S)
        snapshots = build_snapshots(desired, observed, self.judge.verdicts, memory=self._memory)
        self.publisher.publish(desired, snapshots, build_routes(desired, observed))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_turn_while_ten_thousand_replicas_start(shape: tuple[int, int, int]) -> None:
    """Before the first one has a process, and while all wait for room: 0.3 s, and 0.6 s."""
    desired, controller = wanted(shape), Controller()
    starting = tuple(replicas_of(desired, ReplicaState.STARTING))
    assert cpu_s(lambda: controller.turn(desired, Observed(nodes=NODES))) < 0.3
    assert cpu_s(lambda: controller.turn(desired, Observed(nodes=NODES, replicas=starting))) < 0.3
    homeless = tuple(replace(each, bundle_nodes=()) for each in starting)
    assert cpu_s(lambda: controller.turn(desired, Observed(nodes=FULL, replicas=homeless))) < 0.6


@pytest.mark.parametrize("shape", SHAPES)
def test_a_calm_turn(shape: tuple[int, int, int]) -> None:
    """50 ms, for one deployment and for two thousand, of which each has its own records."""
    desired, controller = wanted(shape), Controller()
    observed = Observed(nodes=FULL, replicas=tuple(replicas_of(desired)))
    controller.turn(desired, observed)
    assert cpu_s(lambda: controller.turn(desired, observed)) < 0.05


@pytest.mark.parametrize("shape", SHAPES)
def test_a_paused_rollout_of_ten_thousand_replicas_that_serve(shape: tuple[int, int, int]) -> None:
    """10 ms more in each turn. It gives time to those replicas only whose user code runs."""
    desired = wanted(shape)
    registry = ActorRegistry(lambda: NOW_S, lambda: None)
    for replica in replicas_of(desired):
        registry.add_replica(replica)
    before = registry.observed().replicas
    paused = replace(desired, deployments={key: held(each) for key, each in desired.deployments.items()})
    assert cpu_s(lambda: registry.hold(held_replicas(paused, registry.observed()))) < 0.01
    assert registry.observed().replicas == before
    updating = replace(before[0], state=ReplicaState.UPDATING)
    registry.add_replica(updating)
    assert held_replicas(paused, registry.observed()) == [updating.replica_id]


def held(target: DeploymentTarget) -> DeploymentTarget:
    """Its rollout is paused."""
    spec = control_pb2.DeploymentSpec()
    spec.CopyFrom(target.spec)
    spec.is_paused = True
    return replace(target, spec=spec, predecessor=replace(target, version="v0"))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_plan_of_a_rollout_on_a_full_cluster(shape: tuple[int, int, int]) -> None:
    """At its begin, and while the first new replicas wait for the room that old ones have to make: 0.3 s each."""
    old = tuple(replicas_of(wanted(shape)))
    desired = wanted(shape, "v2")
    full = Observed(nodes=FULL, replicas=old)
    made = plan(desired, full, NOW_S).actions
    starts = [each for each in made if isinstance(each, StartReplica)]
    assert len(starts) >= 2000
    waiting = [
        replace(old[0], replica_id=f"w{number}", deployment=each.deployment, version="v2", state=ReplicaState.STARTING)
        for number, each in enumerate(starts)
    ]
    homeless = tuple(replace(each, bundle_nodes=(), is_placed=False, created_at_s=0.0) for each in waiting)
    assert cpu_s(lambda: plan(desired, full, NOW_S)) < 0.3
    assert cpu_s(lambda: plan(desired, replace(full, replicas=old + homeless), NOW_S)) < 0.3


async def streams_of(publisher: Publisher, count: int) -> list[Subscriber]:
    """Subscribed, and with the whole first snapshot."""
    hellos = (
        control_pb2.ProcessHello(process_id=f"p{number}", node_id=f"n{number % 100}", reads_changes=True)
        for number in range(count)
    )
    streams = [publisher.open(hello) for hello in hellos]
    for stream in streams:
        publisher.subscribe(stream, [KEY])
        await publisher.next_update(stream)
    return streams


def test_a_thousand_callers_hear_of_one_changed_replica_of_ten_thousand() -> None:
    """20 ms and 2 MiB in all."""

    async def main() -> None:
        desired, controller = wanted(SHAPES[0]), Controller()
        replicas = tuple(replicas_of(desired))
        controller.turn(desired, Observed(nodes=FULL, replicas=replicas))
        streams = await streams_of(controller.publisher, 1000)
        times_s, sizes = [], []
        for lost in range(RUNS):
            observed = Observed(nodes=FULL, replicas=replicas[lost + 1 :])
            snapshots = build_snapshots(desired, observed, controller.judge.verdicts)
            routes = build_routes(desired, observed)
            with measured() as spent:
                controller.publisher.publish(desired, snapshots, routes)
                updates = [await controller.publisher.next_update(stream) for stream in streams]
            times_s.append(spent.s)
            sizes.append(sum(update.ByteSize() for update in updates))
        assert max(sizes) < 2 * 1024 * 1024
        assert min(times_s) < 0.02

    asyncio.run(main())


def test_two_hundred_drains_with_eleven_thousand_streams() -> None:
    """0.2 s. They wait until every stream has the change."""

    async def main() -> None:
        publisher = Publisher(1)
        desired = wanted((1, 1, 3))
        observed = Observed(nodes=FULL, replicas=tuple(replicas_of(desired)))
        routes = build_routes(desired, observed)
        publisher.publish(desired, build_snapshots(desired, observed, {}), routes)
        streams = await streams_of(publisher, 11_000)
        fewer = Observed(nodes=FULL, replicas=observed.replicas[1:])
        publisher.publish(desired, build_snapshots(desired, fewer, {}), routes)
        with measured() as began:
            drains = [asyncio.create_task(publisher.flush()) for _ in range(200)]
            await asyncio.sleep(0)
        for stream in streams:
            await publisher.next_update(stream)
        assert not any(drain.done() for drain in drains)
        readers = [asyncio.create_task(publisher.next_update(stream)) for stream in streams]
        await asyncio.sleep(0)
        with measured() as ended:
            await asyncio.gather(*drains)
        for reader in readers:
            reader.cancel()
        assert began.s + ended.s < 0.2

    asyncio.run(main())


def test_eleven_thousand_streams_come_and_go() -> None:
    """A second for each: a stream looks at those of its node only, and loads are found by their stream."""

    async def main() -> None:
        publisher, loads = Publisher(1), ReportedLoads()
        load = control_pb2.DeploymentLoad(deployment={"app": KEY.app, "name": KEY.name}, ongoing=1.0)
        with measured() as came:
            streams = await streams_of(publisher, 11_000)
        for number, stream in enumerate(streams):
            for _ in range(5):
                loads.report(f"p{number}", stream, load, NOW_S)
        with measured() as went:
            for stream in streams:
                publisher.close(stream)
                loads.forget(stream)
        assert loads.load(KEY).ongoing == 0
        assert came.s < 1.0
        assert went.s < 1.0

    asyncio.run(main())


def test_two_hundred_clients_that_wait_for_an_application_each() -> None:
    """5 % of a core: each asks once a second after a while, for its application only, in a picture made once."""
    desired, controller = wanted(SHAPES[1]), Controller()
    observed = Observed(nodes=FULL, replicas=tuple(replicas_of(desired)))
    controller.turn(desired, observed)
    picture = MeshPicture(desired=desired, observed=observed, verdicts=controller.judge.verdicts, now_s=NOW_S)
    build_status(picture)
    assert cpu_s(lambda: [build_status(picture, (f"app{each}",)).SerializeToString() for each in range(200)]) < 0.05


def test_a_file_of_two_thousand_applications_is_deployed_and_changed_and_deployed_again() -> None:
    """0.5 s for each, also where all versions before have proven themselves. A change is computed twice."""
    file = ConfigSource("the file")

    def deployed(version: str, before: control_pb2.DesiredState) -> control_pb2.DesiredState:
        applications = [application(f"app{number}", version) for number in range(2_000)]
        return with_applications(before, applications, 0.0, file)

    assert cpu_s(lambda: deployed("v1", control_pb2.DesiredState()), runs=2) < 0.5
    state = deployed("v1", control_pb2.DesiredState())
    for app in state.applications:
        app.deployments[0].has_run = app.deployments[0].is_proven = True
    assert cpu_s(lambda: deployed("v2", state), runs=2) < 0.5
    assert cpu_s(lambda: deployed("v1", state), runs=2) < 0.5
    # All are proven, and what they replaced is kept for rollbacks.
    state = deployed("v2", state)
    targets = read_desired(state).deployments.values()
    proofs = Proofs(proven={each.key: (each.version, each.config_version) for each in targets})
    assert len(with_proofs(state, proofs).proven_before) == 2_000
    assert cpu_s(lambda: with_proofs(state, proofs), runs=2) < 0.5


def test_two_thousand_applications_whose_update_fails_go_back_at_once() -> None:
    """0.5 s: a turn that takes longer than a hang is ended, and the next controller would begin it again."""

    def applications(version: str) -> list[control_pb2.ApplicationSpec]:
        return [application(f"app{number}", version) for number in range(2_000)]

    state = with_applications(control_pb2.DesiredState(), applications("v1"), 0.0)
    for app in state.applications:
        app.deployments[0].has_run = app.deployments[0].is_proven = True
    state = with_applications(state, applications("v2"), 0.0)
    reasons = {app.name: "it fails" for app in state.applications}
    assert {app.deployments[0].version for app in undone(state, reasons, 0.0).applications} == {"v1"}
    assert cpu_s(lambda: undone(state, reasons, 0.0), runs=2) < 0.5
