"""The replica's end of links: it authenticates callers, admits their calls and sends back results. I/O loop only.

Theory of operation. Every link is one RPC of the Replica service. Nothing but Hello is read until its token and replica
id are right: payloads may be pickles. Then each Open is admitted or rejected immediately; admitted calls go to the
`CallService`, the replica's executor, which answers through the IncomingCall. When a link ends, its calls are
cancelled, but they hold their places until the user's code has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from mesh.cluster.ray_objects import StoredObject
from mesh.exceptions import CancelReason, MeshException
from mesh.link import frames
from mesh.link.admission import Admission
from mesh.link.gathering import rule_for
from mesh.link.link_phases import CALLEE_TRANSITIONS, CalleeEvent, CalleePhase
from mesh.link.outgoing_call import CallRequest
from mesh.link.parts import Assembler, MalformedFrameError, PartView, read_part, unpack_part
from mesh.link.writer import CoalescingWriter
from mesh.phases.transitions import WrongTransitionError, next_state
from mesh.phases.waiting import Waiters
from mesh.settings import settings
from mesh.v1 import replica_pb2
from mesh.wire.duplex import raise_defect
from mesh.wire.mesh_token import token_matches
from mesh.wire.outcome import Outcome, failed
from mesh.wire.payload import Payload

_CLOSED = CalleePhase.CLOSED
CANCELLED_CODE: int = grpc.StatusCode.CANCELLED.value[0]


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

    __slots__ = ("call_id", "cancel_reason", "credit", "link", "request", "running", "started_at_s")

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

    def send_item(self, payload: Payload) -> None:
        """Send one response item, unless the call is cancelled."""
        if self.cancel_reason is None:
            self.link.send(frames.pack_item(self.call_id, payload), self.call_id)

    def grant(self, credits: int) -> None:
        """User code consumed `credits` of request items; let the caller send as many more."""
        self.link.send(frames.pack_credit(self.call_id, credits), self.call_id)


class LinkServicer:
    """The Replica service: accepts links."""

    def __init__(
        self, replica_id: str, admission: Admission, service: CallService, links: set[CalleeLink] | None = None
    ) -> None:
        self.replica_id = replica_id
        self.admission = admission
        self.service = service
        self.links: set[CalleeLink] = set() if links is None else links
        self.model_ids: list[str] = []
        self._stopping = asyncio.Event()

    async def Link(self, request_iterator: object, context: grpc.aio.ServicerContext) -> None:  # type: ignore[type-arg]
        del request_iterator
        hello = await self._authenticate(context)
        # Otherwise the first write sends it. If that write is cancelled, grpc.aio sends no status.
        await context.send_initial_metadata(())
        link = CalleeLink(self, context, gathers=hello.gathers)
        self.links.add(link)
        try:
            await link.run(self._stopping)
        except (DecodeError, MalformedFrameError) as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"malformed frames: {error}")
        finally:
            self.links.discard(link)
            link.close(CancelReason.DRAIN if self._stopping.is_set() else CancelReason.LINK_BROKEN)

    def announce_models(self, model_ids: list[str]) -> None:
        """Send all callers the list of models that are here."""
        self.model_ids = model_ids
        for link in self.links:
            link.send(frames.pack_models(model_ids))

    def drain(self) -> None:
        """Refuse new calls from now on, and ask all callers to send none."""
        self.admission.close()
        for link in self.links:
            link.drain()

    async def wait_drain_acknowledged(self) -> None:
        """After `drain`: wait until every caller has acknowledged it, so that no call is on its way to here."""
        await asyncio.gather(*(link.wait_drain_acknowledged() for link in self.links))

    async def flush(self) -> None:
        """Wait until all callers have what was sent to them."""
        await asyncio.gather(*(link.flush() for link in self.links))

    def stop(self) -> None:
        """End all links."""
        self._stopping.set()

    async def _authenticate(self, context: grpc.aio.ServicerContext) -> replica_pb2.Hello:  # type: ignore[type-arg]
        """The caller's Hello; ends the RPC unless it is right."""
        data: object = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(settings().link.connect_timeout_s):
                data = await context.read()
        hello = _read_hello(data) if isinstance(data, bytes) else None
        if hello is None or not token_matches(hello.token):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "This port is the mesh's own; use a gateway.")
        if hello.replica_id != self.replica_id:
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED, f"This is replica {self.replica_id}, not {hello.replica_id}."
            )
        if hello.protocol_version != frames.PROTOCOL_VERSION:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"This replica speaks protocol {frames.PROTOCOL_VERSION}, not {hello.protocol_version}.",
            )
        return hello


class CalleeLink:
    """The calls of one caller process."""

    def __init__(
        self,
        servicer: LinkServicer,
        context: grpc.aio.ServicerContext,  # type: ignore[type-arg]
        *,
        gathers: bool,
    ) -> None:
        self._servicer = servicer
        self._admission = servicer.admission
        self._service = servicer.service
        self._context = context
        self._calls: dict[int, IncomingCall] = {}
        self._writer = CoalescingWriter(context.write, rule_for(gathers=gathers), self._calls.__len__)
        self._assembler = Assembler(settings().payload.message_max_bytes)
        self._stored: dict[bytes, StoredObject] = {}
        """Results in the object store that the caller has not fetched yet."""
        self._others_reported = 0
        """Other callers' calls, as the caller concludes from its last load report."""
        self.phase = CalleePhase.OPEN
        self._waiters = Waiters()
        """For changes of the phase and of the stored results."""

    def __repr__(self) -> str:
        return f"<CalleeLink {self.phase.name}, {len(self._calls)} calls>"

    async def run(self, stopping: asyncio.Event) -> None:
        """Serve until the caller leaves or the replica stops. Raises MalformedFrameError, DecodeError, and defects."""
        if self._admission.is_closed:
            # Before it can send a call.
            self.drain()
        self.send(frames.pack_welcome(self._load(), self._servicer.model_ids))
        writing = asyncio.create_task(self._writer.run(), name="link-writer")
        reading = asyncio.create_task(self._read(), name="link-reader")
        stop = asyncio.create_task(stopping.wait(), name="link-stop")
        try:
            done, _ = await asyncio.wait((writing, reading, stop), return_when=asyncio.FIRST_COMPLETED)
            raise_defect(writing)
            if reading in done:
                reading.result()
        finally:
            for task in (writing, reading, stop):
                task.cancel()
            await asyncio.gather(writing, reading, stop, return_exceptions=True)

    def close(self, reason: CancelReason) -> None:
        """The link has ended: cancel its calls."""
        self._move(CalleeEvent.CLOSE)
        self._admission.forget(self)
        self._stored.clear()
        self._writer.close()
        for call in list(self._calls.values()):
            self._cancel(call, reason)

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

    def push_load(self) -> None:
        """Send the caller a load report."""
        self.send(frames.pack_load(self._load()))

    # ---- From the service --------------------------------------------------------------------------------------------

    def finish(self, call: IncomingCall, outcome: Outcome) -> None:
        """End a call. Exactly once for each."""
        del self._calls[call.call_id]
        call.running = None
        # The result carries the load.
        self._admission.forget(self)
        self._admission.leave()
        if self.phase is _CLOSED:
            return
        if outcome.payload is not None and outcome.payload.stored is not None:
            self._stored[outcome.payload.stored.object_id] = outcome.payload.stored
        load: int | None = self._load()
        if frames.is_large(outcome.payload) or self._writer.holds(call.call_id):
            # Results of later calls may overtake it, and its load would then contradict theirs.
            self.send(frames.pack_load(self._load()))
            load = None
        try:
            packed = frames.pack_result(call.call_id, outcome, load)
        except Exception as error:  # protobuf raises many types for what it cannot hold
            # A result that no frame can carry: its caller still waits for one.
            unsendable = failed(MeshException(f"The result cannot be sent: {error}"))
            packed = frames.pack_result(call.call_id, unsendable, load)
        self.send(packed, call.call_id)

    def _load(self) -> int:
        """The number of ongoing calls, to be sent to the caller now."""
        ongoing = self._admission.load_for(self)
        self._others_reported = max(0, ongoing - len(self._calls))
        return ongoing

    # ---- Frames ------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while isinstance(data := await self._context.read(), bytes):
            part = unpack_part(data)
            if part is not None:
                self._on_part(part)
                continue
            for frame in replica_pb2.Frames.FromString(data).frames:
                self._on_frame(frame, None)

    def _on_frame(self, frame: replica_pb2.Frame, body: memoryview | None) -> None:
        call_id = frame.call_id
        kind = frame.WhichOneof("kind")
        if kind == "open":
            self._on_open(call_id, frame.open, body)
            return
        call = self._calls.get(call_id)
        running = call.running if call is not None else None
        match kind:
            case "cancel":
                self._on_cancel(call_id, call, CancelReason(frame.cancel.reason))
            case "item" if running is not None:
                running.on_item(frames.read_payload(frame.item.payload, body))
            case "half_close" if running is not None:
                running.on_half_close()
            case "credit" if running is not None:
                running.on_credit(frame.credit.credits)
            case "item" | "half_close" | "credit":
                pass  # the call ended while the frame was on its way
            case "part":
                self._on_part(read_part(call_id, frame.part))
            case "release":
                self._stored.pop(frame.release.object_id, None)
                if not self._stored:
                    self._waiters.wake()
            case "drain":
                self._on_acknowledge()
            case _:
                raise MalformedFrameError(f"unexpected frame {kind!r} from a caller")

    def _move(self, event: CalleeEvent) -> None:
        self.phase = next_state(CALLEE_TRANSITIONS, self.phase, event)
        self._waiters.wake()

    def _on_acknowledge(self) -> None:
        try:
            self._move(CalleeEvent.ACKNOWLEDGE)
        except WrongTransitionError as error:
            raise MalformedFrameError(str(error)) from None

    def _on_part(self, part: PartView) -> None:
        whole = self._assembler.add(part)
        if whole is not None:
            self._on_frame(*whole)

    def _on_open(self, call_id: int, message: replica_pb2.Open, body: memoryview | None) -> None:
        if call_id in self._calls or not call_id:
            raise MalformedFrameError(f"call id {call_id} is in use")
        # Read first: a place taken for a malformed call would never be given back.
        request = frames.read_open(message, body)
        if not self._admission.try_enter():
            is_draining = self._admission.is_closed
            self.send(frames.pack_reject(call_id, self._load(), is_draining=is_draining))
            return
        call = self._calls[call_id] = IncomingCall(self, call_id, request, message.credit)
        if self._others_reported + len(self._calls) >= self._admission.limit:
            self._admission.watch(self)
        call.running = self._service.start(call)

    def _on_cancel(self, call_id: int, call: IncomingCall | None, reason: CancelReason) -> None:
        # What the caller was sending in parts was cut off.
        self._assembler.discard(call_id)
        if call is not None:
            self._cancel(call, reason)
            return
        # Its Open was cut off, or its Result is on the way. Answer in both cases: a caller ignores results of calls
        # that it no longer has.
        self._writer.discard(call_id)
        outcome = Outcome(CANCELLED_CODE, "cancelled before it ran")
        self.send(frames.pack_result(call_id, outcome, self._load()))

    def _cancel(self, call: IncomingCall, reason: CancelReason) -> None:
        if call.cancel_reason is None:
            call.cancel_reason = reason
            if call.running is not None:
                call.running.cancel(reason)


def _read_hello(data: bytes) -> replica_pb2.Hello | None:
    try:
        message = replica_pb2.Frames.FromString(data)
    except DecodeError:
        return None
    if len(message.frames) == 1 and message.frames[0].WhichOneof("kind") == "hello":
        return message.frames[0].hello
    return None
