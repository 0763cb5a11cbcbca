"""`HttpServer`: the ports of a gateway. Each of them takes HTTP/1.1 and HTTP/2, gRPC and every other dialect."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

from gateway.dialects.grpc_metadata import ClientHead, read_client_head
from gateway.first_bytes import NewConnection
from gateway.http1.http1_connection import Http1Connection
from gateway.http1.http1_limits import Http1Limits
from gateway.http1.http1_service import Http1Service
from gateway.http2_exchange import Http2Exchange, read_http2_head, refuse_http2
from gateway.requests.dialect_list import AnswerFault
from gateway.requests.exchange import UNHEARD, Exchange, ExchangeReceiver, fail
from gateway.requests.in_flight import InFlight
from mesh.http2.connection import Connection
from mesh.http2.limits import BufferBudget, Limits
from mesh.http2.stream import Receiver, Stream
from mesh.http2.transport import Http2Transport
from mesh.http2.upkeep import UpkeepPolicy
from mesh.rpc.rpc_requests import Accept, RpcRequests
from mesh.rpc.socket_server import ServerPhase, SocketServer

logger = logging.getLogger("mesh.gateway")

_REFUSED_MAX = 256
"""Connections above the limit that are refused in words; more are closed at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """The limits of all ports of a gateway together."""

    http2: Limits
    http1: Http1Limits
    upkeep: UpkeepPolicy
    budget: BufferBudget
    connections_max: float


class HttpServer:
    """On its event loop only."""

    def __init__(
        self,
        accept_grpc: Accept[ClientHead],
        open_exchange: Callable[[Exchange], ExchangeReceiver | None],
        limits: ServerLimits,
        refuse_grpc: Callable[[Stream, ClientHead], None] | None = None,
        answer_fault: AnswerFault = lambda *_: False,
        *,
        root_path: str = "",
    ) -> None:
        """`accept_grpc` takes a gRPC request on its stream, as `RpcServer` passes it on; `refuse_grpc` a wrong one.

        `open_exchange` gives any other request its receiver; None if it has been answered.
        `answer_fault`: what it does not answer gets plain text.
        `root_path`: where a proxy in front has mounted the server; requests are the same with it and without.
        """
        self._open_exchange = open_exchange
        self._dialects_answer = answer_fault
        self.limits = limits
        self.in_flight = InFlight()
        """Exchanges in progress. Calls of gRPC are not among them."""
        self._is_leaving = False
        """A drain has been announced."""
        self.sockets: SocketServer[NewConnection | Http1Connection | Http2Transport] = SocketServer(
            lambda: NewConnection(self), limits.upkeep
        )
        """The ports, and the connections on them."""
        self._http1 = Http1Service(
            open=open_exchange,
            answer_fault=self._answer_fault,
            on_lost=self.sockets.on_lost,
            in_flight=self.in_flight,
            limits=limits.http1,
            budget=limits.budget,
            root_path=root_path,
        )
        self._root_path = root_path
        self._requests = {
            is_tls: RpcRequests(
                partial(read_client_head, root_path=root_path),
                accept_grpc,
                accept_other=partial(self._accept_http2, is_tls=is_tls),
                refuse=refuse_grpc,
                limits=limits.http2,
                budget=limits.budget,
            )
            for is_tls in (False, True)
        }

    def __repr__(self) -> str:
        return f"<HttpServer {self.sockets!r}>"

    @property
    def connections(self) -> int:
        return len(self.sockets.connections)

    def client_connections(self) -> Iterator[NewConnection | Http1Connection | Http2Transport]:
        """All that are open."""
        return iter(self.sockets.connections)

    @property
    def http1_connections(self) -> int:
        return sum(isinstance(each, Http1Connection) for each in self.sockets.connections)

    def announce_drain(self) -> None:
        """Let clients of HTTP/1.1 leave with their next answer. Everything is still served."""
        self._is_leaving = True
        for connection in self.sockets.connections:
            if isinstance(connection, Http1Connection):
                connection.is_draining = True

    # ---- Connections -------------------------------------------------------------------------------------------------

    def on_new(self, connection: NewConnection) -> None:
        self.sockets.connections.add(connection)
        if self.sockets.phase is ServerPhase.STOPPED or self.connections > self.limits.connections_max + _REFUSED_MAX:
            connection.abort("the server has stopped, or has too many connections")

    def on_known(self, connection: NewConnection, data: bytes, *, is_http2: bool) -> None:
        if is_http2 and self.connections > self.limits.connections_max:
            # Without SETTINGS: a client of gRPC that has read them connects again at once, thousands of times a second.
            connection.abort("too many connections")
            return
        known = self._new_http2(connection) if is_http2 else Http1Connection(self._http1)
        socket, connection.socket = connection.socket, None
        self._hand_over(known, socket)
        self.sockets.connections.discard(connection)
        if data and not known.is_lost:
            known.data_received(data)

    def on_gone(self, connection: NewConnection) -> None:
        self.sockets.on_lost(connection)

    def _hand_over(self, known: Http1Connection | Http2Transport, socket: asyncio.Transport) -> None:
        is_refused = self.connections > self.limits.connections_max
        socket.set_protocol(known)
        known.connection_made(socket)
        self.sockets.connections.add(known)
        if isinstance(known, Http1Connection):
            if is_refused:
                known.refuse(503, f"This server has {self.limits.connections_max} connections, its limit.")
                return
            # A request has begun to arrive. It is answered, but its client is not to stay.
            known.is_draining = self._is_leaving or self.sockets.phase is not ServerPhase.OPEN
        elif self.sockets.phase is not ServerPhase.OPEN:
            known.drain()

    def _new_http2(self, connection: NewConnection) -> Http2Transport:
        is_tls = connection.socket.get_extra_info("sslcontext") is not None
        requests = self._requests[is_tls]

        def make(transport: Http2Transport, on_output: Callable[[], None]) -> Connection[ClientHead]:
            return requests.connection(transport.peer, on_output)

        return Http2Transport(make, self.sockets.on_lost, _on_stalled)

    # ---- Requests on HTTP/2 ------------------------------------------------------------------------------------------

    def _accept_http2(self, stream: Stream, client: ClientHead, peer: str, *, is_tls: bool) -> Receiver | None:
        has_body = not stream.is_remote_done
        head = client.http
        if head is None or head.has_body is not has_body:
            certificate = stream.connection.client_certificate
            read = read_http2_head(
                client, peer, is_tls=is_tls, has_body=has_body, certificate=certificate, root_path=self._root_path
            )
            if isinstance(read, int):
                refuse_http2(stream, read)
                return None
            head = client.http = read
        exchange = Http2Exchange(stream, head, self.in_flight, self._answer_fault)
        try:
            receiver = self._open_exchange(exchange)
        except Exception:
            logger.exception("a request of %s was not accepted", head.path)
            fail(exchange)
        else:
            if not exchange.has_ended:
                exchange.receiver = receiver or UNHEARD
        return None if stream.has_ended else exchange

    def _answer_fault(self, exchange: Exchange, status: int, text: str) -> bool:
        try:
            return self._dialects_answer(exchange, status, text)
        except Exception:
            logger.exception("the end of a request of %s was not answered", exchange.head.path)
            return exchange.has_sent_head


@runtime_checkable
class _AwaitsBody(Protocol):
    """A receiver of a stream whose request may not pause for long."""

    def on_stalled(self) -> None: ...


def _on_stalled(stream: Stream) -> None:
    if isinstance(stream.receiver, _AwaitsBody):
        stream.receiver.on_stalled()
