"""Five applications, up to fifty replicas, faults that come together, and processes that listen, by a seed.

Faults of a storm are independent and brief; here a dependency is away for all, a host vanishes, the store is slow, the
controller stands still, another one starts beside it. Nothing is deployed at the end: what ever ran has to come back.
`.venv/bin/python -m tests.sim.gale SEED` replays one seed, exactly, and prints what happened; an hour with `--hour`.
"""

import asyncio
import contextlib
import functools
import logging
import sys
from collections.abc import Callable
from dataclasses import replace

from mesh.controller.desired.changes.desired_change import rolled_back, with_pause, with_promoted
from mesh.controller.desired.changes.invalid_change import InvalidChangeError
from mesh.controller.desired.changes.state_edits import Edit
from mesh.routing.snapshot import DeploymentKey
from mesh.status import ApplicationStatus, DeploymentStatus
from mesh.v1 import control_pb2
from tests.sim.fake_actor import Faults
from tests.sim.fake_mesh import Mesh
from tests.sim.fake_time import fake_time_loop, run_in_fake_time
from tests.sim.goals import listed
from tests.sim.listener import Listener, Manner
from tests.sim.storm import RecordedCluster, WatchedPublisher
from tests.unit.controller.builders import application

APPS = tuple(f"app{number}" for number in range(5))
REPLICAS_MAX = 10
"""Of each application."""
LISTENERS = 6
BREEZE = Faults(hang_in_drain=0.05, lost=0.01, late=0.02, twice=0.02, kv=0.02, slow_constructor=0.05, sick=0.01)
"""What goes wrong all the time."""
REFUSED = "[0]"
SHORT, HOUR = (12, 10.0), (40, 90.0)
"""Events, and the mean pause between two of them in seconds."""
CALM_WITHIN_S = 600.0


def gale(seed: int, length: tuple[int, float] = SHORT) -> str:
    """What went wrong in the run of a seed, empty when nothing did."""
    run = Gale(seed, *length)
    try:
        run_in_fake_time(run.blow())
    except TimeoutError:
        return f"did not come to rest: {run.missing()}\n{run.mesh.loop.status()}"
    except AssertionError as error:
        return str(error) or repr(error)
    return run.cluster.complaints()


def history(seed: int) -> list[str]:
    """Everything that happened in the run of a seed."""
    run = Gale(seed, *SHORT)
    with contextlib.suppress(TimeoutError, AssertionError):
        run_in_fake_time(run.blow())
    return run.cluster.history


class Gale:
    def __init__(self, seed: int, events: int, pause_s: float) -> None:
        self.cluster = RecordedCluster(seed, cpus={"n1": 200.0, "n2": 40.0, "n3": 40.0, "n4": 40.0})
        self.cluster.refused_configs = {REFUSED}
        self.mesh = Mesh(seed, cluster=self.cluster, make_publisher=lambda first: WatchedPublisher(first, self.mesh))
        self.cluster.mesh = self.mesh
        self._events = events
        self._pause_s = pause_s
        self._wishes = {name: application(name, "v0", self.cluster.random.randint(1, 5)) for name in APPS}
        self._listeners: list[Listener] = []
        self._passing: set[asyncio.Task[None]] = set()
        """What is away for a while."""

    async def blow(self) -> None:
        dice = self.cluster.random
        await self._begin()
        self.cluster.faults = BREEZE
        for event in range(self._events):
            await self._something_happens(event)
            await asyncio.sleep(dice.uniform(0.0, 2 * self._pause_s))
        await self._calm_down()
        await self.mesh.until(lambda: not self.missing(), within_s=CALM_WITHIN_S)
        await self._end()

    async def _begin(self) -> None:
        """All applications run, and processes listen."""
        mesh = self.mesh
        await mesh.boot()
        keys = [DeploymentKey(name, "Model") for name in APPS]
        self._listeners = [Listener(mesh, number, keys) for number in range(LISTENERS)]
        self.cluster.listeners = self._listeners
        for name in APPS:
            await self._deploy(name)
        await asyncio.sleep(20.0)

    async def _end(self) -> None:
        """Nothing is left."""
        mesh = self.mesh
        assert not mesh.failed, mesh.failed
        await mesh.shut_down()
        await mesh.until(lambda: mesh.is_empty() and not self.cluster.actors, within_s=CALM_WITHIN_S)
        assert mesh.kv.keys("code/") == []
        for listener in self._listeners:
            listener.end()
        await mesh.crash()

    async def _calm_down(self) -> None:
        """Nothing is deployed, so nothing is forgiven."""
        await asyncio.gather(*self._passing)
        self.cluster.faults = Faults()
        self.cluster.crashing_versions = {}
        for listener in self._listeners:
            if listener.manner is not Manner.VANISHED:
                listener.manner = Manner.PROMPT

    def missing(self) -> list[str]:
        """What does not serve again though it ran, and listeners that have not heard of what there is."""
        state = self.mesh.stored()
        told = {key: set(listed(self.mesh, key)) for key in (DeploymentKey(name, "Model") for name in APPS)}
        versions = {actor.spec.replica_id: actor.spec.spec.version for actor in self.cluster.replicas()}
        wrong: list[str] = []
        for name in APPS:
            known = [versions.get(each, "") for each in told[DeploymentKey(name, "Model")]]
            beside = {app.deployments[0].version for app in state.applications if app.name == name}
            canaries = (app.deployments[0] for app in state.canaries if app.name == name)
            canary = next((each for each in canaries if each.version not in beside), None)
            of_canary = sum(canary is not None and each == canary.version for each in known)
            if not _serves_again(state, name, len(known) - of_canary):
                wrong.append(f"{name} has {len(known) - of_canary} replicas, and {of_canary} of its canary")
            if canary is not None and canary.is_proven and not of_canary:
                wrong.append(f"the canary of {name} has none")
        wrong += [f"{each} knows others" for each in self._listeners if each.is_listening and each.known != told]
        wrong += ["an old controller lives"] * bool(self.mesh.ghosts)
        return wrong or self._unsettled()

    def _unsettled(self) -> list[str]:
        """Deployments that are neither as wanted nor given up, nor paused, though nothing goes wrong any more."""
        status, wanted = self.mesh.loop.status(), self.mesh.loop.picture().desired.deployments
        wrong = [
            f"{app.name}/{each.name} is {each.status}: {each.message}"
            for app in status.applications
            for each in app.deployments
            if DeploymentKey(app.name, each.name) in wanted
            and each.status != DeploymentStatus.HEALTHY
            and not each.is_paused
            and not _is_given_up(each)
        ]
        final = (ApplicationStatus.RUNNING, ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)
        wrong += [
            f"{app.name} is {app.status}: {app.message}"
            for app in status.applications
            if app.status not in final and not any(each.is_paused for each in app.deployments)
        ]
        return wrong

    async def _something_happens(self, event: int) -> None:
        dice = self.cluster.random
        name = dice.choice(APPS)
        happening = dice.choice(
            [
                *(self._new_version,) * 3,
                *(self._new_config, self._new_number, self._same_again, self._delete, self._roll_back, self._pause),
                *(
                    self._canary,
                    self._canary,
                    self._promote,
                    self._two_drivers,
                    self._kill_some,
                    self._another_node,
                    self._crash,
                    self._die_soon,
                ),
                *(self._dependency_away, self._all_sick, self._links_break, self._host_vanishes, self._short_lists),
                *(self._slow_store, self._stand_still, self._other_controller, self._other_manners),
            ]
        )
        self.cluster.note(f"{happening.__name__} {name}")
        await happening(name, event)

    # ---- People ----------------------------------------------------------------------------------------------------

    async def _deploy(self, name: str) -> None:
        spec = control_pb2.ApplicationSpec()
        spec.CopyFrom(self._wishes[name])

        def make() -> control_pb2.ApplicationSpec:
            asked = control_pb2.ApplicationSpec()
            asked.CopyFrom(spec)
            return asked

        await self.mesh.run(make)

    async def _new_version(self, name: str, event: int) -> None:
        """Some do not start, some crash soon after."""
        dice = self.cluster.random
        version, kind = f"v{event + 1}", dice.random()
        if kind < 0.2:
            self.cluster.broken_versions.add(version)
        elif kind < 0.4:
            self.cluster.crashing_versions[version] = dice.uniform(0.5, 8.0)
        old = self._wishes[name].deployments[0].options
        self._wishes[name] = application(name, version, dice.randint(1, REPLICAS_MAX))
        options = self._wishes[name].deployments[0].options
        options.user_config_json = old.user_config_json or "{}"
        options.rollback_on_failure = dice.random() < 0.3
        if dice.random() < 0.3:
            options.progress_deadline_s = 60.0
        if dice.random() < 0.3:
            options.max_surge_percent = dice.choice([0.0, 20.0, 100.0])
            options.max_unavailable_percent = 0.0 if options.max_surge_percent else 50.0
        await self._deploy(name)

    async def _new_config(self, name: str, event: int) -> None:
        is_bad = self.cluster.random.random() < 0.4
        self._wishes[name].deployments[0].options.user_config_json = REFUSED if is_bad else f"[{event + 1}]"
        await self._deploy(name)

    async def _new_number(self, name: str, event: int) -> None:
        self._wishes[name].deployments[0].options.num_replicas = self.cluster.random.randint(1, REPLICAS_MAX)
        await self._deploy(name)

    async def _same_again(self, name: str, event: int) -> None:
        await self._deploy(name)

    async def _delete(self, name: str, event: int) -> None:
        await self.mesh.delete(name)

    async def _canary(self, name: str, event: int) -> None:
        """Some do not start, some crash soon after, some end by themselves then."""
        dice = self.cluster.random
        version, kind = f"c{event + 1}", dice.random()
        if kind < 0.2:
            self.cluster.broken_versions.add(version)
        elif kind < 0.4:
            self.cluster.crashing_versions[version] = dice.uniform(0.5, 8.0)
        number = self._wishes[name].deployments[0].options.num_replicas
        percent, is_undone = dice.choice([10.0, 50.0, 100.0]), dice.random() < 0.3

        def make() -> control_pb2.ApplicationSpec:
            asked = application(name, version, number)
            asked.traffic.percent = percent
            asked.deployments[0].options.rollback_on_failure = is_undone
            return asked

        try:
            await self.mesh.run(make)
        except InvalidChangeError as error:  # its application was deleted
            self.cluster.note(f"refused: {error}")

    async def _promote(self, name: str, event: int) -> None:
        await self._change(functools.partial(with_promoted, name=name, unix_time_s=0.0))

    async def _roll_back(self, name: str, event: int) -> None:
        await self._change(functools.partial(rolled_back, name=name, unix_time_s=0.0))

    async def _pause(self, name: str, event: int) -> None:
        change = functools.partial(with_pause, application=name, deployment="")
        await self._change(functools.partial(change, is_paused=True))
        self._pass(20.0, functools.partial(self._change_later, functools.partial(change, is_paused=False)))

    async def _change(self, edit: Edit) -> None:
        try:
            await self.mesh.ask(lambda: (edit, ()))
        except InvalidChangeError as error:
            self.cluster.note(f"refused: {error}")

    def _change_later(self, edit: Edit) -> None:
        self._own(self._change(edit))

    async def _two_drivers(self, name: str, event: int) -> None:
        """Both deploy at the same time. The last one is what is wanted."""
        specs = [application(name, f"v{event + 1}.{number}", 3) for number in (1, 2)]

        async def drive(spec: control_pb2.ApplicationSpec) -> None:
            self._wishes[name] = spec
            await self._deploy(name)

        await asyncio.gather(*(drive(spec) for spec in specs))

    # ---- Machines --------------------------------------------------------------------------------------------------

    async def _kill_some(self, name: str, event: int) -> None:
        """Perhaps all of an application at once, and the controller with them."""
        dice, replicas = self.cluster.random, self.cluster.replicas()
        victims = [each for each in replicas if each.spec.deployment.app == name] if dice.random() < 0.5 else replicas
        for actor in dice.sample(victims, min(len(victims), 4)):
            self.cluster.end(actor)
        if dice.random() < 0.3:
            await self._crash(name, event)

    async def _another_node(self, name: str, event: int) -> None:
        others = [node_id for node_id in self.cluster.cpus if node_id != self.cluster.head]
        if len(others) > 1:
            self.cluster.lose_node(others[0])
        else:
            self.cluster.cpus[f"m{event}"] = 40.0

    async def _host_vanishes(self, name: str, event: int) -> None:
        others = [node_id for node_id in self.cluster.cpus if node_id != self.cluster.head]
        if others:
            self._own(self.cluster.vanish(others[0], unnoticed_s=self.cluster.random.uniform(5.0, 60.0)))
        self.cluster.cpus[f"m{event}"] = 40.0

    async def _dependency_away(self, name: str, event: int) -> None:
        """No constructor returns, and sometimes what serves dies of it."""
        self._for_a_while(constructor=1.0)
        if self.cluster.random.random() < 0.5:
            await self._kill_some(name, event)

    async def _all_sick(self, name: str, event: int) -> None:
        self._for_a_while(sick=1.0)

    async def _short_lists(self, name: str, event: int) -> None:
        self._for_a_while(short_list=0.3, late_list=0.3)

    async def _links_break(self, name: str, event: int) -> None:
        node_id = self.cluster.random.choice(sorted(self.cluster.cpus))
        self.cluster.cut_off.add(node_id)
        self._pass(self.cluster.random.uniform(1.0, 30.0), lambda: self.cluster.cut_off.discard(node_id))

    def _for_a_while(self, **chances: float) -> None:
        before = {chance: getattr(BREEZE, chance) for chance in chances}
        self.cluster.faults = replace(self.cluster.faults, **chances)

        def pass_by() -> None:
            self.cluster.faults = replace(self.cluster.faults, **before)

        self._pass(self.cluster.random.uniform(5.0, 45.0), pass_by)

    # ---- The controller --------------------------------------------------------------------------------------------

    async def _crash(self, name: str, event: int) -> None:
        await self.mesh.crash()
        await self.mesh.boot()

    async def _die_soon(self, name: str, event: int) -> None:
        self.mesh.life.dies_at_step = self.mesh.life.steps + self.cluster.random.randint(1, 200)

    async def _other_controller(self, name: str, event: int) -> None:
        await self.mesh.take_over()

    async def _slow_store(self, name: str, event: int) -> None:
        loop = fake_time_loop()
        loop.thread_delay_s = self.cluster.random.uniform(0.1, 8.0)
        self._pass(self.cluster.random.uniform(5.0, 40.0), lambda: setattr(loop, "thread_delay_s", 0.0))

    async def _stand_still(self, name: str, event: int) -> None:
        """As a process does whose machine swaps."""
        fake_time_loop().stall(self.cluster.random.uniform(1.0, 40.0))
        for listener in self._listeners:
            listener.is_behind = True

    async def _other_manners(self, name: str, event: int) -> None:
        """Processes come, go, read nothing for a while and vanish."""
        for listener in self.cluster.random.sample(self._listeners, 3):
            if listener.manner is not Manner.VANISHED:
                listener.manner = self.cluster.random.choice(list(Manner))

    def _pass(self, seconds: float, then: Callable[[], None]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            then()

        self._own(wait())

    def _own(self, coroutine: "asyncio._CoroutineLike[None]") -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(coroutine)  # type: ignore[arg-type, assignment]
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)


def _serves_again(state: control_pb2.DesiredState, name: str, count: int) -> bool:
    """As many replicas as the version that last worked had, or the one that is wanted has."""
    generations = [app.deployments[0] for app in (*state.predecessors, *state.applications) if app.name == name]
    has_run = any(spec.has_run for spec in generations)
    return not has_run or count >= min(spec.options.num_replicas for spec in generations)


def _is_given_up(deployment: control_pb2.DeploymentStatus) -> bool:
    return "is not tried again" in deployment.message or "no other replica gets it" in deployment.message


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run = Gale(int(sys.argv[1]), *(HOUR if "--hour" in sys.argv else SHORT))
    try:
        run_in_fake_time(run.blow())
    except (TimeoutError, AssertionError) as error:
        print(f"{error!r} {run.missing()}")
    print(*run.cluster.history, sep="\n")
    print(run.cluster.complaints() or "nothing went wrong")


if __name__ == "__main__":
    main()
