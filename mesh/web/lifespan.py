"""The lifespan of an ASGI application: its startup and its shutdown, in one task."""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from typing import Any

from mesh.exceptions import MeshException
from mesh.phases.transitions import next_state
from mesh.web.asgi_types import AsgiApp, Message
from mesh.wire.outcome import describe

logger = logging.getLogger("mesh")


class LifespanPhase(Enum):
    STARTING = "starting"
    STARTED = "started"
    STOPPING = "stopping"
    FAILED = "failed"
    """The application has said so."""
    ENDED = "ended"


class LifespanEvent(Enum):
    STARTED = "lifespan.startup.complete"
    FAILED_START = "lifespan.startup.failed"
    STOP = "stop"
    STOPPED = "lifespan.shutdown.complete"
    FAILED_STOP = "lifespan.shutdown.failed"
    RETURN = "return"
    """The application has returned or raised without a word about it."""


TRANSITIONS = {
    (LifespanPhase.STARTING, LifespanEvent.STARTED): LifespanPhase.STARTED,
    (LifespanPhase.STARTING, LifespanEvent.FAILED_START): LifespanPhase.FAILED,
    (LifespanPhase.STARTING, LifespanEvent.RETURN): LifespanPhase.ENDED,
    (LifespanPhase.STARTED, LifespanEvent.STOP): LifespanPhase.STOPPING,
    (LifespanPhase.STARTED, LifespanEvent.RETURN): LifespanPhase.ENDED,
    (LifespanPhase.STOPPING, LifespanEvent.STOPPED): LifespanPhase.ENDED,
    (LifespanPhase.STOPPING, LifespanEvent.FAILED_STOP): LifespanPhase.FAILED,
    (LifespanPhase.STOPPING, LifespanEvent.RETURN): LifespanPhase.ENDED,
    (LifespanPhase.FAILED, LifespanEvent.RETURN): LifespanPhase.FAILED,
    (LifespanPhase.ENDED, LifespanEvent.RETURN): LifespanPhase.ENDED,
}


class Lifespan:
    """On the user loop."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._phase = LifespanPhase.STARTING
        self._failure = ""
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._inbox: asyncio.Queue[str] = asyncio.Queue()
        self._has_started = asyncio.Event()
        self.state: dict[str, Any] = {}
        """What the application leaves there at its startup; each request gets a copy."""

    def __repr__(self) -> str:
        return f"<Lifespan {self._phase.name}>"

    async def start(self) -> None:
        """Wait for the startup, which may take as long as a constructor. Raises MeshException if it fails.

        An application that raises or returns without an answer knows no lifespan: that is not a failure.
        """
        self._inbox.put_nowait("lifespan.startup")
        self._task = asyncio.create_task(self._run(), name="asgi-lifespan")
        try:
            await self._has_started.wait()
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if self._phase is LifespanPhase.FAILED:
            await asyncio.wait([self._task])
            raise MeshException(f"The startup of the ASGI application failed: {self._failure}") from self._error

    async def stop(self) -> None:
        """Wait for the shutdown, as long as the caller lets it. Raises MeshException if it fails.

        Without effect if the application knows no lifespan.
        """
        if self._task is None or self._phase is not LifespanPhase.STARTED:
            return
        self._move(LifespanEvent.STOP)
        self._inbox.put_nowait("lifespan.shutdown")
        try:
            await asyncio.wait([self._task])
        finally:
            self._task.cancel()
        # Compared as values: mypy does not see that the task has changed the phase.
        if self._phase.value == LifespanPhase.FAILED.value:
            raise MeshException(f"The shutdown of the ASGI application failed: {self._failure}") from self._error

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as error:  # the application's own
            self._error = error
            if self._phase is not LifespanPhase.FAILED:
                logger.info("the ASGI application ended its lifespan: %s", describe(error))
        finally:
            self._move(LifespanEvent.RETURN)
            self._has_started.set()

    async def _receive(self) -> Message:
        return {"type": await self._inbox.get()}

    async def _send(self, message: Message) -> None:
        event = LifespanEvent(message["type"])
        if event in (LifespanEvent.FAILED_START, LifespanEvent.FAILED_STOP):
            # Starlette sends the whole traceback, of which the last line says what happened.
            self._failure = str(message.get("message") or "it gave no reason").strip().rpartition("\n")[2]
        self._move(event)
        self._has_started.set()

    def _move(self, event: LifespanEvent) -> None:
        self._phase = next_state(TRANSITIONS, self._phase, event)
