"""An HTTP exchange without a connection: what a dialect sent, and what it gave back."""

from __future__ import annotations

from gateway.requests.exchange import Caller, ExchangeReceiver, Fields, HttpHead
from mesh.http2.limits import BufferBudget, BufferShare


class FakeExchange:
    """Records what a dialect does. `is_blocked` and `has_room` are a test's to set."""

    def __init__(self, head: HttpHead, budget_bytes: float = float("inf")) -> None:
        self.head = head
        self.caller: Caller | None = None
        self.share = BufferShare(BufferBudget(budget_bytes))
        self.is_blocked = False
        self.has_room = True
        """False: nothing more can be sent."""
        self.status = 0
        self.fields: Fields = []
        self.trailers: Fields | None = None
        self.pieces: list[bytes] = []
        """The answer's body as it was sent."""
        self.given_room = 0
        self.is_tunnel = False
        self.is_aborted = False
        self.has_sent_head = False
        self.has_ended = False

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def by_name(self) -> dict[bytes, bytes]:
        return dict(self.fields)

    def break_off(self) -> None:
        """What a connection does before `on_broken`."""
        self.has_ended = True

    def send_head(self, status: int, fields: Fields) -> None:
        if self.has_ended:
            return
        assert not self.has_sent_head, "a head was sent twice"
        self.status, self.fields, self.has_sent_head = status, fields, True

    def send_body(self, data: bytes | memoryview) -> bool:
        if self.has_ended:
            return True
        assert self.has_sent_head, "a body before its head"
        if self.has_room:
            self.pieces.append(bytes(data))
        return self.has_room

    def end(self, trailers: Fields | None = None) -> None:
        if self.has_ended:
            return
        assert self.has_sent_head, "an end before the head"
        self.trailers, self.has_ended = trailers, True

    def send_whole(self, status: int, fields: Fields, body: bytes | memoryview) -> bool:
        if self.has_room or self.has_ended:
            self.send_head(status, fields)
            self.send_body(body)
            self.end()
        return self.has_room

    def give_room(self, size: int) -> None:
        if not self.has_ended:
            self.given_room += size

    def ask_for_body(self) -> None:
        """No test of these has a client that waits for that."""

    def let_pause(self, begun_bytes: int = 0) -> None:
        """No test of these looks at the time of a body."""

    def open_tunnel(self, fields: Fields) -> None:
        assert not self.has_sent_head, "a tunnel behind a head"
        self.fields, self.has_sent_head, self.is_tunnel = fields, True, True

    def abort(self) -> None:
        self.is_aborted = self.has_ended = True


def request(path: str, *fields: tuple[str, str], method: str = "POST", query: bytes = b"") -> HttpHead:
    """The head of a request with a body."""
    raw = [(name.encode(), value.encode()) for name, value in fields]
    return HttpHead(
        method=method, path=path, query=query, fields=raw, has_body=method == "POST", peer="ipv4:10.0.0.9:9"
    )


def send_body(exchange: FakeExchange, receiver: ExchangeReceiver, body: bytes, *, step: int = 0) -> None:
    """A whole body in pieces of `step` bytes (0: in one), and its end. Stops when the exchange has ended."""
    step = step or max(1, len(body))
    for start in range(0, len(body), step):
        if exchange.has_ended:
            return
        receiver.on_body(body[start : start + step])
    if not exchange.has_ended:
        receiver.on_end()
