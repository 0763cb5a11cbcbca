"""Callers in fake time: they report a load that tests choose, as processes do through their Sync streams."""

import asyncio

from mesh.v1 import control_pb2
from tests.sim.fake_mesh import Mesh

INTERVAL_S = 10.0


class Caller:
    """One process. Its calls take the places there are; the rest is queued."""

    def __init__(
        self, mesh: Mesh, name: str = "caller", places_per_replica: int = 5, interval_s: float = INTERVAL_S
    ) -> None:
        self.requests = 0.0
        self._mesh = mesh
        self._name = name
        self._places_per_replica = places_per_replica
        self._interval_s = interval_s
        self._stream = object()
        self._task = asyncio.create_task(self._keep_reporting())

    def report(self, requests: float) -> None:
        """Change its number of calls and report it immediately."""
        self.requests = requests
        ongoing = min(requests, len(self._mesh.cluster.serving()) * self._places_per_replica)
        load = control_pb2.DeploymentLoad(
            deployment={"app": "app", "name": "Model"}, ongoing=ongoing, queued=requests - ongoing
        )
        self._mesh.loop.autoscaler.report_load(self._name, self._stream, [load])

    def fall_silent(self) -> None:
        """Its machine is lost: no report comes any more, and its stream does not end."""
        self._task.cancel()

    def crash(self) -> None:
        self.fall_silent()
        self._mesh.loop.autoscaler.forget_stream(self._stream)

    async def _keep_reporting(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            self.report(self.requests)
