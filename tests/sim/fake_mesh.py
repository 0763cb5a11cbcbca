"""The whole controller but Ray and sockets, on a cluster in memory."""

import asyncio
import functools
import itertools
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

from mesh.controller.actors import check_times
from mesh.controller.actors.cluster_runtime import ActorCallError
from mesh.controller.control_loop import ControlLoop
from mesh.controller.desired.autoscaled_numbers import read_record, with_numbers
from mesh.controller.desired.changes.desired_change import (
    rolled_back,
    shutting_down,
    with_pause,
    with_promoted,
    without_application,
)
from mesh.controller.desired.changes.state_edits import Edit
from mesh.controller.own_changes import Clocks
from mesh.controller.report.publisher import Publisher
from mesh.controller.store.desired_store import StateStore, StoreError
from mesh.v1 import control_pb2
from tests.sim.fake_cluster import FakeCluster
from tests.sim.mortal import ControllerCrashed, Life, MortalKeyValue, MortalRuntime
from tests.unit.controller.builders import application, with_application
from tests.unit.controller.dict_kv import DictKeyValue

CALM_WITHIN_S = 120.0
_RESTART_S = 1.0
_CLIENT_PAUSE_S = 0.2
_LOOK_S = 0.25


class Ghost(NamedTuple):
    """A controller that lives on beside the present one."""

    tasks: dict[asyncio.Task[None], None]
    publisher: Publisher


class Mesh:
    """A controller and its cluster. The controller can be crashed and started again; state and cluster remain."""

    def __init__(
        self,
        seed: int,
        *,
        cpus: Mapping[str, float] | None = None,
        cluster: FakeCluster | None = None,
        make_publisher: Callable[[int], Publisher] = Publisher,
        gateway_processes: int = 1,
        gateways: control_pb2.GatewayOptions | None = None,
    ) -> None:
        self.cluster = cluster or FakeCluster(seed, cpus=cpus)
        # Health checks are spread by Python's own dice, which other tests and threads of this process throw too.
        check_times.random = random.Random(seed)  # type: ignore[assignment]
        self._make_publisher = make_publisher
        self._gateway_options = gateways or control_pb2.GatewayOptions(grpc_port=9000, processes=gateway_processes)
        self.kv = DictKeyValue()
        self.deaths: list[int] = []
        """Steps after which the next controllers die."""
        self.life = Life(self._die)
        self.is_up = False
        self._is_booting = asyncio.Lock()
        self.failed: list[BaseException] = []
        self._ids = itertools.count()
        # In the order of their start: a run has to be the same every time.
        self._tasks: dict[asyncio.Task[None], None] = {}
        self.ghosts: list[Ghost] = []
        self._restart: asyncio.Task[None] | None = None

    # ---- The controller's lives ------------------------------------------------------------------------------------

    async def boot(self) -> None:
        """Start a controller, like Ray again and again until it serves."""
        async with self._is_booting:
            while not self.is_up:
                try:
                    await self._boot()
                except (StoreError, ActorCallError, ControllerCrashed):
                    await self._end_present()
                    await asyncio.sleep(_RESTART_S)

    async def crash(self) -> None:
        """End the controller immediately, without a restart, and others that live on beside it."""
        ghosts, self.ghosts = self.ghosts, []
        await _cancelled([task for ghost in ghosts for task in ghost.tasks])
        await self._end_present()

    async def _end_present(self) -> None:
        self.is_up = False
        self.life.is_over = True
        await _cancelled(list(self._tasks))

    async def take_over(self) -> None:
        """Start another controller while this one lives on, cut off from its clients, until it hears of the other."""
        if self.is_up:
            self.is_up = False
            self.ghosts.append(Ghost(self._tasks, self.publisher))
        await self.boot()

    async def _boot(self) -> None:
        tasks = self._tasks = {}
        spawn = functools.partial(self._spawn, tasks)
        life = self.life = Life(functools.partial(self._die, tasks))
        life.dies_at_step = self.deaths.pop(0) if self.deaths else 0
        self.publisher = self._make_publisher(next(self._ids))
        self.loop = ControlLoop(
            StateStore(
                MortalKeyValue(self.kv, life, lambda: self.cluster.happens(self.cluster.faults.kv)),
                on_fenced=functools.partial(self._die, tasks),
            ),
            MortalRuntime(self.cluster, life),
            self.publisher,
            clocks=Clocks(asyncio.get_running_loop().time, lambda: 1.7e9 + asyncio.get_running_loop().time()),
            new_id=lambda: f"r{next(self._ids)}",
            spawn_task=spawn,
        )
        await self.loop.begin(self._gateway_options)
        if life.is_over:
            raise ControllerCrashed
        spawn(self.loop.run(), "control loop")
        self.is_up = True

    def _die(self, tasks: dict[asyncio.Task[None], None]) -> None:
        """The controller whose tasks these are ends."""
        for task in list(tasks):
            task.cancel()
        self.ghosts = [ghost for ghost in self.ghosts if ghost.tasks is not tasks]
        if tasks is not self._tasks:
            return
        was_up, self.is_up = self.is_up, False
        if was_up:
            self._restart = asyncio.create_task(self._boot_later())

    async def _boot_later(self) -> None:
        await asyncio.sleep(_RESTART_S)
        await self.boot()

    # ---- What clients ask for --------------------------------------------------------------------------------------

    async def deploy(
        self,
        version: str,
        num_replicas: int,
        autoscaling: control_pb2.AutoscalingOptions | None = None,
        **options: Any,
    ) -> None:
        """`options`: fields of DeploymentOptions."""

        def make() -> control_pb2.ApplicationSpec:
            app = application(version=version, num_replicas=num_replicas, autoscaling=autoscaling)
            app.deployments[0].options.MergeFrom(control_pb2.DeploymentOptions(**options))
            return app

        await self.run(make)

    async def run(self, make: Callable[[], control_pb2.ApplicationSpec]) -> None:
        """`make` builds the request, which is sent again when no controller answered it."""

        def request() -> tuple[Edit, Sequence[control_pb2.ApplicationSpec]]:
            app = make()
            return functools.partial(with_application, application=app, unix_time_s=0.0), [app]

        await self.ask(request)

    async def delete(self, name: str = "app") -> None:
        await self.ask(lambda: (functools.partial(without_application, name=name), ()))

    async def promote(self) -> None:
        """The canary of "app" replaces it."""
        await self.ask(lambda: (functools.partial(with_promoted, name="app", unix_time_s=0.0), ()))

    async def roll_back(self) -> None:
        """Its "app" goes back to its version before."""
        await self.ask(lambda: (functools.partial(rolled_back, name="app", unix_time_s=0.0), ()))

    async def pause(self, *, is_paused: bool) -> None:
        """Rollouts of "app" stop or go on."""
        edit = functools.partial(with_pause, application="app", deployment="", is_paused=is_paused)
        await self.ask(lambda: (edit, ()))

    async def shut_down(self) -> None:
        await self.ask(lambda: (shutting_down, ()))

    async def ask(self, request: Callable[[], tuple[Edit, Sequence[control_pb2.ApplicationSpec]]]) -> None:
        request_id = f"request {next(self._ids)}"
        while True:
            try:
                if self.is_up:
                    await self.loop.change(*request(), request_id=request_id)
                    return
            except (ControllerCrashed, StoreError):
                pass  # as clients do: tried again
            await asyncio.sleep(_CLIENT_PAUSE_S)

    # ---- What tests see --------------------------------------------------------------------------------------------

    def lives(self, publisher: Publisher) -> bool:
        """Whether its controller does, be it the present one or not."""
        is_present = self.is_up and publisher is self.publisher
        return is_present or any(ghost.publisher is publisher for ghost in self.ghosts)

    def acting(self) -> Publisher:
        """That of the controller which does what runs now."""
        task = asyncio.current_task()
        return next((ghost.publisher for ghost in self.ghosts if task in ghost.tasks), self.publisher)

    def stored(self) -> control_pb2.DesiredState:
        store = StateStore(self.kv)
        state = store.load() or control_pb2.DesiredState()
        return with_numbers(state, read_record(store.load_numbers(), state))

    def revision(self) -> int:
        """Of the only application, as drivers read it."""
        return next((app.revision for app in self.loop.status().applications), 0)

    def is_without_applications(self) -> bool:
        return not self.loop.status().applications

    def app_status(self) -> str:
        return next((app.status for app in self.loop.status().applications), "")

    def is_empty(self) -> bool:
        status = self.loop.status()
        return not status.gateways and not status.applications

    async def until(self, condition: Callable[[], bool], within_s: float = CALM_WITHIN_S) -> None:
        """Wait for the condition. Fails the test with a TimeoutError when it does not hold in time: waiting asserts."""
        async with asyncio.timeout(within_s):
            while not (self.is_up and condition()):  # noqa: ASYNC110 - looking again costs nothing in fake time
                await asyncio.sleep(_LOOK_S)

    def _spawn(self, tasks: dict[asyncio.Task[None], None], coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(coroutine, name=name)
        tasks[task] = None
        task.add_done_callback(functools.partial(self._ended, tasks))

    def _ended(self, tasks: dict[asyncio.Task[None], None], task: asyncio.Task[None]) -> None:
        tasks.pop(task, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, ControllerCrashed):
            self.failed.append(error)


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
