"""Budgets of the controller's pure parts at 10,000 replicas: CPU time of this thread, the best of a few runs.

They are many times what an idle machine needs, and far below what a quadratic algorithm would take. They are seconds of
an idle machine: a core that is shared runs a loop of known cost slower (`slowness`), and may take as much longer here.
"""

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import replace

import pytest

from mesh.cluster import ray_core, ray_placement
from mesh.controller.actors.actor_calls import ActorCalls
from mesh.controller.actors.ray_runtime import RayRuntime
from mesh.controller.actors.registry.actor_registry import ActorRegistry
from mesh.controller.actors.replica_keeper import ReplicaKeeper
from mesh.controller.desired.desired_state import DeploymentTarget, Desired, read_desired
from mesh.controller.event_log import EventLog
from mesh.controller.plan.actions import StartReplica
from mesh.controller.plan.cluster_picture import Node, Observed, Replica
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
from tests.unit.controller.cpu_time import RUNS, cpu_s, measured

SHAPES = [(1, 1, 10_000), (500, 4, 5)]
"""Applications, deployments of each, replicas of each of these: 10,000 in all."""
NODES = tuple(
    Node(node_id=f"n{number}", is_head=number == 0, total={"CPU": 8.0}, available={"CPU": 8.0})
    for number in range(1250)
)
FULL = tuple(replace(node, available={"CPU": 0.0}) for node in NODES)
NOW_S = 1000.0
KEY = DeploymentKey("app0", "D0")


def wanted(shape: tuple[int, int, int], version: str = "v1") -> Desired:
    applications, deployments, replicas = shape
    state = control_pb2.DesiredState()
    for number in range(applications):
        app = state.applications.add(name=f"app{number}", route_prefix=f"/app{number}", ingress="D0")
        for index in range(deployments):
            spec = app.deployments.add(name=f"D{index}", version=version, has_run=version == "v1")
            spec.is_proven = spec.has_run
            spec.options.num_replicas = replicas
            spec.options.max_ongoing_requests = 5
            spec.options.actor.num_cpus = 1
    return read_desired(state)


def replicas_of(desired: Desired, state: ReplicaState = ReplicaState.RUNNING) -> Iterable[Replica]:
    """All that are wanted, spread over the nodes."""
    targets = (target for target in desired.deployments.values() for _ in range(target.num_replicas))
    for number, target in enumerate(targets):
        yield Replica(
            replica_id=f"r{number:05}",
            deployment=target.key,
            version=target.version,
            config_version=target.config_version,
            state=state,
            created_at_s=NOW_S,
            is_placed=state != ReplicaState.STARTING,
            address="10.0.0.1:7000",
            bundles=target.request.bundles,
            bundle_nodes=(NODES[number % len(NODES)].node_id,),
            spec=target.spec,
        )


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
def test_the_turn_that_begins_ten_thousand_starts(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """0.3 s for all of it, 0.45 s for 2,000 deployments: it plans and begins them, logs them as events, and publishes.

    Afterwards they wait, and what else is asked of Ray does not wait for them.
    """
    monkeypatch.setattr(ray_core, "find_actor", lambda name: None)
    monkeypatch.setattr(ray_placement, "list_node_states", lambda: [])
    log, events = logging.getLogger("mesh"), EventLog(lambda: 1.0)
    monkeypatch.setattr(log, "handlers", [events])
    monkeypatch.setattr(log, "propagate", False)
    caplog.set_level(logging.INFO, "mesh")

    async def main() -> float:
        desired, numbers, controller = wanted(shape), itertools.count(), Controller()
        is_over = threading.Event()
        monkeypatch.setattr(ray_core, "spawn_actor", lambda *_, **__: is_over.wait(60))
        registry, runtime = ActorRegistry(lambda: NOW_S, lambda: None), RayRuntime(time.monotonic, time.time)
        registry.see_nodes(NODES)
        tasks: list[asyncio.Task[None]] = []
        keeper = ReplicaKeeper(
            registry,
            runtime,
            ActorCalls(runtime, asyncio.Event().wait),  # type: ignore[arg-type]
            lambda work, name: tasks.append(asyncio.create_task(work, name=name)),
            lambda: f"i{next(numbers)}",
        )
        keeper.desired = desired
        try:
            with measured() as spent:
                for action in plan(desired, registry.observed(), NOW_S, settings().controller).actions:
                    if isinstance(action, StartReplica):
                        keeper.begin(action)
                keeper.log_starts()
                controller.publish(desired, registry.observed())
                await asyncio.sleep(0)
            async with asyncio.timeout(30):
                assert await runtime.nodes() == []
                await runtime.kill("another")
            assert len(registry.observed().replicas) == len(tasks) == 10_000
            assert not any(task.done() for task in tasks)
        finally:
            for task in tasks:
                task.cancel()
            is_over.set()
            await asyncio.gather(*tasks, return_exceptions=True)
        return spent.s

    assert min(asyncio.run(main()) for _ in range(2)) < (0.3 if shape[0] == 1 else 0.45)
    assert any(event.text.startswith("starting ") for event in events.since(0))


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
