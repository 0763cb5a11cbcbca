"""`LinkTarget`: the replica that a link connects to."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from mesh.http2.transport import Http2Transport
from mesh.link.link_stream import LINK_LIMITS, caller_transports
from mesh.rpc.rpc_channel import UNIX_PREFIX, connect
from mesh.wire.link_tls import link_tls


@dataclass(frozen=True, slots=True)
class LinkTarget:
    """Its name, its addresses, and what to say first."""

    replica_id: str
    address: str
    """host:port."""
    hello: bytes
    """The packed Hello frame."""
    local_socket: str = ""
    """Its Unix socket, if it is on this node: that is faster."""

    async def connect(self) -> Http2Transport:
        """A connection, by the Unix socket if that can be reached. Raises OSError."""
        on_lost, tls = caller_transports().discard, link_tls()
        if self.local_socket:
            with contextlib.suppress(OSError):
                return await connect(f"{UNIX_PREFIX}{self.local_socket}", LINK_LIMITS, on_lost)
        if tls is None:
            return await connect(self.address, LINK_LIMITS, on_lost)
        return await connect(self.address, LINK_LIMITS, on_lost, tls.connecting, tls.server_name)
