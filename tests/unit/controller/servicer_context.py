"""What a test gives to the servicer of the controller: a mesh, who it is, and its end of an RPC."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from mesh.controller.control_servicer import ControlServicer
from mesh.controller.event_log import EventLog
from mesh.controller.report.mesh_picture import ControllerIdentity
from mesh.v1 import control_pb2
from tests.sim.fake_mesh import Mesh
from tests.sim.fake_time import run_in_fake_time

IDENTITY = ControllerIdentity(pid=7, node_id="n1", started_unix_s=2.5, restarts=3, mesh_id=b"this mesh")


class Aborted(Exception):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code


class Context:
    """The servicer's end of one RPC; a test plays the client."""

    def __init__(self) -> None:
        self.reports: asyncio.Queue[Any] = asyncio.Queue()
        self.updates: asyncio.Queue[control_pb2.Update] = asyncio.Queue()

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Aborted(code, details)

    async def read(self) -> Any:
        return await self.reports.get()

    async def send_initial_metadata(self, metadata: tuple[()]) -> None:
        assert self.updates.empty(), "gRPC sends it before the first message"

    async def write(self, update: control_pb2.Update) -> None:
        await self.updates.put(update)


def with_servicer(scenario: Callable[[ControlServicer, Mesh], Awaitable[None]]) -> None:
    """Run it with the real loop and a fake cluster in fake time."""

    async def main() -> None:
        mesh = Mesh(seed=1)
        await mesh.boot()
        await scenario(ControlServicer(mesh.loop, mesh.publisher, lambda: 12.5, IDENTITY, EventLog(lambda: 12.5)), mesh)
        await mesh.crash()
        assert not mesh.failed

    run_in_fake_time(main())
