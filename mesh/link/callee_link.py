"""The replica's end of links: it admits a caller's calls and sends back results. I/O loop only.

Theory of operation. Each Open is admitted or rejected immediately. Admitted calls go to the `CallService`, the
replica's executor, which answers through the IncomingCall. When a link ends, its calls are cancelled, but they hold
their places until the user's code has ended. The link knows no socket and has no task: messages of the caller come in,
frames for its writer go out. `mesh.link.link_servicer` accepts the caller, carries the messages and sees the end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from mesh.cluster.ray_objects import StoredObject
from mesh.exceptions import CancelReason, MeshException
from mesh.link import frames
from mesh.link.admission import Admission
from mesh.link.link_phases import CALLEE_TRANSITIONS, CalleeEvent, CalleePhase
from mesh.link.outgoing_call import DEADLINE_TIMER_MAX_S, CallRequest
from mesh.link.parts import Assembler, MalformedFrameError, PartView, read_part, unpack_part
from mesh.link.replica_facts import ReplicaFacts
from mesh.link.small_frames import receive_frames
from mesh.link.writer import LinkWriter
from mesh.phases.transitions import WrongTransitionError, next_state
from mesh.phases.waiting import Waiters
from mesh.rpc.status_codes import CANCELLED, OK
from mesh.settings import settings
from mesh.v1 import replica_pb2
from mesh.wire.outcome import Outcome, Times, Trailers, failed
from mesh.wire.payload import Payload

_CLOSED = CalleePhase.CLOSED
_DEADLINE_GRACE_S = 0.1
"""A caller that is there ends its call itself, and knows better why it took so long."""


class RunningCall(Protocol):
    """A call that the CallService has started. On the I/O loop; must not block. Implemented by replica.execution."""

    def on_item(self, payload: Payload) -> None:
        """One message of the streamed request."""

    def on_half_close(self) -> None:
        """No more request messages follow."""

    def on_credit(self, credits: int) -> None:
        """The caller takes this many more response items."""

    def cancel(self, reason: CancelReason) -> None:
        """End the call soon. Called at most once."""


class CallService(Protocol):
    """Runs admitted calls. On the I/O loop; must not block. Implemented by replica.executor."""

    def start(self, call: IncomingCall) -> RunningCall | None:
        """Start the call, which ends with `call.link.finish`. None: it has ended already."""


class IncomingCall:
    """One call at its replica."""

    __slots__ = (
        "call_id",
        "cancel_reason",
        "credit",
        "keeps_place",
        "link",
        "request",
        "running",
        "started_at_s",
        "timer",
    )

    def __init__(self, link: CalleeLink, call_id: int, request: CallRequest, credit: int) -> None:
        self.link = link
        self.call_id = call_id
        self.request = request
        self.credit = credit
        """Response items that may be sent from the start."""
        self.started_at_s = time.monotonic()
        self.cancel_reason: CancelReason | None = None
        """Set once the call is cancelled."""
        self.running: RunningCall | None = None
        """Cleared when the call ends: the two refer to each other."""
        self.timer: asyncio.TimerHandle | None = None
        """The timer of the call's deadline, if it has one."""
        self.keeps_place = False
        """User code goes on when the call has ended, and the link's `leave_place` follows."""

    def send_item(self, payload: Payload) -> None:
        """Send one response item, unless the call is cancelled."""
        if self.cancel_reason is None:
            self.link.send(frames.pack_item(self.call_id, payload), self.call_id)

    def send_initial_metadata(self, entries: Trailers) -> None:
        """Send the headers of a gRPC response, before its first message."""
        if self.cancel_reason is None:
            self.link.send(frames.pack_initial_metadata(self.call_id, entries), self.call_id)

    def set_compression(self, encoding: str, skips_next: bool) -> None:
        """Choose how the messages of a gRPC response are compressed; see Compression in replica.proto."""
        if self.cancel_reason is None:
            self.link.send(frames.pack_compression(self.call_id, encoding, skips_next=skips_next), self.call_id)

    def grant(self, credits: int) -> None:
        """User code consumed `credits` of request items; let the caller send as many more."""
        self.link.send(frames.pack_credit(self.call_id, credits), self.call_id)


class CalleeLink:
    """The calls of one caller process."""

    def __init__(
        self,
        admission: Admission,
        service: CallService,
        writer: LinkWriter,
        end_stream: Callable[[int, str], None],
    ) -> None:
        """`end_stream` is called once, when nothing more is to be written: with a gRPC status and its message."""
        self._admission = admission
        self._service = service
        self._writer = writer
        self._end_stream = end_stream
        self._calls: dict[int, IncomingCall] = {}
        self._assembler = Assembler(settings().payload.message_max_bytes)
        self._dropping: dict[int, int] = {}
        """Calls whose parts are dropped because no place was free for them, and how many bytes are still to come."""
        self._stored: dict[bytes, tuple[int, StoredObject]] = {}
        """Results in the object store that the caller has not fetched yet, with their calls, by object."""
        self._others_reported = 0
        """Other callers' calls, as the caller concludes from its last load report."""
        self.phase = CalleePhase.OPEN
        self._waiters = Waiters()
        """For changes of the phase and of the stored results."""

    def __repr__(self) -> str:
        return f"<CalleeLink {self.phase.name}, {len(self._calls)} calls>"

    @property
    def unfinished(self) -> int:
        """Large messages that have not arrived, or not left, as a whole."""
        return len(self._assembler) + len(self._writer)

    def start(self, facts: ReplicaFacts) -> None:
        """Welcome the caller, with what it is to know of this replica."""
        if self._admission.is_closed:
            # Before it can send a call.
            self.drain()
        self.send(frames.pack_welcome(self._load(), facts))

    def end(self, reason: CancelReason, code: int = OK, text: str = "") -> None:
        """Cancel the link's calls and end its stream with a gRPC status."""
        if self.phase is _CLOSED:
            return
        self._writer.write()
        self._close(reason)
        self._end_stream(code, text)

    def drain(self) -> None:
        """Ask the caller to send no more calls, and to acknowledge that."""
        self._move(CalleeEvent.DRAIN)
        self.send(frames.pack_drain())

    async def wait_drain_acknowledged(self) -> None:
        """Wait until the caller has acknowledged the Drain, or is gone."""
        await self._waiters.until(lambda: self.phase in (CalleePhase.LEFT, CalleePhase.CLOSED))

    async def flush(self) -> None:
        """Wait until the caller has what was sent to it, or is gone."""
        await self._writer.flushed()
        await self._waiters.until(lambda: not self._stored)

    def send(self, packed: frames.Packed, call_id: int = 0) -> None:
        """Queue a frame; without effect once the link has ended."""
        if self.phase is not _CLOSED:
            self._writer.send(packed, call_id)

    def send_state(self, name: str, packed: bytes) -> None:
        """Send the caller a fact that has changed; only the last one of its name counts."""
        if self.phase is not _CLOSED:
            self._writer.send_state(name, packed)

    def push_load(self) -> None:
        """Send the caller a load report."""
        self.send(frames.pack_load(self._load()))

    def offer_place(self) -> None:
        """Send the caller the offer of a place."""
        self.send(frames.pack_load(self._load(), offers_place=True))

    def _close(self, reason: CancelReason) -> None:
        self._move(CalleeEvent.CLOSE)
        self._admission.remove(self)
        self._stored.clear()
        self._writer.close()
        for call in list(self._calls.values()):
            self._cancel(call, reason)

    # ---- From the service --------------------------------------------------------------------------------------------

    def finish(self, call: IncomingCall, outcome: Outcome) -> None:
        """End a call. Exactly once for each."""
        del self._calls[call.call_id]
        call.running = None
        if call.timer is not None:
            call.timer.cancel()
        # The result carries the load.
        self._admission.forget(self)
        if not call.keeps_place:
            self._admission.leave()
        if self.phase is _CLOSED:
            return
        if outcome.payload is not None and outcome.payload.stored is not None:
            self._stored[outcome.payload.stored.object_id] = call.call_id, outcome.payload.stored
        packed = _pack_result(call.call_id, outcome, self._load())
        if type(packed) is not bytes or self._writer.holds(call.call_id):
            # Results of later calls may overtake it, and its load would then contradict theirs.
            self.send(frames.pack_load(self._load()))
            packed = _pack_result(call.call_id, outcome, None)
        self._writer.send(packed, call.call_id)

    def leave_place(self) -> None:
        """Give back the place of a call that has ended before its user code."""
        self._admission.leave()

    def _load(self) -> int:
        """The number of ongoing calls, to be sent to the caller now."""
        ongoing = self._admission.load_for(self)
        self._others_reported = max(0, ongoing - len(self._calls))
        return ongoing

    # ---- Frames ------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """One message of the caller. Raises MalformedFrameError or DecodeError: the caller is at fault."""
        part = unpack_part(data)
        if part is not None:
            self.receive_part(part)
            return
        receive_frames(data, self)

    def receive_part(self, part: PartView) -> None:
        """A part of a large message, or a piece of one. Raises as `receive` does."""
        if self._drop(part):
            return
        whole = self._assembler.add(part)
        if whole is not None:
            self.on_frame(*whole)

    def on_small_result(self, call_id: int, payload: Payload, ongoing: int | None, times: Times) -> None:
        raise MalformedFrameError("unexpected frame 'result' from a caller")

    def on_item(self, call_id: int, payload: Payload) -> None:
        call = self._calls.get(call_id)
        if call is not None and call.running is not None:
            call.running.on_item(payload)

    def on_frame(self, frame: replica_pb2.Frame, body: memoryview | None) -> None:
        call_id = frame.call_id
        kind = frame.WhichOneof("kind")
        if kind == "open":
            self.on_open(call_id, frames.read_open(frame.open, body), frame.open.credit)
            return
        call = self._calls.get(call_id)
        running = call.running if call is not None else None
        match kind:
            case "cancel":
                self._on_cancel(call_id, call, CancelReason(frame.cancel.reason))
            case "item":
                self.on_item(call_id, frames.read_payload(frame.item.payload, body))
            case "half_close" if running is not None:
                running.on_half_close()
            case "credit" if running is not None:
                running.on_credit(frame.credit.credits)
            case "half_close" | "credit":
                pass  # the call ended while the frame was on its way
            case "part":
                self.receive_part(read_part(call_id, frame.part))
            case "release":
                self._drop_stored(frame.release.object_id)
            case "drain":
                self._on_acknowledge()
            case "decline":
                self._admission.decline(self)
            case _:
                raise MalformedFrameError(f"unexpected frame {kind!r} from a caller")

    def on_open(self, call_id: int, request: CallRequest, credit: int) -> None:
        """A new call, parsed before this: a place that is taken for a malformed call would never be given back."""
        if call_id in self._calls or not call_id:
            raise MalformedFrameError(f"call id {call_id} is in use")
        enter = self._admission.enter_beyond if request.is_beyond_limit else self._admission.try_enter
        if not enter(self):
            self._reject(call_id)
            return
        call = self._calls[call_id] = IncomingCall(self, call_id, request, credit)
        if self._others_reported + len(self._calls) >= self._admission.limit:
            self._admission.watch(self)
        if request.deadline_at_s is not None:
            self._start_deadline(call, request.deadline_at_s)
        call.running = self._service.start(call)

    def _move(self, event: CalleeEvent) -> None:
        self.phase = next_state(CALLEE_TRANSITIONS, self.phase, event)
        self._waiters.wake()

    def _on_acknowledge(self) -> None:
        try:
            self._move(CalleeEvent.ACKNOWLEDGE)
        except WrongTransitionError as error:
            raise MalformedFrameError(str(error)) from None

    def _drop(self, part: PartView) -> bool:
        """Drop the parts of a call that comes when no place is free, so that it takes no memory, and reject it then.

        With its last part: its caller may send the same call again as soon as it is rejected.
        """
        call_id = part.call_id
        left_bytes = self._dropping.get(call_id)
        if left_bytes is None:
            if not part.total_bytes or call_id in self._calls or self._admission.has_place_for(self):
                return False
            left_bytes = part.total_bytes
        left_bytes -= len(part.data)
        if left_bytes > 0:
            self._dropping[call_id] = left_bytes
            return True
        self._dropping.pop(call_id, None)
        self._admission.rejected += 1
        self._reject(call_id)
        # A place may be free by now.
        self._admission.watch(self)
        return True

    def _reject(self, call_id: int) -> None:
        # It may be a late item that was dropped: behind the Result of its call, which the caller would send again.
        self.send(frames.pack_reject(call_id, self._load(), is_draining=self._admission.is_closed), call_id)

    def _start_deadline(self, call: IncomingCall, deadline_at_s: float) -> None:
        """End the call here too, shortly after its deadline: its caller may be unable to cancel it, or gone."""
        remaining_s = deadline_at_s - time.monotonic() + _DEADLINE_GRACE_S
        if remaining_s < DEADLINE_TIMER_MAX_S:
            call.timer = asyncio.get_running_loop().call_later(remaining_s, self._cancel, call, CancelReason.DEADLINE)

    def _on_cancel(self, call_id: int, call: IncomingCall | None, reason: CancelReason) -> None:
        # What the caller was sending in parts was cut off.
        self._assembler.discard(call_id)
        self._dropping.pop(call_id, None)
        if call is not None:
            self._cancel(call, reason)
            return
        # Its Open was cut off, or its Result is on the way. Answer in both cases: a caller ignores results of calls
        # that it no longer has.
        if self._writer.discard(call_id):
            for object_id in [each for each, (owner, _) in self._stored.items() if owner == call_id]:
                self._drop_stored(object_id)
        self._admission.decline(self)
        outcome = Outcome(CANCELLED, "cancelled before it ran")
        self.send(frames.pack_result(call_id, outcome, self._load()))

    def _drop_stored(self, object_id: bytes) -> None:
        self._stored.pop(object_id, None)
        if not self._stored:
            self._waiters.wake()

    def _cancel(self, call: IncomingCall, reason: CancelReason) -> None:
        if call.cancel_reason is None:
            call.cancel_reason = reason
            if call.running is not None:
                call.running.cancel(reason)


def _pack_result(call_id: int, outcome: Outcome, load: int | None) -> frames.Packed:
    try:
        return frames.pack_result(call_id, outcome, load)
    except Exception as error:  # protobuf raises many types for what it cannot hold
        # A result that no frame can carry: its caller still waits for one.
        unsendable = failed(MeshException(f"The result cannot be sent: {error}"))
        return frames.pack_result(call_id, unsendable, load)
