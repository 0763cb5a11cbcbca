"""The replica as a Ray actor, which the controller calls. Calls come on Ray's loop and go on to the I/O loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from mesh.cluster import ray_core
from mesh.logs.log_files import LogName
from mesh.logs.log_setup import begin_process
from mesh.memory.allocator import keep_freed_memory
from mesh.options.logging_options import logging_of_replica
from mesh.replica.replica import ReplicaProcess
from mesh.tracing.trace_export import choose_tracing
from mesh.usercode.user_failure import errors_as_text
from mesh.v1 import control_pb2
from mesh.wire.io_thread import io_thread

T = TypeVar("T")


class ReplicaActor:
    """A plain class that the spawner makes an actor. Arguments and results are serialised mesh.v1 messages."""

    def __init__(self, spec: bytes) -> None:
        read = control_pb2.ReplicaSpec.FromString(spec)
        self._name = LogName("replica", read.deployment.app, read.deployment.name, read.replica_id)
        keep_freed_memory()
        self._logs = begin_process(self, self._name, logging_of_replica(read))
        choose_tracing(read.mesh_tracing)
        self._replica = ReplicaProcess(read)
        self._start: Future[None] | None = None

    def __repr__(self) -> str:
        """The text that Ray puts before each line of the replica's output on drivers."""
        return self._name.title

    async def locate(self) -> bytes:
        """Answers as soon as there is a process: the id of its node."""
        return ray_core.node_id().encode()

    @errors_as_text
    async def start(self) -> bytes:
        """Build the user's object and serve. Returns ReplicaReady.

        Raises UserCodeError with what the user's code raised. A restarted controller calls again and gets the outcome
        of the same start.
        """
        ray_core.name_this_actor(self, self._name.title)
        if self._start is None:
            self._start = io_thread().submit(self._replica.start())
        # Shielded: the start outlives the controller that asked for it.
        await asyncio.shield(asyncio.wrap_future(self._start))
        return await self.describe()

    async def describe(self) -> bytes:
        """ReplicaReady, for a controller that adopts the replica; without an address while it starts."""
        return self._replica.ready().SerializeToString()

    @errors_as_text
    async def check_health(self) -> None:
        """Raises UserCodeError when the user's `check_health` raises."""
        await _on_io(self._replica.check_health())

    @errors_as_text
    async def check_ready(self) -> bytes:
        """Why the replica takes no calls now; empty: it does."""
        return (await _on_io(self._replica.check_ready())).encode()

    @errors_as_text
    async def reconfigure(self, spec: bytes) -> None:
        """Take over a changed ReplicaSpec in place. Raises UserCodeError where the user's code refuses it."""
        read = control_pb2.ReplicaSpec.FromString(spec)
        await _on_io(self._replica.reconfigure(read))
        self._logs.configure(logging_of_replica(read))

    @errors_as_text
    async def drain(self) -> None:
        """Finish what is ongoing and take the user's object down; the controller then ends the process."""
        await _on_io(self._replica.drain())

    async def wait_closed(self) -> None:
        """Never returns: the caller learns of the process's death by the failure of this call."""
        await asyncio.Event().wait()


async def _on_io(coroutine: Coroutine[Any, Any, T]) -> T:
    return await asyncio.wrap_future(io_thread().submit(coroutine))
