"""`RpcRequests`: the HTTP/2 connections of a server, and what becomes of each request on them. On its loop only."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from mesh.http2.frame_format import ErrorCode
from mesh.http2.hpack_decoder import Field
from mesh.http2.limits import BufferBudget, Limits
from mesh.http2.server_connection import ServerConnection
from mesh.http2.stream import Receiver, Stream
from mesh.rpc.answers import answer_http_error, answer_status
from mesh.rpc.request_head import RequestHead, is_grpc
from mesh.rpc.status_codes import INTERNAL, RESOURCE_EXHAUSTED

H = TypeVar("H", bound=RequestHead)
Accept = Callable[[Stream, H, str], Receiver | None]
"""Takes stream, head and peer; returns the receiver of the request, or None if it has answered already."""

logger = logging.getLogger("mesh.rpc")


class RpcRequests(Generic[H]):
    """gRPC requests go to one place, all others to another one, if there is one."""

    def __init__(
        self,
        interpret: Callable[[list[Field]], H],
        accept: Accept[H],
        *,
        accept_other: Accept[H] | None = None,
        refuse: Callable[[Stream, H], None] | None = None,
        limits: Limits | None = None,
        budget: BufferBudget | None = None,
    ) -> None:
        """`interpret` is `read_request_head` or something that adds to it.

        `accept_other`: for requests that are not gRPC; without it they are refused with 415.
        `refuse` answers requests that are wrong by their `refusal`; without it the answer is only that.
        `budget`: for what all connections buffer; None: no limit.
        """
        self._interpret = interpret
        self._accept = accept
        self._accept_other = accept_other
        self._refuse = refuse or _refuse
        self._limits = limits or Limits()
        self._budget = budget or BufferBudget()

    def connection(self, peer: str, on_output: Callable[[], None]) -> ServerConnection[H]:
        """A new connection of this client."""
        return ServerConnection(
            self._interpret,
            lambda stream, head: self._on_request(stream, head, peer),
            self._limits,
            time.monotonic,
            on_output,
            self._budget,
        )

    def _on_request(self, stream: Stream, head: H | None, peer: str) -> None:
        if head is None:
            self._refuse_long_list(stream)
        elif head.malformed:
            stream.connection.fail_stream(stream, ErrorCode.PROTOCOL_ERROR)
        elif head.http_status != 200:
            if head.http_status == 415 and self._accept_other is not None:
                self._pass_on(self._accept_other, stream, head, peer)
            else:
                answer_http_error(stream, head.http_status)
        elif head.refusal:
            self._refuse(stream, head)
        else:
            self._pass_on(self._accept, stream, head, peer)

    def _refuse_long_list(self, stream: Stream) -> None:
        beginning = dict(stream.connection.decoder.cut_short)
        if self._accept_other is not None and not is_grpc(beginning.get(b"content-type", b"")):
            answer_http_error(stream, 431)
        else:
            answer_status(stream, RESOURCE_EXHAUSTED, f"Metadata above {self._limits.header_list_max_bytes} bytes.")

    def _pass_on(self, accept: Accept[H], stream: Stream, head: H, peer: str) -> None:
        stream.content_left = head.content_length
        try:
            receiver = accept(stream, head, peer)
        except Exception:
            logger.exception("a request of %s was not accepted", head.path)
            answer_status(stream, INTERNAL, "The server failed; its log has the reason.")
        else:
            if receiver is not None:
                stream.receiver = receiver


def _refuse(stream: Stream, head: RequestHead) -> None:
    answer_status(stream, head.refusal_code, head.refusal)
