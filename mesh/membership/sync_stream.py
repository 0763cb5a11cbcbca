"""The Sync stream of this process to the controller: it sends subscriptions and loads and receives updates.

It reconnects by itself without end. Each time it reads the controller's address from the cluster's KV again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence, Set
from dataclasses import replace
from random import Random
from typing import Protocol

import grpc
import grpc.aio

from mesh.cluster import ray_core
from mesh.cluster.keys import CONTROLLER_ADDRESS_KEY
from mesh.routing.link_pool import CallerIdentity
from mesh.routing.load_reports import LoadReporter, Reading, pause_s
from mesh.routing.router import Router
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.v1 import common_pb2, control_pb2
from mesh.wire.blocking_work import Work, run_blocking
from mesh.wire.duplex import converse
from mesh.wire.endpoints import open_channel
from mesh.wire.io_thread import io_thread
from mesh.wire.mesh_token import token_metadata

logger = logging.getLogger("mesh")

_SYNC_METHOD = "/mesh.v1.Control/Sync"
_random = Random()
"""Not the generator of the program, which may have seeded it."""


class RayLeftError(LookupError):
    """This process has shut its Ray down, so it cannot look for the controller any more."""


class Member(Protocol):
    """What the stream needs of its process; implemented by mesh.membership.mesh_process.MeshProcess."""

    process_id: str
    kind: control_pb2.ProcessKind
    identity: CallerIdentity

    def routers(self) -> Sequence[Router]: ...

    def readings(self) -> list[Reading]: ...

    def drop_deleted_routers(self) -> None: ...

    def keep_snapshots(self, keys: Set[DeploymentKey]) -> None: ...

    def apply(self, update: control_pb2.Update) -> None: ...

    async def renew_token(self) -> None: ...

    def leave_ray(self) -> None: ...


class SyncStream:
    """Keeps one Sync stream to the controller open. On the I/O loop."""

    def __init__(self, process: Member) -> None:
        self._process = process
        self._address = ""
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._subscribed: set[DeploymentKey] = set()
        self._reporter = LoadReporter()
        self._urgent: set[DeploymentKey] = set()
        self._health: control_pb2.ReplicaHealth | None = None
        """To be reported; what it was before the stream broke is not."""
        self.has_answered = False
        """Whether the controller has sent an update on the present stream."""
        self._last_failure = ""

    def __repr__(self) -> str:
        phase = "stopped" if self._task is None or self.has_ended else "open" if self.has_answered else "connecting"
        return f"<SyncStream of {self._process.process_id}, {phase}, subscribed: {len(self._subscribed)}>"

    def start(self, process_address: str) -> None:
        self._address = process_address
        self._task = io_thread().spawn(self._keep(), "sync")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def has_ended(self) -> bool:
        """Whether it was stopped, so that no subscription is answered any more."""
        return self._task is not None and self._task.done()

    def wake(self) -> None:
        """Read and report now instead of at the end of the interval."""
        self._wake.set()

    def report_urgently(self, router: Router) -> None:
        """Report now that calls wait, because the controller has to start a replica for them."""
        self._urgent.add(router.key)
        self._wake.set()

    def report_health(self, health: control_pb2.ReplicaHealth) -> None:
        """Report how the replica in this process has found itself, if there is a stream."""
        self._health = health
        self._wake.set()

    async def _keep(self) -> None:
        delay_s = settings().process.sync_reconnect_delay_min_s
        while True:
            self.has_answered = False
            try:
                await self._attempt()
            except RayLeftError as error:
                self._log_failure(error)
                self._process.leave_ray()
            except Exception as error:  # Ray raises various errors while its GCS restarts; the next attempt may work
                self._log_failure(error)
            if self.has_answered:
                delay_s = settings().process.sync_reconnect_delay_min_s
            # With jitter: all processes lose the controller at the same moment.
            await asyncio.sleep(delay_s * _random.uniform(0.5, 1.0))
            delay_s = min(delay_s * 2, settings().process.sync_reconnect_delay_max_s)

    def _log_failure(self, error: Exception) -> None:
        """An unreachable controller is expected (DEBUG); any other error is a WARNING, once."""
        is_away = isinstance(error, grpc.RpcError | LookupError)
        level = logging.DEBUG if is_away or repr(error) == self._last_failure else logging.WARNING
        logger.log(level, "the stream to the controller broke, reconnecting: %r", error, exc_info=error)
        self._last_failure = repr(error)

    async def _attempt(self) -> None:
        """Run one stream. If the controller does not accept our token, fetch the new one for the next stream."""
        try:
            await self._converse()
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                await self._process.renew_token()
            raise

    async def _converse(self) -> None:
        """Run one stream until it breaks."""
        address = await run_blocking(Work.LOOK_UP, _controller_address)
        if address is None:
            return
        metadata = await run_blocking(Work.LOOK_UP, token_metadata)
        async with open_channel(address.decode()) as channel:
            stream = channel.stream_stream(
                _SYNC_METHOD,
                request_serializer=control_pb2.Report.SerializeToString,
                response_deserializer=control_pb2.Update.FromString,
            )(metadata=metadata)
            try:
                await converse(self._read_updates(stream), self._write_reports(stream))
            finally:
                stream.cancel()

    async def _read_updates(self, stream: grpc.aio.StreamStreamCall) -> None:  # type: ignore[type-arg]
        while isinstance(update := await stream.read(), control_pb2.Update):
            self.has_answered = True
            self._process.apply(update)

    async def _write_reports(self, stream: grpc.aio.StreamStreamCall) -> None:  # type: ignore[type-arg]
        process = self._process
        hello = control_pb2.ProcessHello(
            process_id=process.process_id,
            node_id=process.identity.node_id,
            kind=process.kind,
            address=self._address,
            reads_changes=True,
        )
        self._subscribed.clear()
        self._reporter.restart()
        self._health = None
        report = control_pb2.Report(hello=hello)
        while True:
            self._process.drop_deleted_routers()
            self._update_subscriptions(report)
            readings = self._readings()
            report.loads.extend(self._reporter.take(readings, time.monotonic()))
            if self._health is not None:
                report.health.CopyFrom(self._health)
                self._health = None
            if report.ByteSize():
                await stream.write(report)
            # Not asyncio.wait_for: in Python 3.11 it loses a cancellation that comes together with the wake-up.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s(readings, settings().process.sync_report_interval_s)):
                    await self._wake.wait()
            self._wake.clear()
            report = control_pb2.Report()

    def _update_subscriptions(self, report: control_pb2.Report) -> None:
        wanted = {router.key for router in self._process.routers()}
        report.subscribe.extend(_name_of(key) for key in wanted - self._subscribed)
        report.unsubscribe.extend(_name_of(key) for key in self._subscribed - wanted)
        self._subscribed = wanted
        self._process.keep_snapshots(wanted)

    def _readings(self) -> list[Reading]:
        urgent, self._urgent = self._urgent, set()
        return [
            replace(reading, is_urgent=True) if reading.deployment in urgent else reading
            for reading in self._process.readings()
        ]


def _name_of(key: DeploymentKey) -> common_pb2.DeploymentId:
    return common_pb2.DeploymentId(app=key.app, name=key.name)


def _controller_address() -> bytes | None:
    """None where no controller has started."""
    try:
        return ray_core.kv_get(CONTROLLER_ADDRESS_KEY)
    except Exception as error:  # Ray's own code fails in various ways
        if ray_core.is_connected():
            raise
        raise RayLeftError("this process is not connected to Ray any more") from error
