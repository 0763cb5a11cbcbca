"""One HTTP request with its answer, whatever carries it: the seam between connections and dialects.

A connection (HTTP/1.1, or a stream of HTTP/2) makes an `Exchange` for each request and asks the listener for its
receiver. Bodies flow in both directions as bytes arrive and leave: the client may send as much as the receiver has
given room for, and the receiver stops producing while `is_blocked`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any, Protocol

from mesh.http2.limits import BufferShare
from mesh.tls.client_certificate import ClientCertificate

Fields = list[tuple[bytes, bytes]]
"""Header fields, names in lower case, in the order of the wire."""


@dataclass(frozen=True, kw_only=True)
class HttpHead:
    """A request without its body; the same for every version of HTTP. Shared between requests: do not change it."""

    method: str
    """In upper case. A WebSocket handshake is a GET, also where HTTP/2 opens it with CONNECT."""
    path: str
    """As the client sent it: percent-encoded, without query, and without the `root_path` of a proxy in front. Starts
    with "/"."""
    query: bytes = b""
    """Without "?", percent-encoded."""
    fields: Fields
    """Without pseudo-fields and those about the connection; `host` is there also for HTTP/2."""
    scheme: str = "http"
    """ "http" or "https"; "ws" or "wss" for a WebSocket handshake."""
    http_version: str = "1.1"
    """ "1.0", "1.1" or "2"."""
    peer: str = ""
    """As gRPC names it, for instance "ipv4:10.0.0.1:4711"."""
    content_length: int | None = None
    """None for a body of unknown length."""
    has_body: bool = False
    """False only if there is certainly none."""
    certificate: ClientCertificate | None = None
    """What the client has shown and TLS has verified; None if it has shown none."""

    readings: dict[object, Any] = field(default_factory=dict, init=False, compare=False, repr=False)
    """What was made of it, by what has made it: once for all requests of a connection with this head."""

    @cached_property
    def by_name(self) -> dict[bytes, bytes]:
        """The last value of each field."""
        return dict(self.fields)

    def all_of(self, name: bytes) -> bytes:
        """The values of all fields of this name as one list (RFC 9110 §5.3); empty if there is none."""
        return b", ".join(value for key, value in self.fields if key == name) if name in self.by_name else b""

    @cached_property
    def content_type(self) -> str:
        """The media type in lower case, without parameters; empty if there is none.

        Two different fields are no type that is served: a proxy before the gateway may have read the other one.
        """
        values = {value for name, value in self.fields if name == b"content-type"}
        return b", ".join(sorted(values)).partition(b";")[0].strip().lower().decode("latin-1")

    @property
    def is_websocket(self) -> bool:
        """Whether the client wants to turn the exchange into a WebSocket."""
        return self.scheme in ("ws", "wss")


class BrokenBy(Enum):
    """Why an exchange ended early."""

    CLIENT = "the client has left"
    PROTOCOL = "the client broke a rule of HTTP"
    TIMEOUT = "the client was too slow"
    DRAIN = "the gateway has ended"


class ExchangeReceiver(Protocol):
    """What gets the request's body. Called on the I/O loop; must not block or raise.

    Each exchange gets one `on_end` or one `on_broken`. `on_broken` may also come behind `on_end`, while the answer is
    not complete; nothing comes behind it, and nothing once the answer is complete.
    A WebSocket gets its `on_end`, if at all, when its client sends nothing more.
    """

    def on_body(self, data: bytes) -> None:
        """Bytes of the body, never empty. Their room is taken until it is given back with `give_room`."""

    def on_end(self) -> None:
        """The request is complete."""

    def on_broken(self, by: BrokenBy) -> None:
        """The exchange has ended early; nothing can be sent any more."""

    def on_writable(self) -> None:
        """All that was queued has left, after `is_blocked` was true."""


class Caller(Protocol):
    """Who sends an exchange, and what it may call now."""

    @property
    def is_stranger(self) -> bool:
        """Whether the gateway asks who calls, and does not know: the path is open."""

    def admit(self, method: Any) -> Any:
        """The method or target of a call that begins now, with its caller; a Refusal if that is above a limit."""


class Exchange(Protocol):
    """The connection's side. On the I/O loop only. All methods are without effect once it has ended.

    An answer that HTTP cannot carry (a line break in a field, more bytes than its content-length) is logged, and
    replaced by status 500, or aborted if its head has left.
    """

    caller: Caller | None
    """Set before a dialect gets the exchange; None: no client is asked who it is, and none is limited."""

    @property
    def head(self) -> HttpHead: ...

    @property
    def share(self) -> BufferShare:
        """What its connection uses of the bytes that the gateway may buffer.

        What waits to be sent is counted by the connection; what a receiver keeps of a request after it gave the room
        back, by the receiver.
        """

    @property
    def is_blocked(self) -> bool:
        """Whether something waits to be sent; `on_writable` follows."""

    @property
    def has_sent_head(self) -> bool: ...

    @property
    def has_ended(self) -> bool:
        """The answer is complete, or the exchange is broken."""

    def send_head(self, status: int, fields: Fields) -> None:
        """The head of the answer. The connection adds what belongs to it: `date`, framing, `connection`.

        Without a content-length in `fields`, HTTP/1.1 sends the body in chunks (1.0: until it closes).
        """

    def send_body(self, data: bytes | memoryview) -> bool:
        """Bytes of the answer. False, and not sent, if they have to wait and there is no room for them."""

    def end(self, trailers: Fields | None = None) -> None:
        """The answer is complete. HTTP/1.1 sends trailers only in chunks, to a client that said `te: trailers`."""

    def send_whole(self, status: int, fields: Fields, body: bytes | memoryview) -> bool:
        """Head, content-length, body and end in one write. Like `send_body` if there is no room."""

    def give_room(self, size: int) -> None:
        """`size` bytes of the request's body are dealt with; the client may send as many more."""

    def ask_for_body(self) -> None:
        """The body is wanted. Once: a client that waits for `100 Continue` gets it."""

    def let_pause(self, begun_bytes: int = 0) -> None:
        """The client may pause where it is in the body, or might have before the last `begun_bytes`: between messages.

        On HTTP/1.1 something has to come now and then, since only a pause shows that a client is gone. HTTP/2 has PING.
        """

    def open_tunnel(self, fields: Fields) -> None:
        """Accept a WebSocket: from now on `on_body` and `send_body` carry its bytes; `end` closes.

        `fields` are those that the WebSocket wants, such as its subprotocol: `sec-websocket-accept` is the
        connection's.
        """

    def abort(self) -> None:
        """Break the exchange where no status can be sent any more: the client must not take the answer for complete."""


class _Unheard:
    """The receiver of an exchange before it gets its own, or when its own wants no more."""

    def on_body(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...
    def on_broken(self, by: BrokenBy) -> None: ...
    def on_writable(self) -> None: ...


UNHEARD = _Unheard()


TEXT = (b"content-type", b"text/plain; charset=utf-8")
"""Of answers that people read."""


def answer(exchange: Exchange, status: int, fields: Fields, body: bytes = b"") -> None:
    """Answer with a small body. If there is no room even for that, the exchange is aborted."""
    if not exchange.send_whole(status, fields, body):
        exchange.abort()


def fail(exchange: Exchange, receiver: ExchangeReceiver = UNHEARD) -> None:
    """End it because what serves it, its `receiver` if it has one already, has raised: a fault of ours."""
    if not exchange.has_sent_head:
        exchange.send_whole(500, [TEXT], b"The server failed; its log has the reason.\n")
    exchange.abort()
    receiver.on_broken(BrokenBy.DRAIN)
