"""benchmarks.memory: idle connections are HTTP/2 connections, and their cost is counted."""

import mmap
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from benchmarks.h2load import GrpcPort
from benchmarks.memory import PREFACE, connection_kib, idle_connections, settings_frame

KEPT_BYTES = 256 * 2**10


class Http2Server:
    """Answers the preface with `answer`, and keeps some memory for each connection."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.received: list[bytes] = []
        self._kept: list[object] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # the end of the test
                return
            memory = mmap.mmap(-1, KEPT_BYTES)  # never from what the process has freed before
            memory.write(b"\1" * KEPT_BYTES)
            self._kept += [connection, memory]
            self.received.append(connection.recv(33))
            connection.sendall(self._answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(30)
        for kept in self._kept:
            if isinstance(kept, socket.socket):
                kept.close()


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Http2Server]:
    server = Http2Server(getattr(request, "param", settings_frame()))
    yield server
    server.close()


def test_a_connection_begins_with_the_preface_and_settings(server: Http2Server) -> None:
    with idle_connections(server.address, 3):
        pass
    assert server.received == [PREFACE + bytes.fromhex("000000040000000000")] * 3


@pytest.mark.parametrize("server", [b"HTTP/1.1 "], indirect=True)
def test_what_does_not_speak_http2_is_an_error(server: Http2Server) -> None:
    with pytest.raises(RuntimeError, match="does not speak HTTP/2"), idle_connections(server.address, 1):
        pass


def test_the_cost_is_what_the_process_keeps_for_each(server: Http2Server) -> None:
    port = GrpcPort(server.address, roles={"front": (os.getpid(),)})
    assert connection_kib(port, 50) == pytest.approx(KEPT_BYTES / 2**10, rel=0.3)
