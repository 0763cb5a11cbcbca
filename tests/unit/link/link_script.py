"""Links without sockets: a test plays the other end, and reads what the link writes and what is called."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from mesh.exceptions import CancelReason
from mesh.link.admission import Admission
from mesh.link.callee_link import CalleeLink, IncomingCall
from mesh.link.caller_link import CallerLink
from mesh.link.frames import pack_open
from mesh.link.outgoing_call import CallRequest, OutgoingCall
from mesh.link.writer import LinkWriter
from mesh.v1 import replica_pb2
from mesh.wire.outcome import Outcome, Trailers
from mesh.wire.payload import Payload, raw
from mesh.wire.request_context import RequestContext

UNLIMITED = 10**9


class ScriptedStream:
    """Takes what a link writes. `written` has what came since it was read last."""

    def __init__(self, room: int = UNLIMITED) -> None:
        """`room`: messages that the peer takes before its window is closed."""
        self.room = room
        self.connection = SimpleNamespace(outbox=self)
        self.pending: str | None = None
        self.has_ended = False
        self.writer = LinkWriter(cast(Any, self))
        self._written: list[tuple[str, int]] = []

    @property
    def written(self) -> list[tuple[str, int]]:
        """Kinds of frames and their calls, as far as the window was open."""
        if self.room:
            self.pending = None
        self.writer.write()
        written, self._written = self._written, []
        return written

    def send_message(self, stream: object, data: bytes) -> None:
        self.room -= 1
        self.pending = None if self.room else "its window is closed"
        for frame in replica_pb2.Frames.FromString(data).frames:
            self._written.append((str(frame.WhichOneof("kind")), frame.call_id))

    def send_pieces(self, stream: object, pieces: list[bytes | memoryview]) -> None:
        self.send_message(stream, b"".join(pieces))


class LinkScript:
    """The caller's end. `heard` and `written` have what happened since they were read last."""

    def __init__(self, room: int = UNLIMITED) -> None:
        """`room`: messages that the replica takes before its window is closed."""
        self.link = CallerLink("r1", self)
        self.stream = ScriptedStream(room)
        self._heard: list[Any] = []
        self.link.open(self.stream.writer)

    @property
    def heard(self) -> list[Any]:
        """What the router has heard."""
        heard, self._heard = self._heard, []
        return heard

    @property
    def written(self) -> list[tuple[str, int]]:
        """Kinds of frames and their calls, as far as the window was open."""
        return self.stream.written

    def call(self, size: int = 5) -> OutgoingCall:
        """A call on the link whose request has `size` bytes."""
        call = OutgoingCall(CallRequest("__call__", raw(b"x" * size), RequestContext("id")), self)
        self.link.send(call)
        return call

    def replica_says(self, *packed: Any) -> None:
        """Frames in one message."""
        self.link.receive(b"".join(packed))

    # ---- The router --------------------------------------------------------------------------------------------------

    def on_ready(self, link: CallerLink) -> None:
        self._heard.append("ready")

    def on_load(self, link: CallerLink) -> None:
        self._heard.append(("load", link.others_ongoing))

    def on_result(self, link: CallerLink, call: OutgoingCall, outcome: Outcome) -> None:
        self._heard.append(("result", call, outcome.code))

    def on_undeliverable(self, call: OutgoingCall) -> None:
        self._heard.append(("undeliverable", call))

    def on_reject(self, link: CallerLink, call: OutgoingCall) -> None:
        self._heard.append(("reject", call))

    def on_broken(self, link: CallerLink, reason: str, unsent: list[OutgoingCall], sent: list[OutgoingCall]) -> None:
        self._heard.append(("broken", reason, unsent, sent))

    # ---- The sink of its calls ---------------------------------------------------------------------------------------

    def on_item(self, payload: Payload) -> None:
        self._heard.append(("item", bytes(payload.data)))

    def on_credit(self) -> None:
        self._heard.append("credit")

    def on_initial_metadata(self, entries: Trailers) -> None:
        self._heard.append(("metadata", entries))

    def on_compression(self, encoding: str, *, skips_next: bool) -> None:
        self._heard.append(("compression", encoding, skips_next))

    def on_done(self, outcome: Outcome) -> None:
        raise AssertionError("a link ends no call by itself: its router does")


class CalleeScript:
    """The replica's end: a test plays the caller and the service. `written` has what came since it was read last."""

    def __init__(self, limit: int = 2) -> None:
        """`limit`: places of the replica."""
        self.admission = Admission(limit)
        self.stream = ScriptedStream()
        self.started: list[IncomingCall] = []
        self.seen: list[Any] = []
        """What the calls have got, in order."""
        self.ends: list[tuple[int, str]] = []
        """How the stream was ended: the code and the message of each status."""
        self.link = CalleeLink(self.admission, self, self.stream.writer, lambda *status: self.ends.append(status))

    @property
    def written(self) -> list[tuple[str, int]]:
        """Kinds of frames and their calls."""
        return self.stream.written

    def caller_says(self, *packed: Any) -> None:
        """Frames in one message."""
        self.link.receive(b"".join(packed))

    def opened(self, call_id: int, **fields: Any) -> Any:
        """The frame of a new call."""
        return pack_open(call_id, CallRequest("__call__", raw(b"x"), RequestContext("id"), **fields))

    # ---- The service, and what it has started ------------------------------------------------------------------------

    def start(self, call: IncomingCall) -> CalleeScript:
        self.started.append(call)
        return self

    def on_item(self, payload: Payload) -> None:
        self.seen.append(("item", bytes(payload.data)))

    def on_half_close(self) -> None:
        self.seen.append("half close")

    def on_credit(self, credits: int) -> None:
        self.seen.append(("credit", credits))

    def cancel(self, reason: CancelReason) -> None:
        self.seen.append(("cancel", reason))
