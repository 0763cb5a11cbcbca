"""The events of the mesh: what the controller has decided and seen, kept over its restarts.

An event is a log line of the controller, so no decision can be missing here that its log has. They are bounded in
number (see `mesh.controller.kept_events`) and length, and stored together from time to time: a controller that crashes
loses the last seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from google.protobuf.message import DecodeError

from mesh.cluster.keys import EVENTS_KEY
from mesh.controller.kept_events import KeptEvents
from mesh.controller.store.desired_store import StateStore, StoreError
from mesh.settings import settings
from mesh.v1 import control_pb2
from mesh.wire.blocking_work import Work, run_blocking
from mesh.wire.outcome import as_utf8

logger = logging.getLogger("mesh")

_TEXT_MAX_CHARS = 400


class EventLog(logging.Handler):
    """Takes records of the mesh's own loggers, from any thread. `load` and `keep` belong to the event loop."""

    def __init__(self, unix_clock: Callable[[], float]) -> None:
        super().__init__(logging.INFO)
        self.addFilter(logging.Filter("mesh"))
        self._unix_clock = unix_clock
        self._events = KeptEvents(settings().controller.events_kept)
        self._last_number = 0
        self._stored_number = 0

    def __repr__(self) -> str:
        return f"<EventLog {len(self._events)} events, the last is {self._last_number}>"

    def emit(self, record: logging.LogRecord) -> None:
        """Called with the handler's lock held."""
        now_s = self._unix_clock()
        # Numbers of the next controller are larger, even if this one could not store its last events.
        self._last_number = max(self._last_number + 1, int(now_s * 1e6))
        # What logs must not fail because of text that no message can hold.
        text = as_utf8(record.getMessage().partition("\n")[0][:_TEXT_MAX_CHARS])
        self._events.add(
            control_pb2.Event(
                number=self._last_number, unix_time_s=now_s, is_warning=record.levelno > logging.INFO, text=text
            )
        )

    def since(self, number: int) -> list[control_pb2.Event]:
        """Those after that number, oldest first."""
        with self.lock or contextlib.nullcontext():
            return [event for event in self._events if event.number > number]

    async def load(self, store: StateStore) -> None:
        """Take over the events of earlier controllers. Raises StoreError."""
        stored = _read(await run_blocking(Work.STORE, store.load_events))
        with self.lock or contextlib.nullcontext():
            self._events = KeptEvents(settings().controller.events_kept, [*stored.events, *self._events])
            self._stored_number = max((event.number for event in stored.events), default=0)
            self._last_number = max(self._last_number, self._stored_number)

    async def keep(self, store: StateStore) -> None:
        """Store new events from time to time; runs until it is cancelled. What cannot be stored is tried again."""
        while True:
            await asyncio.sleep(settings().controller.events_interval_s)
            if self._last_number == self._stored_number:
                continue
            number = self._last_number
            try:
                await run_blocking(Work.STORE, store.save_events, self._message())
            except StoreError:
                continue  # a line about it would be a new event each time
            self._stored_number = number

    def save(self, store: StateStore) -> None:
        """Store the events once more before the process ends. Blocking, from any thread. Raises StoreError."""
        store.save_events(self._message())

    def _message(self) -> bytes:
        return control_pb2.EventsReply(events=self.since(0)).SerializeToString()


def _read(data: bytes) -> control_pb2.EventsReply:
    try:
        return control_pb2.EventsReply.FromString(data)
    except DecodeError as error:
        logger.warning(
            "the events before, %s of the cluster's key-value store, cannot be read and are lost: %s", EVENTS_KEY, error
        )
        return control_pb2.EventsReply()
