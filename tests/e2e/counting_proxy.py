"""A TCP proxy that counts what passes: how a test sees that messages are compressed on the wire."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Passed:
    """Bytes so far."""

    port: int
    to_server: int = 0
    to_client: int = 0
    _sockets: list[socket.socket] = field(default_factory=list)


@contextlib.contextmanager
def counting(server_port: int) -> Iterator[Passed]:
    """A port in front of another one of this machine."""
    listener = socket.create_server(("127.0.0.1", 0))
    passed = Passed(listener.getsockname()[1])
    accepting = threading.Thread(target=_accept, args=(listener, server_port, passed))
    accepting.start()
    try:
        yield passed
    finally:
        for each in (listener, *passed._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        accepting.join(10)
        assert not accepting.is_alive()


def _accept(listener: socket.socket, server_port: int, passed: Passed) -> None:
    pumps = []
    with contextlib.suppress(OSError):  # the listener is closed at the end
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", server_port))
            passed._sockets += [client, server]
            pumps += [
                threading.Thread(target=_pump, args=(client, server, passed, "to_server")),
                threading.Thread(target=_pump, args=(server, client, passed, "to_client")),
            ]
            for pump in pumps[-2:]:
                pump.start()
    for pump in pumps:
        pump.join(10)


def _pump(source: socket.socket, target: socket.socket, passed: Passed, direction: str) -> None:
    with contextlib.suppress(OSError):  # either end is closed
        while data := source.recv(65_536):
            setattr(passed, direction, getattr(passed, direction) + len(data))
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
