"""`NewConnection`: a connection until its first bytes show which protocol its client speaks."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Protocol

from mesh.http2.frame_format import PREFACE
from mesh.http2.transport import ConnectionFacts, peer_name, tls_version
from mesh.http2.upkeep import UpkeepPolicy

_HTTP2 = PREFACE[:16]
"""The request line that opens every connection of HTTP/2, and that no request of HTTP/1.1 has."""


class ConnectionHost(Protocol):
    """What knows the protocols."""

    def on_new(self, connection: NewConnection) -> None:
        """A client has connected."""

    def on_known(self, connection: NewConnection, data: bytes, *, is_http2: bool) -> None:
        """`data` is all that has come. The socket gets another protocol now."""

    def on_gone(self, connection: NewConnection) -> None:
        """The socket is closed, and nothing that makes sense has come."""


class NewConnection(asyncio.Protocol):
    """On its event loop only."""

    def __init__(self, host: ConnectionHost) -> None:
        self._host = host
        self._data = b""
        self._opened_at_s = time.monotonic()
        self._drain_since_at_s: float | None = None
        self.socket: Any = None
        """The asyncio transport; uvloop's have no common type with asyncio's."""

    @property
    def is_lost(self) -> bool:
        return self.socket is None

    # ---- asyncio.Protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.socket = transport
        self._host.on_new(self)

    def data_received(self, data: bytes) -> None:
        self._data += data
        is_http2 = self._data.startswith(_HTTP2)
        if is_http2 or not _HTTP2.startswith(self._data):
            self._host.on_known(self, self._data, is_http2=is_http2)

    def connection_lost(self, exc: Exception | None) -> None:
        self.socket = None
        self._host.on_gone(self)

    # ---- Life --------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """A client that has connected may be about to send: it gets a moment."""
        self._drain_since_at_s = self._drain_since_at_s or time.monotonic()

    def abort(self, reason: str) -> None:
        if self.socket is not None:
            self.socket.abort()

    def facts(self, now_s: float) -> ConnectionFacts:
        """What operators may want to know of it. Not on one that is lost."""
        age_s = now_s - self._opened_at_s
        return ConnectionFacts(
            peer=peer_name(self.socket.get_extra_info("peername")),
            protocol="unknown",
            tls=tls_version(self.socket),
            age_s=age_s,
            silent_s=age_s,
            buffered_bytes=len(self._data),
            is_draining=self._drain_since_at_s is not None,
        )

    def look_after(self, policy: UpkeepPolicy, now_s: float) -> None:
        is_late = now_s - self._opened_at_s >= policy.handshake_timeout_s
        is_drained = self._drain_since_at_s is not None and now_s - self._drain_since_at_s >= policy.goaway_delay_s
        if is_late or is_drained:
            self.abort("the client sent nothing")
