"""Owns the caller's end of the Control service: blocking calls that wait for a controller which is restarting."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from mesh.cluster import ray_core
from mesh.cluster.keys import CONTROLLER_ADDRESS_KEY, CONTROLLER_FAILURE_KEY
from mesh.exceptions import ControllerUnavailableError, MeshException
from mesh.settings import settings
from mesh.v1 import control_pb2
from mesh.wire.bulk_fetch import run_bulk
from mesh.wire.endpoints import open_channel
from mesh.wire.io_thread import io_thread
from mesh.wire.mesh_token import forget_token, token_metadata

_RETRY_DELAY_S = 0.1
_COMPLAINT_TIMEOUT_S = 2.0
_RETRIED = (
    grpc.StatusCode.UNAVAILABLE,
    # The address or the token may be those of an earlier controller.
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
)

Reply = TypeVar("Reply", bound=Message)


class ControllerNotReadyError(Exception):
    """There is no address or no token to be found yet."""


class Line(Protocol):
    """A way to reach one controller process, on the I/O loop."""

    async def call(self, method: str, request: Message, reply: type[Message], timeout_s: float) -> Message: ...

    async def hang_up(self) -> None: ...

    async def complaint(self) -> str:
        """What the controller itself says is the matter, empty when it says nothing."""
        ...


class ControlClient:
    """Calls from any thread but the I/O thread. All of them are safe to repeat, so what broke is tried again.

    Each raises ControllerUnavailableError when no controller answers within `Settings.control_timeout_s`, and
    MeshException with the controller's words when it refuses.
    """

    def __init__(self, line: Line | None = None) -> None:
        self._line: Line = line or GrpcLine()

    def deploy(self, application: control_pb2.ApplicationSpec) -> None:
        """Returns when the application is stored, before it runs."""
        self._call("Deploy", control_pb2.DeployRequest(application=application), control_pb2.DeployReply)

    def apply(
        self,
        applications: Iterable[control_pb2.ApplicationSpec],
        config_file: str | None = None,
        target_capacity: float | None = None,
    ) -> None:
        """`deploy` of several in one step; with `config_file` they replace all that an earlier file named.

        `target_capacity` is what that file says of it.
        """
        request = control_pb2.ApplyRequest(
            applications=applications, config_file=config_file, target_capacity=target_capacity
        )
        self._call("Apply", request, control_pb2.ApplyReply)

    def config_file(self) -> str | None:
        """The configuration file that was applied last."""
        reply = self._call("Config", control_pb2.ConfigRequest(), control_pb2.ConfigReply)
        return reply.config_file if reply.HasField("config_file") else None

    def delete(self, application: str) -> None:
        """Returns when the deletion is stored, before the replicas are gone."""
        self._call("Delete", control_pb2.DeleteRequest(application=application), control_pb2.DeleteReply)

    def status(self) -> control_pb2.StatusReply:
        return self._call("Status", control_pb2.StatusRequest(), control_pb2.StatusReply)

    def shutdown(self) -> None:
        """Returns when the end is stored; `status` lists what is left."""
        self._call("Shutdown", control_pb2.ShutdownRequest(), control_pb2.ShutdownReply)

    def close(self) -> None:
        io_thread().run(self._line.hang_up())

    def _call(self, method: str, request: Message, reply: type[Reply]) -> Reply:
        if threading.current_thread() is io_thread().thread:
            raise RuntimeError(
                "This call blocks and would stall the wire. Make it from a `def` method, or leave isolate_user_loop on."
            )
        timeout_s = settings().process.control_timeout_s
        answer = until_answered(self._line, method, request, reply, timeout_s, time.monotonic)
        return cast(Reply, io_thread().run(answer))


async def until_answered(
    line: Line, method: str, request: Message, reply: type[Message], timeout_s: float, clock: Callable[[], float]
) -> Message:
    """One call, repeated while the controller cannot be reached."""
    deadline_s = clock() + timeout_s
    reason = "no attempt was made"
    while (left_s := deadline_s - clock()) > 0:
        try:
            return await line.call(method, request, reply, left_s)
        except ControllerNotReadyError as error:
            reason = str(error)
        except grpc.aio.AioRpcError as error:
            reason = f"{error.code().name}: {error.details()}"
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                break
            if error.code() not in _RETRIED:
                raise MeshException(error.details() or error.code().name) from error
        await line.hang_up()
        await asyncio.sleep(_RETRY_DELAY_S)
    raise ControllerUnavailableError.after(timeout_s, await line.complaint() or reason)


class GrpcLine:
    """Finds the controller in the cluster's KV and keeps one channel to it."""

    def __init__(self) -> None:
        self._channel: grpc.aio.Channel | None = None

    async def call(self, method: str, request: Message, reply: type[Message], timeout_s: float) -> Message:
        try:
            async with asyncio.timeout(timeout_s):
                channel, metadata = await self._looked_up()
        except TimeoutError as error:
            raise ControllerNotReadyError("the cluster's KV, which has its address, does not answer") from error
        rpc: Any = channel.unary_unary(
            f"/mesh.v1.Control/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=reply.FromString,
        )
        try:
            return cast(Message, await rpc(request, timeout=timeout_s, metadata=metadata))
        except (asyncio.CancelledError, grpc.aio.UsageError):
            if self._channel is channel:
                raise
            # Another thread's call found the controller gone and closed the channel that they share.
            raise ControllerNotReadyError("the connection was given up") from None

    async def _looked_up(self) -> tuple[grpc.aio.Channel, Sequence[tuple[str, bytes]]]:
        channel = self._channel = self._channel or await _dial()
        try:
            return channel, await run_bulk(token_metadata)
        except LookupError as error:
            raise ControllerNotReadyError("it has not created its token yet") from error

    async def hang_up(self) -> None:
        forget_token()
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close()

    async def complaint(self) -> str:
        try:
            async with asyncio.timeout(_COMPLAINT_TIMEOUT_S):
                failure = await run_bulk(ray_core.kv_get, CONTROLLER_FAILURE_KEY)
        except TimeoutError:
            return ""
        return f"its start fails: {failure.decode()}" if failure else ""


async def _dial() -> grpc.aio.Channel:
    address = await run_bulk(ray_core.kv_get, CONTROLLER_ADDRESS_KEY)
    if address is None:
        raise ControllerNotReadyError("it is still starting")
    return open_channel(address.decode())
