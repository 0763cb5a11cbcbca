"""The authentication function of test_security, which the gateway imports."""

from __future__ import annotations

from mesh.authentication import ClientRequest, Identity, Refused


async def by_session(request: ClientRequest) -> Identity | Refused:
    name = str(request.metadata.get("x-session", ""))
    return Identity(name, {"via": "session"}) if name.isalpha() else Refused("Log in first.")
