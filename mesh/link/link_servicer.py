"""`LinkServicer`: the Replica service. It authenticates callers and keeps their links. I/O loop only.

Every link is one RPC. Nothing but Hello is read until its token and replica id are right: payloads may be pickles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from google.protobuf.message import DecodeError

from mesh.exceptions import CancelReason
from mesh.http2.frame_format import ErrorCode
from mesh.http2.stream import UNHEARD, Stream
from mesh.link import frames
from mesh.link.admission import Admission
from mesh.link.callee_link import CalleeLink, CallService
from mesh.link.link_stream import HELLO_MAX_BYTES, LINK_METHOD, LinkStream
from mesh.link.replica_facts import ReplicaFacts
from mesh.link.writer import LinkWriter
from mesh.rpc.answers import answer_status
from mesh.rpc.grpc_fields import RESPONSE_BLOCK
from mesh.rpc.request_head import RequestHead
from mesh.rpc.status_codes import FAILED_PRECONDITION, INTERNAL, INVALID_ARGUMENT, UNAUTHENTICATED, UNIMPLEMENTED
from mesh.settings import settings
from mesh.v1 import replica_pb2
from mesh.wire.mesh_token import token_matches

_PRIVATE = "This port is the mesh's own; use a gateway."


class LinkServicer:
    """The Replica service: accepts links."""

    def __init__(
        self,
        replica_id: str,
        admission: Admission,
        service: CallService,
        links: set[CalleeLink] | None = None,
        token_matches: Callable[[bytes], bool] = token_matches,
    ) -> None:
        """`token_matches`: whether a caller may open links; by default with the token of the mesh."""
        self.replica_id = replica_id
        self.admission = admission
        self.service = service
        self.token_matches = token_matches
        self.links: set[CalleeLink] = set() if links is None else links
        self.facts = ReplicaFacts()

    def __repr__(self) -> str:
        phase = "draining" if self.admission.is_closed else "open"
        return f"<LinkServicer of replica {self.replica_id}, {phase}, links: {len(self.links)}>"

    def accept(self, stream: Stream, head: RequestHead, peer: str) -> LinkStream | None:
        """The receiver of a new request to the replica's port; None where it has been refused."""
        if head.path != LINK_METHOD:
            answer_status(stream, UNIMPLEMENTED, _PRIVATE)
            return None
        return _CallerStream(self, stream).receiver

    def announce_models(self, model_ids: Iterable[str]) -> None:
        """Send all callers the list of models that are here."""
        self.facts = replace(self.facts, model_ids=frozenset(model_ids))
        self._send_state("models", frames.pack_models(self.facts.model_ids))

    def announce_stats(self, stats: Mapping[str, Any]) -> None:
        """Send all callers the latest figures of the user's `record_routing_stats`, unless they know them."""
        if stats != self.facts.routing_stats:
            self.facts = replace(self.facts, routing_stats=stats)
            self._send_state("routing stats", frames.pack_routing_stats(stats))

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
        for link in list(self.links):
            link.end(CancelReason.DRAIN)

    def _send_state(self, name: str, packed: bytes) -> None:
        for link in self.links:
            link.send_state(name, packed)


class _CallerStream:
    """The stream of one caller: nothing but a Hello is accepted, then it carries the caller's link."""

    def __init__(self, servicer: LinkServicer, stream: Stream) -> None:
        self._servicer = servicer
        self._stream = stream
        self.receiver = LinkStream(self._on_hello, self._on_end, HELLO_MAX_BYTES)
        timeout_s = settings().link.connect_timeout_s
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self._answer, UNAUTHENTICATED, _PRIVATE)

    def _on_hello(self, data: bytes) -> None:
        self._timer.cancel()
        servicer = self._servicer
        hello = _read_hello(data)
        if hello is None or not servicer.token_matches(hello.token):
            self._answer(UNAUTHENTICATED, _PRIVATE)
        elif hello.replica_id != servicer.replica_id:
            self._answer(UNAUTHENTICATED, f"This is replica {servicer.replica_id}, not {hello.replica_id}.")
        elif hello.protocol_version != frames.PROTOCOL_VERSION:
            self._answer(
                FAILED_PRECONDITION,
                f"This replica speaks protocol {frames.PROTOCOL_VERSION}, not {hello.protocol_version}.",
            )
        else:
            self._carry_link()

    def _on_end(self, reason: str, code: ErrorCode | int) -> None:
        self._timer.cancel()
        self._answer(UNAUTHENTICATED, _PRIVATE)

    def _carry_link(self) -> None:
        servicer, stream = self._servicer, self._stream

        def end_stream(code: int, text: str) -> None:
            servicer.links.discard(link)
            self._answer(code, text)

        writer = self.receiver.writer = LinkWriter(stream)
        link = CalleeLink(servicer.admission, servicer.service, writer, end_stream)
        self.receiver.become(link.receive, link.receive_part, partial(_break, link))
        servicer.links.add(link)
        stream.connection.outbox.send_headers(stream, RESPONSE_BLOCK)
        link.start(servicer.facts)

    def _answer(self, code: int, text: str) -> None:
        """End the stream. It lasts until the socket takes this; what comes meanwhile is not read."""
        self._stream.receiver = UNHEARD
        answer_status(self._stream, code, text)


def _break(link: CalleeLink, reason: str, code: ErrorCode | int) -> None:
    """Nothing more comes from the caller: it has left, or its frames were wrong."""
    match code:
        case ErrorCode.PROTOCOL_ERROR:
            link.end(CancelReason.LINK_BROKEN, INVALID_ARGUMENT, reason)
        case ErrorCode.INTERNAL_ERROR:
            link.end(CancelReason.LINK_BROKEN, INTERNAL, "The replica failed; its log has the reason.")
        case _:
            link.end(CancelReason.LINK_BROKEN)


def _read_hello(data: bytes) -> replica_pb2.Hello | None:
    try:
        message = replica_pb2.Frames.FromString(data)
    except DecodeError:
        return None
    if len(message.frames) == 1 and message.frames[0].WhichOneof("kind") == "hello":
        return message.frames[0].hello
    return None
