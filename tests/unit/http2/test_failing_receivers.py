"""Receivers that raise: their stream ends, with one line in the log, and nothing else does."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from mesh.http2.frame_format import ErrorCode, Http2Error
from mesh.http2.stream import Stream
from tests.unit.fakes.http2_ends import (
    REQUEST,
    RESPONSE,
    TRAILERS,
    ClientEnd,
    Exchange,
    ServerEnd,
    data,
    failures,
    headers,
    rst_stream,
    window_update,
)


class Failing(Exchange):
    """Raises in one event."""

    def __init__(self, event: str, error: Exception) -> None:
        super().__init__(lambda exchange: None)
        self._event, self._error = event, error

    def on_headers(self, stream: Stream, head: Any, *, ended: bool) -> None:
        self._raise("headers")

    def on_data(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        self._raise("data")

    def on_end(self, stream: Stream) -> None:
        self._raise("end")

    def on_reset(self, stream: Stream, code: ErrorCode | int) -> None:
        super().on_reset(stream, code)
        self._raise("reset")

    def on_writable(self, stream: Stream) -> None:
        self._raise("writable")

    def _raise(self, event: str) -> None:
        if event == self._event:
            raise self._error


def server_with(event: str, error: Exception | None = None) -> tuple[ServerEnd, Failing]:
    """Stream 1 has a receiver that raises; stream 3 is open too."""
    server = ServerEnd()
    server.receive(headers(1), headers(3))
    failing = Failing(event, error or RuntimeError("a bug"))
    failing.stream = server.exchanges[1].stream
    failing.stream.receiver = server.exchanges[1] = failing
    return server, failing


@pytest.mark.parametrize(
    ("event", "sent"),
    [
        ("data", data(1, b"x")),
        ("data", data(1, b"x", ends=True)),
        ("end", data(1, b"x", ends=True)),
        ("end", data(1, ends=True)),
        ("headers", headers(1, TRAILERS, ends=True)),
    ],
)
def test_a_server_ends_only_that_stream(event: str, sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    server, failing = server_with(event)
    assert failures(server.receive(sent, data(3, b"y"))) == [(1, ErrorCode.INTERNAL_ERROR)]
    assert failing.reset_code == ErrorCode.INTERNAL_ERROR
    assert server.exchanges[3].body == b"y"
    assert list(server.connection.streams) == [3]
    (record,) = caplog.records
    assert (record.levelno, record.exc_info is not None) == (logging.ERROR, True)


def test_a_failure_after_the_last_of_what_waited_has_left() -> None:
    server, failing = server_with("writable")
    server.connection.outbox.send_data(failing.stream, bytes(70_000))
    assert not failures(server.written())
    frames = server.receive(window_update(1, 70_000), window_update(0, 70_000))
    assert failures(frames) == [(1, ErrorCode.INTERNAL_ERROR)]
    assert list(server.connection.streams) == [3]


def test_a_failure_at_the_end_of_a_stream(caplog: pytest.LogCaptureFixture) -> None:
    server, _ = server_with("reset")
    assert not failures(server.receive(rst_stream(1), data(3, b"y")))
    assert server.exchanges[3].body == b"y"
    assert len(caplog.records) == 1


def test_a_failure_when_the_connection_ends_reaches_the_others(caplog: pytest.LogCaptureFixture) -> None:
    server, _ = server_with("reset")
    server.connection.close(ErrorCode.CONNECT_ERROR)
    assert server.exchanges[3].reset_code == ErrorCode.CONNECT_ERROR
    assert len(caplog.records) == 1


def test_a_fault_of_the_connection_is_none_of_a_receiver(caplog: pytest.LogCaptureFixture) -> None:
    server, _ = server_with("data", Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "too much"))
    assert failures(server.receive(data(1, b"x"))) == [(0, ErrorCode.ENHANCE_YOUR_CALM)]
    assert not caplog.records


def test_a_client_ends_only_that_stream(caplog: pytest.LogCaptureFixture) -> None:
    client = ClientEnd()
    failing = Failing("data", RuntimeError("a bug"))
    failing.stream = client.connection.open(b"\x83", failing)
    other = client.open(REQUEST)
    sent = headers(1, RESPONSE) + data(1, b"x") + headers(3, RESPONSE) + data(3, b"y")
    assert failures(client.receive(sent)) == [(1, ErrorCode.INTERNAL_ERROR)]
    assert (failing.reset_code, other.body) == (ErrorCode.INTERNAL_ERROR, b"y")
    assert len(caplog.records) == 1
