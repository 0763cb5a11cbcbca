"""A link without a socket: a test plays its replica, and reads what the link writes and what its router hears."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mesh.link.caller_link import CallerLink
from mesh.link.outgoing_call import CallRequest, OutgoingCall
from mesh.link.writer import LinkWriter
from mesh.v1 import replica_pb2
from mesh.wire.outcome import Outcome, Trailers
from mesh.wire.payload import Payload, raw
from mesh.wire.request_context import RequestContext

UNLIMITED = 10**9


class LinkScript:
    """`heard` and `written` have what happened since they were read last."""

    def __init__(self, room: int = UNLIMITED) -> None:
        """`room`: messages that the replica takes before its window is closed."""
        self.link = CallerLink("r1", self)
        self.room = room
        self._stream: Any = SimpleNamespace(connection=SimpleNamespace(outbox=self), pending=None, has_ended=False)
        self._writer = LinkWriter(self._stream)
        self._heard: list[Any] = []
        self._written: list[tuple[str, int]] = []
        self.link.open(self._writer)

    @property
    def heard(self) -> list[Any]:
        """What the router has heard."""
        heard, self._heard = self._heard, []
        return heard

    @property
    def written(self) -> list[tuple[str, int]]:
        """Kinds of frames and their calls, as far as the window was open."""
        if self.room:
            self._stream.pending = None
        self._writer.write()
        written, self._written = self._written, []
        return written

    def call(self, size: int = 5) -> OutgoingCall:
        """A call on the link whose request has `size` bytes."""
        call = OutgoingCall(CallRequest("__call__", raw(b"x" * size), RequestContext("id")), self)
        self.link.send(call)
        return call

    def replica_says(self, *packed: Any) -> None:
        """Frames in one message."""
        self.link.receive(b"".join(packed))

    # ---- The stream --------------------------------------------------------------------------------------------------

    def send_message(self, stream: object, data: bytes) -> None:
        self.room -= 1
        self._stream.pending = None if self.room else "its window is closed"
        for frame in replica_pb2.Frames.FromString(data).frames:
            self._written.append((str(frame.WhichOneof("kind")), frame.call_id))

    def send_pieces(self, stream: object, pieces: list[bytes | memoryview]) -> None:
        self.send_message(stream, b"".join(pieces))

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
