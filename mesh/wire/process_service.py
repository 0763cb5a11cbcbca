"""The Process service, with which a gateway collects the metrics of the other processes on its node."""

from __future__ import annotations

import os
import uuid

import grpc
import grpc.aio

from mesh.v1 import telemetry_pb2, telemetry_pb2_grpc
from mesh.wire import telemetry
from mesh.wire.endpoints import generic_handlers


def new_process_id(node_id: str) -> str:
    """An id for this process: it says where the process is, and no process after it has the same."""
    return f"{node_id[:8]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def process_service(process_id: str) -> grpc.GenericRpcHandler:
    """The service of this process."""
    return generic_handlers(telemetry_pb2_grpc.add_ProcessServicer_to_server, _Servicer(process_id))


class _Servicer(telemetry_pb2_grpc.ProcessServicer):
    def __init__(self, process_id: str) -> None:
        self._process_id = process_id

    async def Metrics(
        self,
        request: telemetry_pb2.MetricsRequest,
        context: grpc.aio.ServicerContext,  # type: ignore[type-arg]
    ) -> telemetry_pb2.MetricsReply:
        del request, context
        return telemetry.to_reply(self._process_id)
