"""A listener with TLS, authentication and limits, made from options as a gateway makes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

from gateway.security import Security
from mesh.options.gateway.gateway_options import parse
from tests.unit.gateway.fakes import FakeRouter, Gateway, routes_of


@asynccontextmanager
async def guarded(
    router: FakeRouter, credentials: grpc.ChannelCredentials | None = None, **grpc_options: Any
) -> AsyncIterator[tuple[Gateway, Security]]:
    """The application "a" behind these gRPC options; the channel uses `credentials` if there are any."""
    security = Security(parse(None, None, {"port": 0, **grpc_options}).to_message())
    await security.load()
    gateway = Gateway(router)
    gateway.listener.guard = security.guard(gateway.metrics.in_flight)
    gateway.listener.set_routes(routes_of("a"))
    gateway.health.set_serving({"a": True})
    gateway.port = await gateway.listener.start("127.0.0.1", 0, tls=security.tls("grpc"))
    channel = open_channel(gateway, credentials)
    async with channel:
        gateway.channel = channel
        try:
            yield gateway, security
        finally:
            gateway.health.close()
            await gateway.listener.stop(0)
            await security.close()


def open_channel(gateway: Gateway, credentials: grpc.ChannelCredentials | None = None) -> grpc.aio.Channel:
    """A channel with a connection of its own."""
    address, options = f"127.0.0.1:{gateway.port}", [("grpc.use_local_subchannel_pool", 1)]
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)
