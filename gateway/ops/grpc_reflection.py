"""`grpc.reflection.v1.ServerReflection` of the gateway, and the same as v1alpha, which older clients ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from gateway.ops.reflection_answers import ReflectionAnswers
from gateway.requests.routes import Routes
from mesh.v1 import reflection_pb2

_VERSIONS = ("v1", "v1alpha")


class Reflection:
    """Describes the services of all applications, as the routes of the moment know them. I/O loop only."""

    def __init__(self, routes: Callable[[], Routes]) -> None:
        self._routes = routes

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """One for each version of the protocol."""
        method = grpc.stream_stream_rpc_method_handler(
            self.ServerReflectionInfo,
            reflection_pb2.ServerReflectionRequest.FromString,
            reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        return [
            grpc.method_handlers_generic_handler(
                f"grpc.reflection.{version}.ServerReflection", {"ServerReflectionInfo": method}
            )
            for version in _VERSIONS
        ]

    async def ServerReflectionInfo(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """One answer to each request, in their order."""
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        answers = ReflectionAnswers(self._routes, metadata.get("application") or None)
        async for request in requests:
            yield answers.answer(request)
            # Requests that have arrived together must not keep other connections from the loop.
            await asyncio.sleep(0)
