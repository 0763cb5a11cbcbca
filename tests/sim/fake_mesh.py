"""The whole controller but Ray and sockets, on a cluster in memory."""

import asyncio
import functools
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

from mesh.controller.change import shutting_down, with_application, without_application
from mesh.controller.loop import ControlLoop
from mesh.controller.publish import Publisher
from mesh.controller.store import StateStore
from mesh.v1 import control_pb2
from tests.sim.fake_cluster import FakeCluster
from tests.unit.controller.builders import application
from tests.unit.controller.dict_kv import DictKeyValue

CALM_WITHIN_S = 120.0


class Mesh:
    """A controller and its cluster. The controller can be crashed and started again; state and cluster remain."""

    def __init__(self, seed: int, **cluster: Any) -> None:
        self.cluster = FakeCluster(seed, **cluster)
        self.kv = DictKeyValue()
        self._ids = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self.failed: list[BaseException] = []

    async def boot(self) -> None:
        self.publisher = Publisher(first_version=next(self._ids))
        self.loop = ControlLoop(
            StateStore(self.kv),
            self.cluster,
            self.publisher,
            clock=asyncio.get_running_loop().time,
            new_id=lambda: f"r{next(self._ids)}",
            spawn_task=self._spawn,
        )
        await self.loop.begin(control_pb2.GatewayOptions(grpc_port=9000))
        self._spawn(self.loop.run(), "control loop")

    async def crash(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def deploy(
        self,
        version: str,
        num_replicas: int,
        autoscaling: control_pb2.AutoscalingOptions | None = None,
        **options: Any,
    ) -> None:
        """`options`: fields of DeploymentOptions."""
        app = application(version=version, num_replicas=num_replicas, autoscaling=autoscaling)
        app.deployments[0].options.MergeFrom(control_pb2.DeploymentOptions(**options))
        await self.loop.change(functools.partial(with_application, application=app, unix_time_s=0.0), code_of=[app])

    async def delete(self) -> None:
        await self.loop.change(functools.partial(without_application, name="app"))

    async def shut_down(self) -> None:
        await self.loop.change(shutting_down)

    def app_status(self) -> str:
        return next((app.status for app in self.loop.status().applications), "")

    async def until(self, condition: Callable[[], bool], within_s: float = CALM_WITHIN_S) -> None:
        async with asyncio.timeout(within_s):
            while not condition():  # noqa: ASYNC110 - looking again costs nothing in fake time
                await asyncio.sleep(0.05)

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed.append(error)
