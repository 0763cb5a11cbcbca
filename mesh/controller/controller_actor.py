"""The controller's actor: it builds the parts of the controller and serves the Control service."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import grpc.aio

from mesh.cluster import ray_core
from mesh.controller.actors.ray_runtime import RayRuntime
from mesh.controller.control_loop import ControlLoop
from mesh.controller.control_servicer import ControlServicer
from mesh.controller.event_log import EventLog
from mesh.controller.loop_watchdog import LoopWatchdog
from mesh.controller.own_changes import Clocks
from mesh.controller.report.controller_metrics import controller_samples
from mesh.controller.report.loop_metrics import loop_samples
from mesh.controller.report.mesh_picture import ControllerIdentity
from mesh.controller.report.publisher import Publisher
from mesh.controller.stack_text import awaits_of, thread_stacks
from mesh.controller.store.desired_store import StateStore, StoreError
from mesh.controller.store.timed_key_value import TimedKeyValue
from mesh.logs.log_files import LogName
from mesh.logs.log_setup import begin_process
from mesh.options.logging_options import logging_of_mesh
from mesh.settings import settings
from mesh.v1 import control_pb2, control_pb2_grpc
from mesh.wire import telemetry
from mesh.wire.endpoints import generic_handlers, start_server
from mesh.wire.io_thread import io_thread
from mesh.wire.link_tls import link_tls
from mesh.wire.mesh_token import TokenGuard, create_token, mesh_id, mesh_token
from mesh.wire.process_service import new_process_id, process_service

logger = logging.getLogger("mesh")

_FAILURE_MAX_CHARS = 2000
_RECORD_TIMEOUT_S = 5.0
"""How long the last events, or why it cannot start, may take to be stored before the process ends."""
_LOG_NAME = LogName("controller")

T = TypeVar("T")


class ControllerActor:
    """Spawned once per mesh; Ray restarts it when it dies. It never unpickles what users deploy."""

    def __init__(self, gateway_options: bytes) -> None:
        """`gateway_options`: a serialised GatewayOptions, for a mesh that has no stored state yet."""
        self._gateway_options = control_pb2.GatewayOptions.FromString(gateway_options)
        self._logs = begin_process(self, _LOG_NAME, logging_of_mesh(self._gateway_options))
        self._server: grpc.aio.Server | None = None
        self._start = io_thread().submit(self._begin())
        self._start.add_done_callback(_end_if_failed)

    async def ready(self) -> str:
        """Wait until it serves; returns "host:port" of the Control service. Raises why it cannot serve."""
        # Shielded: a cancelled wait must not cancel the start.
        return await asyncio.shield(asyncio.wrap_future(self._start))

    async def _begin(self) -> str:
        """Start to serve. A failure is stored in the KV for waiting clients; a successful start removes it."""
        kv = TimedKeyValue(_RayKeyValue())
        store = StateStore(kv, on_fenced=_end_fenced)
        try:
            address = await self._serve_in_time(kv, store)
        except Exception as error:
            with contextlib.suppress(StoreError, TimeoutError):
                reason = f"{type(error).__name__}: {error}"[:_FAILURE_MAX_CHARS]
                async with asyncio.timeout(_RECORD_TIMEOUT_S):
                    await asyncio.to_thread(store.put_failure, reason)
            raise
        # At the end of the constructor Ray has named the process after the class again.
        ray_core.name_this_actor(self, _LOG_NAME.title)
        return address

    async def _serve_in_time(self, kv: TimedKeyValue, store: StateStore) -> str:
        """The watchdog comes with the control loop: until then this is the limit of what Ray does not answer."""
        timeout_s = settings().controller.start_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await self._serve(kv, store)
        except TimeoutError as error:
            raise TimeoutError(f"it does not serve {timeout_s:g} s after its start") from error

    async def _serve(self, kv: TimedKeyValue, store: StateStore) -> str:
        await asyncio.to_thread(create_token)
        await asyncio.to_thread(link_tls)
        # Versions must exceed those of earlier controllers, which published less than one version per microsecond.
        publisher = Publisher(first_version=time.time_ns() // 1000)
        loop = ControlLoop(
            store,
            RayRuntime(time.monotonic, time.time),
            publisher,
            clocks=Clocks(time.monotonic, time.time),
            new_id=lambda: uuid.uuid4().hex[:8],
            spawn_task=io_thread().spawn,
        )
        events = EventLog(time.time)
        self._logs.copy_to(events)
        await events.load(store)
        await loop.begin(self._gateway_options)
        io_thread().spawn(events.keep(store), "events")
        identity = ControllerIdentity(
            pid=os.getpid(),
            node_id=ray_core.node_id(),
            started_unix_s=time.time(),
            restarts=store.epoch - 1,
            mesh_id=mesh_id(mesh_token()),
        )
        running = io_thread().spawn(loop.run(), "control loop")
        running.add_done_callback(_end_with)
        on_hang = functools.partial(_end_hung, running, lambda: events.save(store))
        watchdog = LoopWatchdog(io_thread(), lambda: loop.times.turns.total(), on_hang, settings().controller)
        watchdog.start()
        telemetry.register(watchdog.samples)
        telemetry.register(lambda: controller_samples(loop.picture(), identity))
        telemetry.register(lambda: loop_samples(loop.times, publisher, kv))
        own = control_pb2.ProcessHello(
            process_id=new_process_id(identity.node_id),
            node_id=identity.node_id,
            kind=control_pb2.PROCESS_KIND_CONTROLLER,
        )
        # Other options than the first ones may be stored.
        self._logs.configure(logging_of_mesh(loop.picture().desired.gateways))
        servicer = ControlServicer(loop, publisher, time.time, identity, events, self._logs.configure)
        handlers = generic_handlers(control_pb2_grpc.add_ControlServicer_to_server, servicer)
        node_ip = await asyncio.to_thread(ray_core.node_ip)
        self._server, port = await start_server(
            [TokenGuard(handlers), TokenGuard(process_service(own.process_id))],
            settings().process.server_host or node_ip,
        )
        address = own.address = f"{node_ip}:{port}"
        publisher.own_process = own
        await asyncio.to_thread(store.put_address, address)
        return address


def _end_if_failed(start: Future[str]) -> None:
    """End the process of a controller that failed to start, so that Ray restarts it. Until then `ready` raises why."""
    if start.cancelled() or (error := start.exception()) is None:
        return
    pause_s = settings().controller.restart_pause_s
    logger.error("the controller could not start; the next attempt is in %g s", pause_s, exc_info=error)
    threading.Timer(pause_s, os._exit, (1,)).start()


def _end_with(loop: asyncio.Task[None]) -> None:
    """A controller without its loop serves a picture that grows old: Ray starts another one."""
    if not loop.cancelled():
        logger.critical("the control loop has ended: so does this controller", exc_info=loop.exception())
        os._exit(1)


def _end_fenced() -> None:
    """Ray has taken this process for dead, and started another controller: what this one does would undo its work."""
    logger.critical("another controller of this mesh has started: this one ends")
    os._exit(1)


def _end_hung(control_loop: asyncio.Task[None], save_events: Callable[[], None], reason: str) -> None:
    """Log where everything stands, store that as an event, and end the process, so that Ray restarts the controller."""

    def record() -> None:
        stacks = f"{awaits_of(control_loop)}\n{thread_stacks()}"
        logger.critical("%s: this controller ends, and Ray starts another one\n%s", reason, stacks)
        save_events()

    # What hangs may hold a lock that this needs.
    recorder = threading.Thread(target=record, name="mesh-last-record", daemon=True)
    recorder.start()
    recorder.join(_RECORD_TIMEOUT_S)
    os._exit(1)


class _RayKeyValue:
    """The cluster's KV as a KeyValue of the store."""

    def get(self, key: str) -> bytes | None:
        return _answer(lambda: ray_core.kv_get(key))

    def put(self, key: str, value: bytes) -> None:
        _answer(lambda: ray_core.kv_put(key, value))

    def delete(self, key: str) -> None:
        _answer(lambda: ray_core.kv_delete(key))

    def keys(self, prefix: str) -> list[str]:
        return _answer(lambda: ray_core.kv_keys(prefix))


def _answer(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except Exception as error:  # whatever Ray raises while its GCS is away
        raise StoreError(f"the cluster's KV does not answer: {error}") from error
