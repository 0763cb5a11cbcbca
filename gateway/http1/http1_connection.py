"""`Http1Connection`: one client's HTTP/1.1 connection on an asyncio socket.

Theory of operation. Bytes go through the `Http1Reader`, one step at a time: a head opens an exchange, pieces of the
body go to its receiver, and only when its answer is complete the next head is read. So a client that sends many
requests at once (pipelining) gets its answers in order, and costs no more than one that waits.

The socket is read while a request is in progress, because only so we notice that its client has left; not any more
once the client has sent a good deal ahead. What a receiver has not dealt with stops the reading in the same way; the
kernel is then asked about once a second whether the client is still there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from gateway.http1.answer_head import Asked, write_head
from gateway.http1.answer_writer import AnswerWriter
from gateway.http1.client_socket import ClientSocket, SocketPhase
from gateway.http1.head_syntax import Origin, ReceivedHead
from gateway.http1.http1_doing import doing
from gateway.http1.http1_exchange import Http1Exchange
from gateway.http1.http1_limits import Http1Error, Http1Limits
from gateway.http1.http1_reader import Http1Reader
from gateway.http1.http1_service import Http1Service
from gateway.http1.http1_upkeep import Doing, Http1Clock, Http1Upkeep, Http1Vitals
from gateway.requests.exchange import TEXT, UNHEARD, BrokenBy, fail
from gateway.requests.http_date import http_date
from mesh.http2.limits import BufferShare
from mesh.http2.transport import ConnectionFacts, peer_name
from mesh.http2.upkeep import UpkeepPolicy
from mesh.http2.write_turn import write_turn
from mesh.tls.client_certificate import read_certificate

logger = logging.getLogger("mesh.gateway")

_STEPS_PER_TURN = 16
"""Steps per turn of the loop and connection, so that a fast sender does not keep the loop for itself."""
_LARGE_READ_BYTES = 64 * 1024
"""Behind one the loop has its turn: uvloop goes on reading a socket while there is more, and it may be tiny chunks."""
_AGE_JITTER = 0.1
_QUIET_S = 0.3
"""An idle connection that drains is closed after this time: a client that sends one request after the other is then
asked to leave by an answer, and not by a socket that closes while its next request is on the way."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_random = Random()
"""Not the generator of the program, which may have seeded it."""


class Http1Connection(asyncio.Protocol):
    """On its event loop only."""

    writer: AnswerWriter

    def __init__(self, service: Http1Service) -> None:
        self._service = service
        self._turn = write_turn()
        self._socket: ClientSocket
        self._reader: Http1Reader
        self._exchange: Http1Exchange | None = None
        self._is_advancing = False
        """Steps are being taken, or will be in the next turn."""
        self.is_draining = False
        """The connection is closed behind the next answer."""
        self.clock = Http1Clock(time.monotonic(), _random.uniform(1 - _AGE_JITTER, 1 + _AGE_JITTER))

    def __repr__(self) -> str:
        return f"<Http1Connection {self._socket.phase.name} {self._exchange!r}>"

    @property
    def is_lost(self) -> bool:
        return self._socket.is_lost

    @property
    def lost_reason(self) -> str:
        """Why the socket was closed."""
        return self._socket.lost_reason

    # ---- asyncio.Protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._socket = ClientSocket(transport)
        origin = Origin(
            peer=peer_name(transport.get_extra_info("peername")),
            is_tls=transport.get_extra_info("sslcontext") is not None,
            certificate=read_certificate(transport.get_extra_info("peercert")),
            root_path=self._service.root_path,
        )
        self._reader = Http1Reader(self._service.limits, origin)
        self.writer = AnswerWriter(transport, BufferShare(self._service.budget))

    def data_received(self, data: bytes) -> None:
        if self._socket.is_open:
            self.clock.reads += 1
            self._reader.feed(data)
            if self._is_advancing:
                self._read_on()
            else:
                self._run(self._advance)
                if len(data) >= _LARGE_READ_BYTES and not self._is_advancing and self._socket.is_open:
                    self._is_advancing = True
                    self._socket.read(wanted=False)
                    self._turn.loop.call_soon(self._advance_on)

    def eof_received(self) -> None:
        """The socket is closed behind it. A client that has half closed looks like one that has left."""
        exchange, reader = self._exchange, self._reader
        is_incomplete = bool(reader.unread_bytes) if exchange is None else not reader.body.is_done
        if self._socket.is_open and is_incomplete:
            self._refuse(Http1Error(400, "The request is not complete."), BrokenBy.CLIENT)

    def connection_lost(self, exc: Exception | None) -> None:
        self._socket.lose(str(exc) if exc else "the client closed the connection")
        self.writer.drop()
        self._turn.begin()
        try:
            self._break(BrokenBy.CLIENT)
        finally:
            self._turn.end()
            self._service.on_lost(self)

    def pause_writing(self) -> None:
        self.writer.is_paused = True

    def resume_writing(self) -> None:
        self.writer.resume()
        if not self.writer.is_blocked:
            self._run(self._on_writable)

    # ---- For exchanges -----------------------------------------------------------------------------------------------

    def closes_behind(self, exchange: Http1Exchange, *, is_complete: bool) -> bool:
        return self.is_draining or (is_complete and _has_to_close(exchange, self._reader, self._service.limits))

    def on_room(self) -> None:
        if not self._is_advancing and (self._reader.unread_bytes or not self._socket.is_reading):
            self._run(self._advance)

    def on_body_wanted(self) -> None:
        if not (self._reader.body.is_done or self._reader.unread_bytes):
            self.writer.write(_CONTINUE)

    def on_answered(self, *, keeps_alive: bool) -> None:
        exchange = self._leave()
        is_last = exchange is not None and self.closes_behind(exchange, is_complete=True)
        if not keeps_alive or self.is_draining or is_last:
            self._finish("the answer was the last", lingers=exchange is not None and exchange.is_tunnel)
        elif not self._is_advancing and (self._reader.unread_bytes or not self._socket.is_reading):
            self._run(self._advance)

    def on_aborted(self, reason: str, *, has_no_end: bool) -> None:
        self._leave()
        self.writer.drop()
        end = self._socket.abort if has_no_end else self._socket.close
        end(reason)

    # ---- Life --------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Close the connection behind its next answer, or soon if the client sends no further request."""
        self.is_draining = True
        if self._is_idle:
            self._turn.loop.call_later(_QUIET_S, self._close_idle)

    def refuse(self, status: int, text: str) -> None:
        """Answer what comes with this status, and close."""
        self._refuse(Http1Error(status, text), BrokenBy.DRAIN)

    def abort(self, reason: str) -> None:
        """Close the socket now."""
        self._break(BrokenBy.DRAIN)
        self._socket.abort(reason)

    def facts(self, now_s: float) -> ConnectionFacts:
        """What operators may want to know of it. Not on one that is lost."""
        facts = _facts(self._socket, self.clock, self.writer, now_s)
        return replace(facts, streams=int(self._exchange is not None), is_draining=self.is_draining)

    def look_after(self, policy: UpkeepPolicy, now_s: float) -> None:
        """Do what the connection needs now; to be called about once a second."""
        has_left, dropped_bytes = _has_left(self._socket, self._exchange), self._reader.dropped_bytes
        vitals = Http1Vitals(self._doing, self.writer.is_paused, self.is_draining, has_left, dropped_bytes)
        match self.clock.check(vitals, self._service.limits, policy, now_s):
            case Http1Upkeep.SLOW_HEAD | Http1Upkeep.SLOW_BODY:
                self._refuse(Http1Error(408, "The request took too long to arrive."), BrokenBy.TIMEOUT)
            case Http1Upkeep.IDLE | Http1Upkeep.SILENT as action:
                self._socket.close_idle(action.value)
            case Http1Upkeep.DRAIN:
                self.drain()
            case Http1Upkeep.UNREAD | Http1Upkeep.LINGERED | Http1Upkeep.LEFT as action:
                self._break(BrokenBy.CLIENT if action is Http1Upkeep.LEFT else BrokenBy.TIMEOUT)
                self._socket.abort(action.value)
            case Http1Upkeep.END_DRAIN as action:
                self.abort(action.value)

    @property
    def _is_idle(self) -> bool:
        return self._socket.is_open and self._doing in (Doing.OPENED, Doing.IDLE)

    def _close_idle(self) -> None:
        if self._is_idle:
            self._socket.close_idle("drained")

    @property
    def _doing(self) -> Doing:
        return doing(self._socket, self._exchange, self._reader, self.writer, self.clock)

    # ---- Steps -------------------------------------------------------------------------------------------------------

    def _run(self, work: Callable[[], None]) -> None:
        """Let it call receivers: what they write leaves at its end, and what they raise ends their exchange."""
        self._turn.begin()
        try:
            work()
        except Http1Error as fault:
            self._refuse(fault, BrokenBy.PROTOCOL)
        except Exception:
            logger.exception("the receiver of %r failed", self._exchange)
            if self._exchange is not None:
                fail(self._exchange, self._exchange.receiver)
            self._turn.loop.call_soon(self._advance_on)
        finally:
            # A request that is alone shares its write with no other.
            (self._turn.end_soon if self._service.in_flight.count > 1 else self._turn.end)()
        self._read_on()

    def _read_on(self) -> None:
        """Go on reading the socket, or stop. Requests that wait behind the present one then count as buffered."""
        socket, exchange, reader = self._socket, self._exchange, self._reader
        is_wanted = not socket.is_open or (
            not self._is_advancing and _wants_more(socket, exchange, reader, self._service.limits)
        )
        socket.read(wanted=is_wanted)
        ahead_bytes = 0 if is_wanted else _ahead_bytes(exchange, reader)
        if ahead_bytes != self.writer.ahead_bytes and not self.writer.count_ahead(ahead_bytes):
            self._refuse(Http1Error(503, "There is no room for requests that are sent ahead."), BrokenBy.CLIENT)

    def _advance(self) -> None:
        """Do all that the bytes which have come allow."""
        self._is_advancing = True
        is_due = False
        try:
            for _ in range(_STEPS_PER_TURN):
                if not self._step():
                    return
            is_due = True
        finally:
            self._is_advancing = is_due
        self._turn.loop.call_soon(self._advance_on)

    def _advance_on(self) -> None:
        self._is_advancing = False
        self._run(self._advance)

    def _step(self) -> bool:
        """Whether there may be a next one."""
        reader, exchange = self._reader, self._exchange
        if not self._socket.is_open:
            return False
        if exchange is None:
            if not reader.body.is_done:
                # It was answered without the rest of its body.
                has_more = reader.drop_body()
                if reader.dropped_bytes > self._service.limits.discarded_max_bytes:
                    self._finish("the rest of a body is too long to be dropped")
                return has_more
            received = None if self.writer.is_blocked else reader.read_head()
            return received is not None and self._begin(received)
        if exchange.taken_bytes >= self._service.limits.body_window_bytes:
            return False
        if exchange.is_tunnel:
            return exchange.receive(reader.read_all(), is_last=False)
        if reader.body.is_done:
            return False
        data = reader.read_body()
        return exchange.receive(data, is_last=reader.body.is_done)

    def _begin(self, received: ReceivedHead) -> bool:
        """Whether there may be a next step before the answer."""
        self.clock.requests += 1
        exchange = self._exchange = Http1Exchange(self, received)
        self._service.in_flight.enter()
        if received.head.path == "*":
            exchange.send_whole(204, [], b"")
            return True
        receiver = self._service.open(exchange)
        if exchange.has_ended:
            return True
        exchange.receiver = receiver or UNHEARD
        is_whole = self._reader.body.is_done
        if is_whole and not received.head.is_websocket:
            exchange.receiver.on_end()
        return exchange.has_ended or exchange.is_tunnel or not is_whole

    def _on_writable(self) -> None:
        if self._socket.phase is SocketPhase.FLUSHING:
            self._finish("the answer was the last", lingers=self._socket.lingers)
        elif self._exchange is not None:
            self._exchange.receiver.on_writable()
        elif not self._is_advancing:
            self._advance()

    # ---- Ends --------------------------------------------------------------------------------------------------------

    def _leave(self) -> Http1Exchange | None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self._service.in_flight.leave()
        return exchange

    def _break(self, by: BrokenBy) -> None:
        exchange = self._leave()
        if exchange is not None:
            exchange.break_off(by)

    def _refuse(self, fault: Http1Error, by: BrokenBy) -> None:
        """Answer with the fault if that is still possible, and close."""
        exchange = self._exchange
        has_begun = exchange is not None and exchange.has_sent_head
        is_answered = exchange is None and not self._reader.body.is_done
        self._break(by)
        if not self._socket.is_open:
            return
        if has_begun:
            self._socket.abort(str(fault))
            return
        if exchange is not None and self._has_answered_fault(exchange, fault):
            return
        if not is_answered:
            self.writer.write(*_plain_answer(fault))
        self._finish(str(fault))

    def _has_answered_fault(self, broken: Http1Exchange, fault: Http1Error) -> bool:
        """Answer by the dialect of an exchange that was broken off; the connection closes behind it."""
        self.is_draining = True
        exchange = self._exchange = Http1Exchange(self, broken.received)
        self._service.in_flight.enter()
        if not self._service.answer_fault(exchange, fault.status, str(fault)):
            self._leave()
        return exchange.has_ended

    def _finish(self, reason: str, *, lingers: bool = False) -> None:
        """Close behind what was written. `lingers`: its client may be in the middle of a message, and is to read it."""
        if self.writer.is_blocked:
            self._socket.flush(reason, lingers=lingers)
        elif self._reader.unread_bytes or not self._reader.body.is_done or (lingers and self._socket.can_half_close):
            self._socket.linger(reason)
        else:
            self._socket.close(reason)


def _wants_more(socket: ClientSocket, exchange: Http1Exchange | None, reader: Http1Reader, limits: Http1Limits) -> bool:
    """Whether the socket is to be read, once all is done that the bytes which have come allow."""
    if exchange is not None and (exchange.is_tunnel or not reader.body.is_done):
        # Some way below the window, so that the socket is not switched on and off for each piece.
        return exchange.taken_bytes < limits.body_window_bytes >> (not socket.is_reading)
    return reader.unread_bytes <= limits.pipelined_max_bytes


def _ahead_bytes(exchange: Http1Exchange | None, reader: Http1Reader) -> int:
    """What has come of requests behind the present one."""
    is_of_present = not reader.body.is_done or (exchange is not None and exchange.is_tunnel)
    return 0 if is_of_present else reader.unread_bytes


def _plain_answer(fault: Http1Error) -> tuple[bytes, bytes]:
    text = f"{fault}\n".encode()
    return write_head(Asked(keeps_alive=False), fault.status, [TEXT], http_date(), len(text)).data, text


def _has_to_close(exchange: Http1Exchange, reader: Http1Reader, limits: Http1Limits) -> bool:
    """Whether the rest of the request is too long to be dropped, or may never come."""
    if reader.body.is_done:
        return False
    is_held_back = exchange.received.expects_continue and not reader.unread_bytes
    return is_held_back or reader.body.left_bytes > limits.discarded_max_bytes


def _has_left(socket: ClientSocket, exchange: Http1Exchange | None) -> bool:
    """Whether the client has left. On a WebSocket an unanswered ping shows that too."""
    return socket.has_left_unread(may_half_close=exchange is not None and exchange.is_tunnel)


def _facts(socket: ClientSocket, clock: Http1Clock, writer: AnswerWriter, now_s: float) -> ConnectionFacts:
    return ConnectionFacts(
        peer=socket.peer,
        protocol="http/1.1",
        tls=socket.tls,
        age_s=now_s - clock.opened_at_s,
        silent_s=now_s - clock.read_at_s,
        streams_opened=clock.requests,
        buffered_bytes=writer.share.used_bytes,
        unsent_bytes=writer.waiting_bytes,
    )
