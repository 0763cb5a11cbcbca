"""What we take for a request, another implementation reads in the same way: so none can be smuggled past one of us."""

from __future__ import annotations

from contextlib import suppress

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.http1.head_syntax import Origin
from gateway.http1.http1_limits import Http1Error, Http1Limits
from gateway.http1.http1_reader import Http1Reader
from tests.unit.gateway.http1.test_http1_fuzz import mutated

Message = tuple[str, str, bytes]
"""Method, target and body."""


def ours(data: bytes) -> list[Message]:
    """All complete requests, as far as they are valid."""
    reader, found = Http1Reader(Http1Limits(), Origin()), []
    reader.feed(data)
    with suppress(Http1Error):
        while (received := reader.read_head()) is not None:
            body = b""
            while piece := reader.read_body():
                body += piece
            if not reader.body.is_done:
                break
            head = received.head
            found.append((head.method, head.path + ("?" + head.query.decode() if head.query else ""), body))
            if not received.keeps_alive or head.is_websocket:
                break
    return found


def theirs(data: bytes) -> list[Message]:
    """The same as h11 reads it, which does not know empty lines in front of a request (RFC 9112 §2.2)."""
    found: list[Message] = []
    with suppress(h11.RemoteProtocolError):
        while data := data.removeprefix(b"\r\n"):
            server = h11.Connection(h11.SERVER)
            server.receive_data(data)
            method, target, body = "", "", b""
            while not isinstance(event := server.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.Request):
                    method, target = event.method.decode(), event.target.decode()
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                else:
                    return found
            found.append((method, target.removesuffix("?"), body))
            data = server.trailing_data[0]
    return found


@settings(max_examples=400, deadline=None)
@given(st.one_of(mutated(), st.binary(max_size=300)))
def test_what_we_accept_is_what_another_server_reads(data: bytes) -> None:
    accepted, read = ours(data), theirs(data)
    assert accepted == read[: len(accepted)]
