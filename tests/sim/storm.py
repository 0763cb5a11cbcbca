"""A mesh under random faults, by a seed: what is asked for, what dies, and what must hold all the while.

`.venv/bin/python -m tests.sim.storm SEED` replays one seed, exactly, and prints what happened.
"""

import asyncio
import contextlib
import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mesh.controller.actors.cluster_runtime import ActorUnreachableError
from mesh.controller.desired.desired_state import Desired
from mesh.controller.plan.replica_placement import NodeAssignment
from mesh.controller.report.publisher import Publisher
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.v1 import control_pb2
from tests.sim.fake_actor import Actor, Faults
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.fake_time import run_in_fake_time
from tests.sim.goals import is_running, listed
from tests.sim.listener import Listener
from tests.sim.traffic import Caller
from tests.unit.controller.builders import application

STEPS = 6
STEP_S = 8.0
CALM_SIZE = 3
CALLS_PER_REPLICA = 2.0
AUTOSCALED_EVERY = 4
"""One seed out of this many has a deployment that autoscales."""
ENDLESS_S = 3600.0
OUTAGES = 0.4
"""Share of the steps during which all constructors fail."""
STORMY = Faults(
    spawn=0.1,
    constructor=0.1,
    hang_in_drain=0.2,
    sick=0.2,
    lost=0.03,
    late=0.05,
    twice=0.05,
    slow_constructor=0.1,
    kv=0.05,
)


def weather(seed: int) -> str:
    """What went wrong in the run of a seed, empty when nothing did."""
    run = Storm(seed)
    try:
        run_in_fake_time(asyncio.wait_for(run.rage(), ENDLESS_S))
    except TimeoutError:
        return f"did not come to rest: {run.mesh.loop.status()}"
    except AssertionError as error:
        return str(error) or repr(error)
    return run.cluster.complaints()


def aftermath(seed: int) -> str:
    """What is wrong after the storm of a seed when no one deploys again, empty when nothing is."""
    run = Storm(seed)
    try:
        run_in_fake_time(asyncio.wait_for(run.abate(), ENDLESS_S))
    except TimeoutError:
        return f"did not come back: {run.mesh.stored().predecessors} {run.mesh.loop.status()}"
    return ""


def history(seed: int) -> list[str]:
    """Everything that happened in the run of a seed."""
    run = Storm(seed)
    with contextlib.suppress(TimeoutError, AssertionError):
        run_in_fake_time(asyncio.wait_for(run.rage(), ENDLESS_S))
    return run.cluster.history


@dataclass
class Wish:
    """What was asked for last."""

    version: str = "v0"
    num_replicas: int = 2
    user_config: str = "{}"
    is_autoscaled: bool = False
    """Then `num_replicas` are the most there may be."""
    min_replicas: int = 0

    def spec(self) -> control_pb2.ApplicationSpec:
        app = application(version=self.version, num_replicas=self.num_replicas)
        app.deployments[0].options.user_config_json = self.user_config
        if self.is_autoscaled:
            app.deployments[0].options.autoscaling.CopyFrom(self._scaling())
        return app

    def _scaling(self) -> control_pb2.AutoscalingOptions:
        return control_pb2.AutoscalingOptions(
            min_replicas=min(self.min_replicas, self.num_replicas),
            max_replicas=self.num_replicas,
            target_ongoing_requests=CALLS_PER_REPLICA,
            metrics_interval_s=1.0,
            look_back_period_s=2.0,
            upscaling_factor=1.0,
            downscaling_factor=1.0,
            upscale_delay_s=0.5,
            downscale_delay_s=2.0,
            downscale_to_zero_delay_s=3.0,
            aggregation=control_pb2.AGGREGATION_MEAN,
        )


class Storm:
    def __init__(self, seed: int) -> None:
        self.cluster = RecordedCluster(seed)
        self.mesh = Mesh(seed, cluster=self.cluster, make_publisher=self._publisher)
        self.cluster.mesh = self.mesh
        self._wish = Wish(is_autoscaled=seed % AUTOSCALED_EVERY == 0)

    async def rage(self) -> None:
        mesh = self.mesh
        await mesh.boot()
        caller = Caller(mesh, interval_s=1.0) if self._wish.is_autoscaled else None
        mesh.cluster.faults = STORMY
        for step in range(STEPS):
            await self._something_happens(step)
            if caller is not None:
                self._load_changes(caller)
            await asyncio.sleep(mesh.cluster.random.uniform(0.0, STEP_S))
        mesh.cluster.faults = Faults()
        # What was given up in the storm is tried again when it is deployed again.
        self._wish.num_replicas = CALM_SIZE
        await mesh.run(self._wish.spec)
        if caller is not None:
            caller.report(CALM_SIZE * CALLS_PER_REPLICA)
        await mesh.until(lambda: is_running(mesh, self._wish.version, CALM_SIZE))
        await mesh.shut_down()
        # An actor whose start was reported as failed is found only when it is looked for.
        await mesh.until(lambda: mesh.is_empty() and not mesh.cluster.actors)
        assert mesh.kv.keys("code/") == []
        assert not mesh.failed, mesh.failed
        if caller is not None:
            caller.fall_silent()
        await mesh.crash()

    async def abate(self) -> None:
        """A version that ever ran serves again by itself, also after outages of what constructors need."""
        mesh = self.mesh
        self._wish.is_autoscaled = False
        await mesh.boot()
        await mesh.run(self._wish.spec)
        await asyncio.sleep(20.0)
        for step in range(STEPS):
            is_outage = mesh.cluster.random.random() < OUTAGES
            mesh.cluster.faults = replace(STORMY, constructor=1.0 if is_outage else STORMY.constructor)
            await self._something_happens(step)
            await asyncio.sleep(mesh.cluster.random.uniform(0.0, STEP_S))
        mesh.cluster.faults = Faults()
        await mesh.until(self._serves_again, within_s=400.0)
        await mesh.crash()

    def _serves_again(self) -> bool:
        """As many replicas as the version that last worked had, or the one that is wanted has."""
        state = self.mesh.stored()
        generations = [app.deployments[0] for app in (*state.predecessors, *state.applications)]
        has_run = any(spec.has_run for spec in generations)
        return not has_run or len(listed(self.mesh)) >= min(spec.options.num_replicas for spec in generations)

    async def _something_happens(self, step: int) -> None:
        mesh, dice = self.mesh, self.mesh.cluster.random
        match dice.randrange(10):
            case 0 | 1:
                self._wish.version = f"v{step + 1}"
                self._wish.num_replicas = dice.randint(1, 4)
                await mesh.run(self._wish.spec)
            case 2:
                self._wish.num_replicas = dice.randint(1, 4)
                await mesh.run(self._wish.spec)
            case 3:
                self._wish.user_config = f"[{step}]"
                await mesh.run(self._wish.spec)
            case 4:
                await mesh.delete()
            case 5 | 6 if mesh.cluster.actors:
                mesh.cluster.end(dice.choice(list(mesh.cluster.actors.values())))
            case 7:
                self._lose_or_add_a_node()
            case 8:
                await mesh.crash()
                await mesh.boot()
            case _:
                mesh.life.dies_at_step = mesh.life.steps + dice.randint(1, 50)

    def _load_changes(self, caller: Caller) -> None:
        dice = self.cluster.random
        self._wish.min_replicas = dice.randint(0, 2)
        caller.report(dice.choice([0.0, 0.0, 1.0, dice.uniform(0.0, 10.0)]))

    def _lose_or_add_a_node(self) -> None:
        cluster = self.mesh.cluster
        others = [node_id for node_id in cluster.cpus if node_id != cluster.head]
        if others:
            cluster.lose_node(others[0])
        else:
            cluster.cpus["n2"] = cluster.cpus[cluster.head]

    def _publisher(self, first_version: int) -> Publisher:
        return WatchedPublisher(first_version, self.mesh)


class RecordedCluster(FakeCluster):
    """Writes down what happens, and what must not."""

    def __init__(self, seed: int, *, cpus: Mapping[str, float] | None = None) -> None:
        super().__init__(seed, cpus=cpus)
        self.listeners: Sequence[Listener] = ()
        self.history: list[str] = []
        self.wrongs: list[str] = []
        self.mesh: Mesh | None = None
        self.blamed: set[str] = set()
        """Actors that have failed as many health checks in a row as end a replica, or their start. Not those of which a
        message was lost, nor those that refuse a configuration: they are to serve on."""
        self._failed_checks: Counter[str] = Counter()
        """In a row."""

    async def spawn_replica(self, name: str, spec: control_pb2.ReplicaSpec, assignment: NodeAssignment) -> None:
        self.note(f"spawn {name} {spec.spec.version}")
        self._check_surge(spec)
        await super().spawn_replica(name, spec, assignment)

    async def call(self, name: str, method: str, *arguments: bytes) -> bytes | None:
        self.note(f"{method} {name}")
        if method == "drain" and name in self.actors:
            self._check_heard(self.actors[name])
        try:
            answer = await super().call(name, method, *arguments)
        except BaseException as error:  # a check that takes too long is cancelled
            self._failed_checks[name] += method == "check_health"
            is_failed_start = method == "start" and not isinstance(error, ActorUnreachableError)
            if is_failed_start or self._failed_checks[name] >= settings().controller.health_failures_max:
                self.blamed.add(name)
            raise
        if method == "check_health":
            del self._failed_checks[name]
        return answer

    def end(self, actor: Actor) -> None:
        self.note(f"end {actor.name}")
        super().end(actor)

    def note(self, what: str) -> None:
        self.history.append(f"{asyncio.get_running_loop().time():9.3f} {what}")

    def wrong(self, what: str) -> None:
        self.note(f"WRONG: {what}")
        self.wrongs.append(self.history[-1])

    def complaints(self) -> str:
        return "\n".join(self.wrongs)

    def _check_heard(self, actor: Actor) -> None:
        """A replica drains when all that listen have heard that it gets no more calls."""
        assert self.mesh is not None
        if not isinstance(actor.spec, control_pb2.ReplicaSpec):
            return
        key = DeploymentKey(actor.spec.deployment.app, actor.spec.deployment.name)
        late = [
            each
            for each in self.listeners
            if each.may_call(key, actor.spec.replica_id) and self._can_reach(self.mesh, each)
        ]
        if late:
            self.wrong(f"{actor.name} drains, and {late} would call it")

    @staticmethod
    def _can_reach(mesh: Mesh, listener: Listener) -> bool:
        """The controller that drains something can say so to the processes that are with it, or with none.

        Not to those that are with another one which lives on: neither of the two knows those of the other, for as long
        as the older one has not read in the store, which may be slow, that there is a newer one.
        """
        drainer = mesh.acting()
        return listener.follows is drainer or (listener.follows is None and drainer is mesh.publisher)

    def _check_surge(self, started: control_pb2.ReplicaSpec) -> None:
        """No replica starts beyond the number and the surge of what it is of: a canary, or all that is beside it."""
        assert self.mesh is not None
        key, desired = DeploymentKey(started.deployment.app, started.deployment.name), self.mesh.loop._wanted.desired
        is_canary = _is_of_canary(desired, key, started.spec.version)
        target = desired.canaries[key] if is_canary else desired.deployments.get(key) or desired.retained.get(key)
        if target is None or self.mesh.acting() is not self.mesh.publisher:
            return  # deleted since the start was decided; or by a controller that knows no better
        replicas = [each for each in self.mesh.loop._registry.observed().replicas if each.deployment == key]
        ours = (desired.of_canary if is_canary else desired.beside_canaries)(key, replicas)
        staying = sum(not each.is_leaving and not each.is_migrating for each in ours)
        if staying > target.num_replicas + target.pace.surge_max:
            which = "the canary of " if is_canary else ""
            self.wrong(f"{which}{key} has {staying} replicas where {target.num_replicas} are wanted")


class WatchedPublisher(Publisher):
    """Checks the snapshots: healthy replicas leave them only when enough are left."""

    def __init__(self, first_version: int, mesh: Mesh) -> None:
        super().__init__(first_version)
        self._mesh = mesh
        self._listed: dict[tuple[DeploymentKey, str], set[str]] = {}
        """Of each deployment beside its canary, and of each version that is a canary."""

    def publish(
        self,
        desired: Desired,
        snapshots: Mapping[DeploymentKey, control_pb2.DeploymentSnapshot],
        routes: control_pb2.RouteTable,
    ) -> None:
        super().publish(desired, snapshots, routes)
        versions = {each.spec.replica_id: each.spec.spec.version for each in self._cluster.replicas()}
        listed: dict[tuple[DeploymentKey, str], set[str]] = {}
        for key, snapshot in snapshots.items():
            for each in snapshot.replicas:
                version = versions.get(each.replica_id, "")
                of = version if _is_of_canary(desired, key, version) else ""
                listed.setdefault((key, of), set()).add(each.replica_id)
        before, self._listed = self._listed, listed
        canaries = (((key, canary.version), canary) for key, canary in desired.canaries.items())
        for place, target in (*(((key, ""), each) for key, each in desired.deployments.items()), *canaries):
            self._check(
                place,
                before.get(place, set()),
                listed.get(place, set()),
                target.num_replicas - target.pace.unavailable_max,
            )

    def _check(self, place: tuple[DeploymentKey, str], before: set[str], listed: set[str], least: int) -> None:
        taken = [each for each in before - listed if self._is_in_good_order(each)]
        if taken and len(listed) < least:
            of = " of ".join(filter(None, (place[1], str(place[0]))))
            self._cluster.wrong(f"{sorted(taken)} of {of} were taken away, {len(listed)} are left, not {least}")

    def _is_in_good_order(self, replica_id: str) -> bool:
        cluster = self._cluster
        return any(
            actor.name.endswith(f"#{replica_id}") and actor.name not in cluster.blamed and actor.node_id in cluster.cpus
            for actor in cluster.serving()
        )

    @property
    def _cluster(self) -> RecordedCluster:
        assert isinstance(self._mesh.cluster, RecordedCluster)
        return self._mesh.cluster


def _is_of_canary(desired: Desired, key: DeploymentKey, version: str | None) -> bool:
    """And only of it: it takes nothing from the number of the version beside it, and adds nothing."""
    canary, target = desired.canaries.get(key), desired.deployments.get(key)
    return canary is not None and version == canary.version and (target is None or version != target.version)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    seed = int(sys.argv[1])
    if "--aftermath" in sys.argv:
        print(aftermath(seed) or "nothing went wrong")
        return
    print(weather(seed) or "nothing went wrong")
    print(*history(seed), sep="\n")


if __name__ == "__main__":
    main()
