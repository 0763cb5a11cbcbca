"""A WebSocket in memory: the library wsproto speaks for its client, a fake router for its replica."""

from __future__ import annotations

from collections.abc import Callable

from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame
from websockets.protocol import Protocol, Side, State

from gateway.dialects.web_target import WebOptions
from gateway.websockets.websocket_connection import WebSocketConnection
from mesh.http2.limits import BufferShare
from mesh.v1 import web_pb2
from mesh.wire.web_messages import decode_websocket_event, encode_accept
from tests.unit.gateway.fakes import FakeRouter, allow, item
from tests.unit.gateway.web_ends import WebEnds, WebExchange, websocket_request


class Socket:
    """A WebSocket whose handshake has arrived, with its client and its replica."""

    def __init__(
        self,
        credit: int = 100,
        share: BufferShare | None = None,
        options: WebOptions = WebOptions(timeout_s=5.0),  # noqa: B008  It is frozen.
        **headers: str,
    ) -> None:
        self.ends = WebEnds(FakeRouter(lambda call: allow(call, credit)), options, shop="/shop")
        self.exchange = WebExchange(websocket_request("/shop/chat", **headers))
        self.exchange.share = share or self.exchange.share
        self.exchange.accept(self.ends.websockets.open(self.exchange), is_complete=False)
        self.client = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
        self._seen = 0

    def accept(self, subprotocol: str | None = None, *headers: tuple[bytes, bytes]) -> Socket:
        item(self.ends.call, encode_accept(subprotocol, headers))
        extensions = self.exchange.field("sec-websocket-extensions")
        if extensions:
            factory = ClientPerMessageDeflateFactory()
            parameters = [(part.strip(), None) for part in extensions.split(";")[1:]]
            self.client.extensions = [factory.process_response_params(parameters, [])]
        return self

    @property
    def connection(self) -> WebSocketConnection:
        assert isinstance(self.exchange.receiver, WebSocketConnection)
        return self.exchange.receiver

    def client_sends(self, *calls: Callable[[Protocol], None]) -> None:
        for call in calls:
            call(self.client)
        for data in self.client.data_to_send():
            if data and not self.exchange.has_ended:
                self.exchange.receiver.on_body(data)

    @property
    def client_frames(self) -> list[Frame]:
        """What the client has received since the last time."""
        pieces = self.exchange.pieces[self._seen :]
        self._seen += len(pieces)
        for piece in pieces:
            self.client.receive_data(piece)
        return [event for event in self.client.events_received() if isinstance(event, Frame)]

    @property
    def replica_events(self) -> list[web_pb2.WebSocketEvent]:
        """What the replica has received behind the request."""
        return [decode_websocket_event(data) for data in self.ends.router.link.items[1:]]
