"""Owns the controller's process: it puts the parts together and serves."""

from __future__ import annotations

import asyncio
import time
import uuid

import grpc.aio

from mesh import ray_core
from mesh.controller.loop import ControlLoop
from mesh.controller.publish import Publisher
from mesh.controller.ray_runtime import RayRuntime
from mesh.controller.servicer import ControlServicer
from mesh.controller.store import StateStore
from mesh.settings import settings
from mesh.v1 import control_pb2, control_pb2_grpc
from mesh.wire.endpoints import generic_handlers, start_server
from mesh.wire.io_thread import io_thread
from mesh.wire.token import TokenGuard, create_token


class ControllerActor:
    """Spawned once per mesh; Ray restarts it when it dies. It never unpickles what users deploy."""

    def __init__(self, gateway_options: bytes) -> None:
        """`gateway_options`: a serialised GatewayOptions, for a mesh that has no stored state yet."""
        self._gateway_options = control_pb2.GatewayOptions.FromString(gateway_options)
        self._server: grpc.aio.Server | None = None
        self._start = io_thread().submit(self._serve())

    async def ready(self) -> str:
        """Wait until it serves; returns "host:port" of the Control service."""
        # Shielded: whoever stops waiting must not stop the start.
        return await asyncio.shield(asyncio.wrap_future(self._start))

    async def _serve(self) -> str:
        await asyncio.to_thread(create_token)
        store = StateStore(_RayKeyValue())
        # Versions must not fall behind those an earlier controller has told; no clock runs a version per microsecond.
        publisher = Publisher(first_version=time.time_ns() // 1000)
        loop = ControlLoop(
            store,
            RayRuntime(time.monotonic, time.time),
            publisher,
            clock=time.monotonic,
            new_id=lambda: uuid.uuid4().hex[:8],
            spawn_task=io_thread().spawn,
        )
        await loop.begin(self._gateway_options)
        io_thread().spawn(loop.run(), "control loop")
        servicer = ControlServicer(loop, publisher, time.time)
        handlers = generic_handlers(control_pb2_grpc.add_ControlServicer_to_server, servicer)
        self._server, port = await start_server([TokenGuard(handlers)], settings().server_host)
        address = f"{await asyncio.to_thread(ray_core.node_ip)}:{port}"
        await asyncio.to_thread(store.put_address, address)
        return address


class _RayKeyValue:
    """The cluster's KV behind the store's seam."""

    def get(self, key: str) -> bytes | None:
        return ray_core.kv_get(key)

    def put(self, key: str, value: bytes) -> None:
        ray_core.kv_put(key, value)

    def delete(self, key: str) -> None:
        ray_core.kv_delete(key)

    def keys(self, prefix: str) -> list[str]:
        return ray_core.kv_keys(prefix)
