"""`Http1Exchange`: one request with its answer on an HTTP/1.1 connection."""

from __future__ import annotations

import logging
from typing import Protocol

from gateway.http1.answer_head import (
    AnswerError,
    AnswerHead,
    Framing,
    asked_by,
    write_head,
    write_trailers,
    write_tunnel_head,
)
from gateway.http1.answer_writer import AnswerWriter
from gateway.http1.head_syntax import ReceivedHead
from gateway.http1.http1_upkeep import Http1Clock
from gateway.requests.exchange import TEXT, UNHEARD, BrokenBy, Caller, ExchangeReceiver, Fields, HttpHead
from gateway.requests.http_date import http_date
from mesh.http2.limits import BufferShare

logger = logging.getLogger("mesh.gateway")

_FAILED = b"The answer of the server was not valid HTTP; its log has the reason.\n"


class ExchangeHost(Protocol):
    """The connection of an exchange."""

    writer: AnswerWriter
    clock: Http1Clock

    def closes_behind(self, exchange: Http1Exchange, *, is_complete: bool) -> bool:
        """Whether the connection has to end behind an answer that begins now, and ends now too if it `is_complete`."""

    def on_room(self) -> None:
        """The exchange can take more bytes."""

    def on_body_wanted(self) -> None:
        """The client, which waits for that, may send its body."""

    def on_answered(self, *, keeps_alive: bool) -> None:
        """The answer is complete."""

    def on_aborted(self, reason: str, *, has_no_end: bool) -> None:
        """The answer will not be complete. `has_no_end`: only a broken connection shows it."""


class Http1Exchange:
    """See `gateway.requests.exchange.Exchange`."""

    __slots__ = (
        "_connection",
        "_framing",
        "_keeps_alive",
        "_left_bytes",
        "caller",
        "has_ended",
        "has_sent_head",
        "head",
        "is_tunnel",
        "received",
        "receiver",
        "taken_bytes",
    )

    def __init__(self, connection: ExchangeHost, received: ReceivedHead) -> None:
        self._connection = connection
        self.received = received
        self.head: HttpHead = received.head
        self.caller: Caller | None = None
        self.receiver: ExchangeReceiver = UNHEARD
        self.taken_bytes = 0
        """Bytes of the body for which no room was given yet."""
        self.has_sent_head = False
        self.has_ended = False
        self.is_tunnel = False
        self._framing = Framing.NONE
        self._left_bytes = 0
        """Bytes of a body with a content-length that were not sent yet."""
        self._keeps_alive = True

    def __repr__(self) -> str:
        state = "ended" if self.has_ended else "answering" if self.has_sent_head else "open"
        return f"<Http1Exchange {self.head.method} {state}>"

    @property
    def share(self) -> BufferShare:
        return self._connection.writer.share

    @property
    def is_blocked(self) -> bool:
        return not self.has_ended and self._connection.writer.is_blocked

    # ---- For the receiver --------------------------------------------------------------------------------------------

    def send_head(self, status: int, fields: Fields) -> None:
        if self.has_ended or self.has_sent_head:
            return
        head = self._write_head(status, fields, None, is_complete=False)
        if head is not None:
            self._begin(head)
            if not self._connection.writer.write(head.data):
                self.abort()

    def send_body(self, data: bytes | memoryview) -> bool:
        size = len(data)
        if self.has_ended or not self.has_sent_head or not size:
            return True
        writer = self._connection.writer
        match self._framing:
            case Framing.NONE:
                return True
            case Framing.CHUNKED:
                return writer.write(b"%x\r\n" % size, data, b"\r\n")
            case Framing.SIZED if size > self._left_bytes:
                self._fail(f"{size - self._left_bytes} bytes more than its content-length")
                return True
        if not writer.write(data):
            return False
        self._left_bytes -= size
        return True

    def end(self, trailers: Fields | None = None) -> None:
        if self.has_ended:
            return
        if not self.has_sent_head:
            self._fail("an end without a head")
        elif self._framing is Framing.SIZED and self._left_bytes and not self.is_tunnel:
            self._fail(f"{self._left_bytes} bytes less than its content-length")
        elif self._framing is Framing.CHUNKED:
            self._end_chunks(trailers)
        else:
            self._finish()

    def send_whole(self, status: int, fields: Fields, body: bytes | memoryview) -> bool:
        if self.has_ended or self.has_sent_head:
            return True
        head = self._write_head(status, fields, len(body), is_complete=True)
        if head is None:
            return True
        pieces = (head.data,) if head.framing is Framing.NONE or not body else (head.data, body)
        if not self._connection.writer.write(*pieces):
            return False
        self._begin(head)
        self._finish()
        return True

    def give_room(self, size: int) -> None:
        if not self.has_ended:
            self.taken_bytes -= size
            self._connection.on_room()

    def ask_for_body(self) -> None:
        if self.received.expects_continue and not (self.has_ended or self.has_sent_head or self.taken_bytes):
            self._connection.on_body_wanted()

    def let_pause(self, begun_bytes: int = 0) -> None:
        clock = self._connection.clock
        clock.pause_bytes = clock.body_bytes - begun_bytes

    def open_tunnel(self, fields: Fields) -> None:
        if self.has_ended or self.has_sent_head or not self.head.is_websocket:
            return
        try:
            head = write_tunnel_head(self.head.by_name.get(b"sec-websocket-key", b""), fields, http_date())
        except AnswerError as error:
            self._fail(str(error))
            return
        self.has_sent_head = self.is_tunnel = True
        self._framing = Framing.UNTIL_CLOSE
        self._keeps_alive = False
        if self._connection.writer.write(head):
            self._connection.on_room()
        else:
            self.abort()

    def abort(self) -> None:
        if not self.has_ended:
            self._end()
            has_no_end = self._framing is Framing.UNTIL_CLOSE and not self.is_tunnel
            self._connection.on_aborted("the answer was given up", has_no_end=has_no_end)

    # ---- For the connection ------------------------------------------------------------------------------------------

    def receive(self, data: bytes, *, is_last: bool) -> bool:
        """Pass on what has come of the body. Whether it was anything."""
        if data:
            self._connection.clock.body_bytes += len(data)
            self.taken_bytes += len(data)
            self.receiver.on_body(data)
        if is_last and not self.has_ended:
            self.receiver.on_end()
        return is_last or bool(data)

    def break_off(self, by: BrokenBy) -> None:
        """Nothing more can be sent. Without effect on one that has ended."""
        if not self.has_ended:
            receiver = self.receiver
            self._end()
            try:
                receiver.on_broken(by)
            except Exception:
                logger.exception("the receiver of %r failed at its end", self)

    # ---- Inside ------------------------------------------------------------------------------------------------------

    def _write_head(self, status: int, fields: Fields, length: int | None, *, is_complete: bool) -> AnswerHead | None:
        """None for one that is not valid: then another answer was sent."""
        head = self.head
        keeps_alive = self.received.keeps_alive and not self._connection.closes_behind(self, is_complete=is_complete)
        asked = asked_by(head.method, head.http_version, keeps_alive)
        try:
            return write_head(asked, status, fields, http_date(), length)
        except AnswerError as error:
            self._fail(str(error))
            return None

    def _begin(self, head: AnswerHead) -> None:
        self.has_sent_head = True
        self._framing = head.framing
        self._left_bytes = head.length
        self._keeps_alive = head.keeps_alive

    def _end_chunks(self, trailers: Fields | None) -> None:
        try:
            ending = write_trailers(trailers if trailers and self.received.lines.takes_trailers else [])
        except AnswerError as error:
            self._fail(str(error))
            return
        if self._connection.writer.write(ending):
            self._finish()
        else:
            self.abort()

    def _finish(self) -> None:
        self._end()
        self._connection.on_answered(keeps_alive=self._keeps_alive)

    def _end(self) -> None:
        self.has_ended = True
        # The two refer to each other: both go now, and not when the collector comes.
        self.receiver = UNHEARD

    def _fail(self, text: str) -> None:
        """The answer is not valid: another one says so, or none if its head has left."""
        logger.error("the answer to %s %s is not valid HTTP: %s", self.head.method, self.head.path, text)
        if self.has_sent_head:
            self.abort()
        else:
            self.send_whole(500, [TEXT], _FAILED)
        if not self.has_ended:
            self.abort()
