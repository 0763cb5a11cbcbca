"""What a test gives to the servicer of the controller: who it is, and its end of an RPC."""

import asyncio
from typing import Any

import grpc

from mesh.controller.report.mesh_picture import ControllerIdentity
from mesh.v1 import control_pb2

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
