"""A receiver that does anything at any time, and checks that what it is called with keeps the rules of the seam."""

from __future__ import annotations

from hypothesis import strategies as st

from gateway.requests.exchange import BrokenBy, Exchange

ACTS = st.lists(st.integers(0, 8), max_size=20)


class Fickle:
    """A receiver that checks its events, and acts as drawn numbers say."""

    def __init__(self, exchange: Exchange, acts: list[int], body: bytes) -> None:
        self.exchange = exchange
        self._acts = acts
        self._body = body
        self.received = 0
        self.events = ""
        self._act()

    def on_body(self, data: bytes) -> None:
        assert data
        assert not self.exchange.has_ended
        assert "end" not in self.events
        self.received += len(data)
        self._act()
        self.exchange.give_room(len(data))

    def on_end(self) -> None:
        assert self.events == ""
        assert not self.exchange.has_ended
        self.events += "end "
        self._act()

    def on_broken(self, by: BrokenBy) -> None:
        assert "broken" not in self.events
        assert self.exchange.has_ended
        self.events += "broken "

    def on_writable(self) -> None:
        assert not self.exchange.has_ended
        self._act()

    def _act(self) -> None:
        for _ in range(2):
            match self._acts.pop() if self._acts else 4:
                case 0:
                    self.exchange.send_head(200, [])
                case 1:
                    self.exchange.send_body(self._body)
                case 2:
                    self.exchange.end()
                case 3:
                    self.exchange.abort()
                case 4:
                    self.exchange.send_whole(200, [], self._body)
                case 5:
                    self.exchange.send_head(200, [(b"content-length", b"5")])
                case 6:
                    self.exchange.open_tunnel([])
                case 7:
                    self.exchange.send_whole(200, [(b"x", b"a\r\nb")], b"")
                case 8:
                    raise RuntimeError("a bug")
