"""The caller's end of a link: it sends Hello and calls, and hands results back to the calls and the router.

Theory of operation. The link knows no socket: calls and messages of the replica come in, frames for its writer go out,
and the router, which observes it, hears of loads, rejections, results, and of the end of the link with the calls it
still held. `mesh.link.link_connection` connects, carries the messages and sees the end.

A call is on the link from `send` until its Result or Reject, also when the caller has lost interest (a Cancel does not
end it): so the link's number of calls is what the replica really has from us.
"""

from __future__ import annotations

import logging
from typing import Protocol

from mesh.cluster.ray_objects import StoredObject, load_buffers
from mesh.exceptions import CancelReason, ReplicaUnavailableError
from mesh.link import frames
from mesh.link.frames import LargeMessage
from mesh.link.link_phases import CALLER_TRANSITIONS, CallerEvent, CallerPhase
from mesh.link.outgoing_call import SENT, CallRequest, OutgoingCall
from mesh.link.parts import Assembler, MalformedFrameError, PartView, read_part, unpack_part
from mesh.link.replica_facts import ReplicaFacts
from mesh.link.small_frames import receive_frames
from mesh.link.writer import LinkWriter
from mesh.phases.transitions import WrongTransitionError, next_state
from mesh.rpc.status_codes import OK
from mesh.settings import settings
from mesh.v1 import common_pb2, replica_pb2
from mesh.wire.blocking_work import Work, run_blocking
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import Outcome, Times, failed, read_status
from mesh.wire.payload import PICKLE_BUFFERS, Payload

logger = logging.getLogger("mesh")

_CUT_OFF = -1
"""The mark of a large Open of which the writer drops the rest."""


class LinkObserver(Protocol):
    """What a link reports to its router. On the I/O loop. Implemented by routing.router."""

    def on_ready(self, link: CallerLink) -> None: ...

    def on_load(self, link: CallerLink) -> None:
        """`link.others_ongoing`, `link.facts` or the phase of the link has changed."""

    def on_result(self, link: CallerLink, call: OutgoingCall, outcome: Outcome) -> None: ...

    def on_undeliverable(self, call: OutgoingCall) -> None:
        """A response of the call has come, but what should have taken it raised."""

    def on_reject(self, link: CallerLink, call: OutgoingCall) -> None:
        """The replica did not run the call; if `link.is_draining`, it will not run another one."""

    def on_broken(self, link: CallerLink, reason: str, unsent: list[OutgoingCall], sent: list[OutgoingCall]) -> None:
        """The link is gone, with calls that never left and calls that may have run."""


class CallerLink:
    """One attempt to be connected to one replica; a new one is made to reconnect. On the I/O loop."""

    def __init__(self, replica_id: str, observer: LinkObserver) -> None:
        self.replica_id = replica_id
        self._observer = observer
        self._calls: dict[int, OutgoingCall] = {}
        self._open_marks: dict[int, int | LargeMessage] = {}
        """By call: how many small frames the writer had accepted when its Open was queued; a large Open itself, until
        that is cut off."""
        self._assembler = Assembler(settings().payload.message_max_bytes)
        self._fetching = 0
        """Results whose stored buffers are being fetched: the replica keeps them while the link is there."""
        self._writer: LinkWriter | None = None
        self.phase = CallerPhase.CONNECTING
        self.others_ongoing = 0
        """Calls of other callers at the replica, by its last load report."""
        self.facts = ReplicaFacts()

    def __repr__(self) -> str:
        return f"<CallerLink to {self.replica_id}, {self.phase.name}, {len(self._calls)} calls>"

    @property
    def is_usable(self) -> bool:
        """Whether new calls may be sent."""
        return self.phase is CallerPhase.READY

    @property
    def is_draining(self) -> bool:
        return self.phase is CallerPhase.DRAINING

    @property
    def ongoing(self) -> int:
        """Calls of ours that the replica has."""
        return len(self._calls)

    @property
    def is_idle(self) -> bool:
        return not self._calls and not self._fetching

    @property
    def unfinished(self) -> int:
        """Large messages of the replica that have not arrived as a whole, and calls whose Open frame has not left."""
        return len(self._assembler) + len(self._open_marks)

    # ---- Calls -------------------------------------------------------------------------------------------------------

    def send(self, call: OutgoingCall) -> None:
        """Raises TypeError, ValueError or OverflowError, and does nothing, for a call that no frame can carry."""
        packed = frames.pack_open(call.call_id, call.request)
        writer = self._writer
        assert writer is not None
        call.link = self
        call.state = SENT
        self._calls[call.call_id] = call
        self._open_marks[call.call_id] = writer.accepted if isinstance(packed, bytes) else packed
        writer.send(packed, call.call_id)

    def send_item(self, call: OutgoingCall, payload: Payload) -> None:
        self._write(frames.pack_item(call.call_id, payload), call.call_id)

    def send_half_close(self, call: OutgoingCall) -> None:
        self._write(frames.pack_half_close(call.call_id), call.call_id)

    def send_credit(self, call: OutgoingCall, credits: int) -> None:
        self._write(frames.pack_credit(call.call_id, credits), call.call_id)

    def cancel(self, call: OutgoingCall, reason: CancelReason) -> None:
        """Ask the replica to cancel the call, which stays on the link until its Result."""
        if call.call_id not in self._calls or self._writer is None:
            return
        if self._writer.discard(call.call_id):
            self._open_marks[call.call_id] = _CUT_OFF
        self._writer.send(frames.pack_cancel(call.call_id, reason))
        # Its caller counts this memory no longer, and the Result may take long. The replica may still fetch what is
        # stored.
        payload = call.request.payload
        if payload is not None and payload.stored is None:
            call.request.payload = None

    def release(self, object_id: bytes) -> None:
        """Let the replica drop a stored object, which has arrived here."""
        self._write(frames.pack_release(object_id))

    def _write(self, packed: frames.Packed, call_id: int = 0) -> None:
        """Without effect once the link has ended. Calls check that they are on a link; see OutgoingCall."""
        if self._writer is not None:
            self._writer.send(packed, call_id)

    # ---- Life --------------------------------------------------------------------------------------------------------

    def stop_accepting(self) -> None:
        """Finish the calls that it has, but take no new ones."""
        self._move(CallerEvent.DRAIN)

    def open(self, writer: LinkWriter) -> None:
        """The replica has begun to answer: what is sent from now on goes to `writer`."""
        self._writer = writer

    def receive(self, data: bytes) -> None:
        """One message of the replica. Raises MalformedFrameError or DecodeError: the replica is at fault."""
        part = unpack_part(data)
        if part is not None:
            self.receive_part(part)
            return
        receive_frames(data, self)

    def receive_part(self, part: PartView) -> None:
        """A part of a large message, or a piece of one. Raises as `receive` does."""
        if part.call_id not in self._calls:
            return
        whole = self._assembler.add(part)
        if whole is not None:
            self.on_frame(*whole)

    def end(self, reason: str) -> None:
        """Report that the link is gone, with the calls that it still held."""
        self._move(CallerEvent.BREAK)
        unsent = [call for call in self._calls.values() if self._is_unsent(call)]
        sent = [call for call in self._calls.values() if not self._is_unsent(call)]
        self._calls = {}
        self._writer = None
        self._observer.on_broken(self, reason, unsent, sent)

    def _move(self, event: CallerEvent) -> None:
        self.phase = next_state(CALLER_TRANSITIONS, self.phase, event)

    def _on_event(self, event: CallerEvent) -> None:
        """A frame's event: if it does not fit the phase, the replica is at fault."""
        try:
            self._move(event)
        except WrongTransitionError as error:
            raise MalformedFrameError(str(error)) from None

    def _is_unsent(self, call: OutgoingCall) -> bool:
        assert self._writer is not None
        mark = self._open_marks[call.call_id]
        return mark >= self._writer.written if isinstance(mark, int) else not mark.is_taken

    # ---- Frames ------------------------------------------------------------------------------------------------------

    def on_open(self, call_id: int, request: CallRequest, credit: int) -> None:
        raise MalformedFrameError("unexpected frame 'open' from a replica")

    def on_small_result(self, call_id: int, payload: Payload, ongoing: int | None, times: Times) -> None:
        call = self._calls.pop(call_id, None)
        if call is None:
            return
        del self._open_marks[call_id]
        if ongoing is not None:
            self.others_ongoing = max(0, ongoing - len(self._calls))
        self._assembler.discard(call_id)
        try:
            # By position, because names take half as long again.
            self._observer.on_result(self, call, Outcome(OK, "", payload, (), b"", "", "", times))
        except Exception:
            _give_up(call, self._observer)

    def on_item(self, call_id: int, payload: Payload) -> None:
        call = self._calls.get(call_id)
        if call is not None and call.state is SENT:
            try:
                call.sink.on_item(payload)
            except Exception:
                _give_up(call, self._observer)

    def on_frame(self, frame: replica_pb2.Frame, body: memoryview | None) -> None:
        match frame.WhichOneof("kind"):
            case "result":
                self._on_result(frame.call_id, frame.result, body)
            case "item":
                self.on_item(frame.call_id, frames.read_payload(frame.item.payload, body))
            case "credit" | "initial_metadata" | "compression":
                call = self._calls.get(frame.call_id)
                if call is not None and call.state is SENT:
                    try:
                        _pass_on(frame, call)
                    except Exception:
                        _give_up(call, self._observer)
            case "load":
                self._on_load(frame.load)
            case "reject":
                self._on_reject(frame.call_id, frame.reject)
            case "part":
                self.receive_part(read_part(frame.call_id, frame.part))
            case _:
                self._on_link_frame(frame)

    def _on_load(self, load: common_pb2.Load) -> None:
        ours = len(self._calls)
        self.others_ongoing = max(0, load.ongoing - ours)
        self._observer.on_load(self)
        if load.offers_place and len(self._calls) == ours:
            self._write(frames.pack_decline())

    def _on_link_frame(self, frame: replica_pb2.Frame) -> None:
        match frame.WhichOneof("kind"):
            case "welcome":
                self._on_event(CallerEvent.WELCOME)
                self.others_ongoing = frame.welcome.load.ongoing
                self.facts = ReplicaFacts.read(frame.welcome)
                self._observer.on_ready(self)
            case "drain":
                self._on_event(CallerEvent.DRAIN)
                self._take_back_unsent()
                # Behind the last Open: when the replica reads this, nothing of ours can be lost on the way to it.
                self._write(frames.pack_drain())
                self._observer.on_load(self)
            case "models" | "routing_stats":
                self.facts = self.facts.changed_by(frame)
                self._observer.on_load(self)
            case kind:
                raise MalformedFrameError(f"unexpected frame {kind!r} from a replica")

    def _take_back_unsent(self) -> None:
        """Give back large calls that have not left completely: the replica would refuse them."""
        assert self._writer is not None
        for call in list(self._calls.values()):
            mark = self._open_marks[call.call_id]
            if isinstance(mark, LargeMessage) and not mark.is_taken and self._writer.discard(call.call_id):
                self._writer.send(frames.pack_cancel(call.call_id, CancelReason.DRAIN))
                del self._calls[call.call_id], self._open_marks[call.call_id]
                self._observer.on_reject(self, call)

    def _on_result(self, call_id: int, result: replica_pb2.Result, body: memoryview | None) -> None:
        call = self._calls.pop(call_id, None)
        if call is None:
            return
        del self._open_marks[call_id]
        if result.HasField("load"):
            self.others_ongoing = max(0, result.load.ongoing - len(self._calls))
        payload = frames.read_payload(result.payload, body) if result.HasField("payload") else None
        outcome = read_status(result.status, payload) if result.HasField("status") else Outcome(payload=payload)
        outcome.times = result.queue_us, result.user_us
        if body is None:
            self._assembler.discard(call_id)
        stored = payload.stored if payload is not None else None
        if stored is not None and call.state is SENT:
            self._fetching += 1
            io_thread().spawn(self._fetch(call, outcome, stored), "fetch-stored-result")
            return
        if stored is not None:  # its caller has left: nothing is to be fetched from another node for it
            self.release(stored.object_id)
        self._report_result(call, outcome)

    async def _fetch(self, call: OutgoingCall, outcome: Outcome, stored: StoredObject) -> None:
        """Map a result's stored buffers, release the replica's copy, then hand the result on."""
        try:
            buffers = await run_blocking(Work.FETCH, load_buffers, stored, call.request.deadline_at_s)
            outcome.payload = Payload(PICKLE_BUFFERS, outcome.payload.data if outcome.payload else b"", buffers)
        except Exception as error:  # Ray raises many types when the owner or its node is gone
            outcome = failed(ReplicaUnavailableError(self.replica_id, f"its result was lost: {error}"))
        finally:
            self._fetching -= 1
            self.release(stored.object_id)
        self._report_result(call, outcome)

    def _report_result(self, call: OutgoingCall, outcome: Outcome) -> None:
        try:
            self._observer.on_result(self, call, outcome)
        except Exception:
            _give_up(call, self._observer)

    def _on_reject(self, call_id: int, reject: replica_pb2.Reject) -> None:
        call = self._calls.pop(call_id, None)
        if call is None:
            return
        del self._open_marks[call_id]
        if reject.draining:
            self._on_event(CallerEvent.DRAIN)
        self.others_ongoing = max(0, reject.load.ongoing - len(self._calls))
        self._observer.on_reject(self, call)


def _pass_on(frame: replica_pb2.Frame, call: OutgoingCall) -> None:
    """Give the call what comes ahead of its items and between them."""
    match frame.WhichOneof("kind"):
        case "credit":
            call.request_credit += frame.credit.credits
            call.sink.on_credit()
        case "compression":
            call.sink.on_compression(frame.compression.encoding, skips_next=frame.compression.skips_next)
        case "initial_metadata":
            call.sink.on_initial_metadata(tuple((entry.key, entry.value) for entry in frame.initial_metadata.entries))


def _give_up(call: OutgoingCall, observer: LinkObserver) -> None:
    """End a call whose response could not be delivered; its link goes on. While the exception is handled."""
    logger.exception("a call of %s ends: its process failed to take a response", call.request.method)
    observer.on_undeliverable(call)
