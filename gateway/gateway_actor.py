"""The gateway as a Ray actor: Ray calls its methods on a loop of its own, their work is done on the I/O loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from gateway.node_gateway import NodeGateway
from mesh.cluster import ray_core
from mesh.exceptions import MeshException
from mesh.logs.log_files import LogName
from mesh.logs.log_setup import begin_process
from mesh.membership.mesh_process import GATEWAY, MeshProcess, join
from mesh.memory.allocator import keep_freed_memory
from mesh.options.logging_options import logging_of_mesh
from mesh.tracing.trace_export import choose_tracing
from mesh.usercode.user_failure import errors_as_text
from mesh.v1 import control_pb2
from mesh.wire.io_thread import io_thread

T = TypeVar("T")


class GatewayActor:
    """The gateway of one node. A plain class, which the controller starts as an actor."""

    def __init__(self, spec: bytes) -> None:
        """`spec`: a serialised GatewaySpec."""
        self._spec = control_pb2.GatewaySpec.FromString(spec)
        name = LogName("gateway", process_id=self._spec.gateway_id)
        keep_freed_memory()
        begin_process(self, name, logging_of_mesh(self._spec.options))
        choose_tracing(self._spec.options.tracing)
        self._gateway: NodeGateway | None = None
        self._ready: control_pb2.GatewayReady | None = None
        self._drained: Future[None] | None = None
        """The drain, once it has begun."""
        self._is_starting = asyncio.Lock()

    def __repr__(self) -> str:
        phase = "draining" if self._drained is not None else "starting" if self._ready is None else "serving"
        return f"<GatewayActor {self._spec.gateway_id}, {phase}>"

    @errors_as_text  # add-functions of servicers are the user's
    async def start(self) -> bytes:
        """Open the ports unless they are open or drained. Returns a serialised GatewayReady with their addresses."""
        async with self._is_starting:
            if self._ready is None:
                process = await asyncio.to_thread(join, GATEWAY)
                self._ready = await _on_io_loop(self._start(process))
            return await self.describe()

    async def describe(self) -> bytes:
        """GatewayReady, for a controller that adopts the gateway; without addresses and `pid` while it starts."""
        spec = self._spec
        ready = self._ready or control_pb2.GatewayReady(
            gateway_id=spec.gateway_id, node_id=spec.node_id, index=spec.index, revision=spec.revision
        )
        ready.is_draining = self._drained is not None
        return ready.SerializeToString()

    async def check_health(self) -> None:
        """Raises MeshException when a port has died."""
        if self._gateway is not None:
            await _on_io_loop(self._gateway.check_health())

    async def offer_ports(self) -> bytes:
        """Where the gateway that is to replace this one gets its ports; see `gateway.port_handover`."""
        if self._gateway is None or self._drained is not None:
            raise MeshException("The gateway does not serve.")
        return (await _on_io_loop(_called(self._gateway.offer_ports))).encode()

    async def drain(self) -> None:
        """Refuse new calls and finish those in progress; the controller then ends the process.

        The process does not end itself: Ray would let it answer no controller any more, also not the next one, and wait
        for `wait_closed`.
        """
        if self._gateway is not None:
            if self._drained is None:
                self._drained = io_thread().submit(self._gateway.drain())
            # Shielded: the drain outlives the controller that began it, and the next one waits for the same.
            await asyncio.shield(asyncio.wrap_future(self._drained))

    async def wait_closed(self) -> None:
        """Never returns: callers learn from Ray when this process ends."""
        await asyncio.Event().wait()

    async def _start(self, process: MeshProcess) -> control_pb2.GatewayReady:
        self._gateway = NodeGateway(self._spec, process, ray_core.node_ip())
        ready = await self._gateway.start()
        # Objects of the start live as long as the process: exclude them from garbage collections.
        gc.collect()
        gc.freeze()
        return ready


async def _called(function: Callable[[], T]) -> T:
    return function()


async def _on_io_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    return await asyncio.wrap_future(io_thread().submit(coroutine))
