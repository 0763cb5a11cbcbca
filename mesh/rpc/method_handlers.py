"""`MethodHandlers`: what generated `add_XServicer_to_server` functions register, for an `RpcServer`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

import grpc

from mesh.http2.stream import Stream
from mesh.rpc.answers import answer_status
from mesh.rpc.request_head import RequestHead
from mesh.rpc.servicer_call import MESSAGE_MAX_BYTES, ServicerCall
from mesh.rpc.status_codes import UNIMPLEMENTED


class CallDetails(NamedTuple):
    """What grpc's generic handlers look at: a grpc.HandlerCallDetails."""

    method: str
    invocation_metadata: tuple[tuple[str, str | bytes], ...]


class MethodHandlers:
    """Stands in for a grpc server where handlers are added, and accepts requests for them."""

    def __init__(self, pool: Executor | None = None, message_max_bytes: int = MESSAGE_MAX_BYTES) -> None:
        """`pool` runs plain functions; without one, the loop's default executor does.

        `message_max_bytes`: of a request message.
        """
        self._pool = pool
        self._message_max_bytes = message_max_bytes
        self._registered: dict[str, Any] = {}
        self._generic: list[grpc.GenericRpcHandler] = []

    def add(self, add_to_server: Callable[[Any, Any], None], servicer: object) -> None:
        """Add a servicer by its generated `add_XServicer_to_server`."""
        add_to_server(servicer, self)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self._generic.extend(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: dict[str, Any]) -> None:
        for name, handler in method_handlers.items():
            self._registered[f"/{service_name}/{name}"] = handler

    def find(self, head: RequestHead) -> Any:
        """The grpc.RpcMethodHandler of a request, or None."""
        handler = self._registered.get(head.path)
        if handler is None and self._generic:
            details: Any = CallDetails(head.path, head.metadata)
            found = (each.service(details) for each in self._generic)
            handler = next((each for each in found if each is not None), None)
        return handler

    def accept(self, stream: Stream, head: RequestHead, peer: str) -> ServicerCall | None:
        """The receiver of a request; None where nothing serves it, which has then been answered."""
        handler = self.find(head)
        if handler is None:
            answer_status(stream, UNIMPLEMENTED, "Method not found!")
            return None
        return ServicerCall(stream, head, handler, self._pool, peer, self._message_max_bytes)
