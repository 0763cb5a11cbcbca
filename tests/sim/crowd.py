"""Operators who do everything at once, by a seed: files, canaries, pauses, drains, scaling, restores, other gateways.

The faults of a gale stay out, but for controllers that die, so no replica may ever be missing: each deployment serves
with its number all the time. `.venv/bin/python -m tests.sim.crowd SEED` replays one seed, exactly.
"""

import asyncio
import functools
import logging
import sys
from collections.abc import Callable, Sequence

from mesh.controller.backups import restoration
from mesh.controller.desired.changes.desired_change import ConfigSource, scaled, with_applications, with_pause
from mesh.controller.desired.changes.gateway_generations import with_gateways
from mesh.controller.desired.changes.invalid_change import InvalidChangeError
from mesh.controller.desired.changes.state_edits import Edit
from mesh.controller.nodes.cordons import cordoned, uncordoned
from mesh.controller.report.node_statuses import replicas_on
from mesh.controller.store.desired_store import StoreError
from mesh.routing.snapshot import DeploymentKey
from mesh.status import GatewayStatus
from mesh.v1 import control_pb2
from tests.sim.fake_time import run_in_fake_time
from tests.sim.gale import APPS, CALM_WITHIN_S, REPLICAS_MAX, Gale
from tests.sim.mortal import ControllerCrashed
from tests.sim.storm import CALLS_PER_REPLICA
from tests.unit.controller.builders import application

FILES = ("a.yaml", "b.yaml")
EVENTS, PAUSE_S = 25, 6.0
AWAITED = 0.7
"""Share of the events that end before the next one begins."""
PRUNING = 0.15
"""Share of the files that are deployed with `--prune`."""

EXTERNAL = 0.3
"""Share of the deployments that autoscale whose number another program sets."""
REPORT_EVERY_S = 2.0
RULES = control_pb2.AutoscalingOptions(
    min_replicas=1,
    max_replicas=REPLICAS_MAX,
    target_ongoing_requests=CALLS_PER_REPLICA,
    metrics_interval_s=REPORT_EVERY_S,
    look_back_period_s=4.0,
    upscaling_factor=1.0,
    downscaling_factor=1.0,
    upscale_delay_s=1.0,
    downscale_delay_s=5.0,
    downscale_to_zero_delay_s=5.0,
    aggregation=control_pb2.AGGREGATION_MEAN,
)

Request = tuple[Edit, Sequence[control_pb2.ApplicationSpec]]


def crowd(seed: int) -> str:
    """What went wrong in the run of a seed, empty when nothing did."""
    run = Crowd(seed)
    try:
        run_in_fake_time(run.throng())
    except TimeoutError:
        return f"did not come to rest: {run.missing()}\n{run.mesh.loop.status()}"
    except AssertionError as error:
        return str(error) or repr(error)
    return run.cluster.complaints()


class Crowd(Gale):
    def __init__(self, seed: int) -> None:
        super().__init__(seed, EVENTS, PAUSE_S)
        self._saved: control_pb2.MeshBackup | None = None
        self._loads = dict.fromkeys(APPS, 0.0)
        """Calls in progress."""

    async def throng(self) -> None:
        mesh, dice = self.mesh, self.cluster.random
        await self._begin()
        reporting = asyncio.create_task(self._keep_reporting())
        happenings = [
            *(self._new_version, self._new_config, self._same_again, self._two_drivers, self._file, self._file),
            *(self._canary, self._promote, self._roll_back, self._pause, self._resume, self._scale, self._scale),
            *(self._drain, self._drain, self._cordon, self._uncordon, self._other_gateways, self._delete),
            *(self._save, self._restore, self._restore, self._crash, self._die_soon),
            *(self._graph, self._graph, self._graph, self._graph_canary, self._graph_canary),
            *(self._follow_load, self._follow_load, self._other_load, self._other_load, self._other_load),
        ]
        for event in range(EVENTS):
            name, happening = dice.choice(APPS), dice.choice(happenings)
            self.cluster.note(f"{happening.__name__} {name}")
            work = asyncio.ensure_future(happening(name, event))
            if dice.random() < AWAITED:
                await work
            else:
                self._own(work)
            await asyncio.sleep(dice.uniform(0.0, 2 * PAUSE_S))
        await self._calm_down()
        await self._uncordon("", EVENTS)
        await mesh.until(lambda: not self.missing() and self._gateways_serve(), within_s=CALM_WITHIN_S)
        reporting.cancel()
        await self._end()

    def _gateways_serve(self) -> bool:
        status = self.mesh.loop.status()
        revisions = {each.revision for each in status.gateways if each.status == GatewayStatus.HEALTHY}
        return revisions == {status.gateways_revision} and not self.mesh.stored().HasField("gateways_before")

    async def _ask(self, make: Callable[[], Request]) -> None:
        try:
            await self.mesh.ask(make)
        except InvalidChangeError as error:
            self.cluster.note(f"refused: {error}")

    async def _resume(self, name: str, event: int) -> None:
        await self._change(functools.partial(with_pause, application=name, deployment="", is_paused=False))

    async def _scale(self, name: str, event: int) -> None:
        number = self.cluster.random.randint(1, REPLICAS_MAX)
        await self._change(functools.partial(scaled, key=DeploymentKey(name, "Model"), num_replicas=number))

    async def _graph(self, name: str, event: int) -> None:
        """With a second deployment, perhaps of another name than before; some versions do not start."""
        dice = self.cluster.random
        old = self._wishes[name].deployments[0]
        self._wishes[name] = application(name, dice.choice([old.version, f"g{event}"]), dice.randint(1, REPLICAS_MAX))
        self._add_second(self._wishes[name])
        await self._deploy(name)

    async def _graph_canary(self, name: str, event: int) -> None:
        dice = self.cluster.random
        canary = application(name, dice.choice([self._wishes[name].deployments[0].version, f"gc{event}"]), 2)
        self._add_second(canary)
        canary.traffic.percent = dice.choice([10.0, 50.0])

        def make() -> Request:
            asked = control_pb2.DesiredState(applications=[canary]).applications
            return functools.partial(with_applications, applications=asked, unix_time_s=0.0), asked

        await self._ask(make)

    def _add_second(self, app: control_pb2.ApplicationSpec) -> None:
        dice = self.cluster.random
        second = application("", f"s{dice.randint(1, 4)}", dice.randint(1, REPLICAS_MAX // 2)).deployments[0]
        second.name = dice.choice(["Side", "Other"])
        if second.version == "s4":
            self.cluster.broken_versions.add("s4")
        second.options.rollback_on_failure = dice.random() < 0.3
        app.deployments.add().CopyFrom(second)

    async def _follow_load(self, name: str, event: int) -> None:
        """Or what an external scaler says."""
        dice = self.cluster.random
        rules = control_pb2.AutoscalingOptions()
        rules.CopyFrom(RULES)
        rules.is_external = dice.random() < EXTERNAL
        version = dice.choice([f"l{event}", self._wishes[name].deployments[0].version])
        self._wishes[name] = application(name, version, 1, autoscaling=rules)
        await self._deploy(name)

    async def _other_load(self, name: str, event: int) -> None:
        self._loads[name] = self.cluster.random.uniform(0.0, REPLICAS_MAX * CALLS_PER_REPLICA)

    async def _keep_reporting(self) -> None:
        """As one caller of all applications."""
        stream = object()
        while True:
            loads = [
                control_pb2.DeploymentLoad(deployment={"app": name, "name": "Model"}, ongoing=ongoing)
                for name, ongoing in self._loads.items()
            ]
            self.mesh.loop.autoscaler.report_load("caller", stream, loads)
            await asyncio.sleep(REPORT_EVERY_S)

    # ---- Nodes -----------------------------------------------------------------------------------------------------

    async def _drain(self, name: str, event: int) -> None:
        await self._set_cordon(is_draining=True)

    async def _cordon(self, name: str, event: int) -> None:
        await self._set_cordon(is_draining=False)

    async def _set_cordon(self, *, is_draining: bool) -> None:
        node_id = self.cluster.random.choice([each for each in self.cluster.cpus if each != self.cluster.head])
        count = replicas_on(node_id, self.mesh.loop.picture())
        entry = control_pb2.Cordon(node_id=node_id, is_draining=is_draining, replicas=count)
        await self._change(functools.partial(cordoned, cordon=entry))

    async def _uncordon(self, name: str, event: int) -> None:
        await self._change(functools.partial(uncordoned, node_ids=tuple(self.cluster.cpus)))

    # ---- Files, backups and gateways -------------------------------------------------------------------------------

    async def _file(self, name: str, event: int) -> None:
        """Of one of two names, with some applications; it may be refused, delete some, or take over those of others."""
        dice = self.cluster.random
        names = dice.sample(APPS, dice.randint(1, 4))
        wanted = [application(each, f"f{dice.randint(1, 3)}", dice.randint(1, REPLICAS_MAX)) for each in names]
        config = ConfigSource(f"of {event}", dice.choice(FILES), prunes=dice.random() < PRUNING)

        def make() -> Request:
            asked = control_pb2.DesiredState(applications=wanted).applications
            edit = functools.partial(with_applications, applications=asked, unix_time_s=0.0, config_file=config)
            return edit, asked

        await self._ask(make)

    async def _save(self, name: str, event: int) -> None:
        try:
            self._saved = await self.mesh.loop.backup(1.0)
        except (StoreError, InvalidChangeError, ControllerCrashed) as error:
            self.cluster.note(f"no backup: {error!r}")

    async def _restore(self, name: str, event: int) -> None:
        """Beside and over what runs now."""
        saved = self._saved
        if saved is None:
            return

        def make() -> Request:
            restored = restoration(control_pb2.RestoreRequest(backup=saved, may_replace=True), 1.0)
            return restored.recorded_edit("someone"), restored.applications

        await self._ask(make)

    async def _other_gateways(self, name: str, event: int) -> None:
        dice = self.cluster.random
        options = control_pb2.GatewayOptions(grpc_port=9000, processes=dice.choice([1, 1, 2]), http_port=8000 + event)
        expected = self.mesh.loop.status().gateway_options
        await self._change(functools.partial(with_gateways, options=options, expected=expected))


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run = Crowd(int(sys.argv[1]))
    try:
        run_in_fake_time(run.throng())
    except (TimeoutError, AssertionError) as error:
        print(f"{error!r} {run.missing()}")
    print(*run.cluster.history, sep="\n")
    print(run.cluster.complaints() or "nothing went wrong")


if __name__ == "__main__":
    main()
