"""What an HTTP/1.1 connection is doing at the moment, of which each kind has its own limit of time. Pure."""

from __future__ import annotations

from gateway.http1.answer_writer import AnswerWriter
from gateway.http1.client_socket import ClientSocket, SocketPhase
from gateway.http1.http1_exchange import Http1Exchange
from gateway.http1.http1_reader import Http1Reader
from gateway.http1.http1_upkeep import Doing, Http1Clock


def doing(
    socket: ClientSocket,
    exchange: Http1Exchange | None,
    reader: Http1Reader,
    writer: AnswerWriter,
    clock: Http1Clock,
) -> Doing:
    if not socket.is_open:
        is_lingering = socket.phase is SocketPhase.LINGERING and socket.has_flushed
        return Doing.LINGERING if is_lingering else Doing.FLUSHING
    if exchange is not None and exchange.is_tunnel:
        return Doing.ANSWER
    if not reader.body.is_done:
        return Doing.BODY if socket.is_reading else Doing.ANSWER
    if exchange is not None or writer.is_blocked:
        return Doing.ANSWER
    if reader.unread_bytes:
        return Doing.HEAD
    return Doing.IDLE if clock.requests else Doing.OPENED
