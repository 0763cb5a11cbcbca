"""What an authentication function sees of a request and what it answers; docs/security.md shows one.

async def authenticate(request: ClientRequest) -> Identity | Refused:
    user = await look_up(request.metadata.get("x-session", ""))
    return Identity(user.name, {"role": user.role}) if user else Refused("Log in first.")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc

from mesh.tls.client_certificate import ClientCertificate
from mesh.wire.identity import Identity

__all__ = ["ClientCertificate", "ClientRequest", "Identity", "Refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRequest:
    """A request at a gateway before its body is read, in any dialect."""

    path: str
    """Full name of the gRPC method, "/package.Service/Method", or the path of an HTTP request, percent-encoded."""
    http_method: str = "POST"
    """In upper case; always POST for gRPC."""
    metadata: Mapping[str, str | bytes] = field(default_factory=dict)
    """Metadata or headers, names in lower case; of several values the last. Names in "-bin" have bytes."""
    peer: str = ""
    """The client's address, for instance "ipv4:10.0.0.7:50312"."""
    certificate: ClientCertificate | None = None
    """The client's TLS certificate, verified; None if it has shown none."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The client is not let in."""

    details: str = "The credentials of this request are not accepted."
    """Sent to the client: say nothing here that helps to guess."""
    code: grpc.StatusCode = grpc.StatusCode.UNAUTHENTICATED
    """PERMISSION_DENIED for a client that is known and may not do this."""
