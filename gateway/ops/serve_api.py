"""`ray.serve.RayServeAPIService` of the gateway: what deployment scripts for Ray Serve ask its gRPC port."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import grpc

from mesh.v1 import serve_api_pb2


class ServeApi:
    """Answers from the state of the gateway. I/O loop only."""

    def __init__(self, why_unhealthy: Callable[[], str], applications: Callable[[], Iterable[str]]) -> None:
        """`why_unhealthy`: empty while clients should use this gateway. `applications`: their names."""
        self._why_unhealthy = why_unhealthy
        self._applications = applications

    def handler(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "ray.serve.RayServeAPIService",
            {
                "ListApplications": grpc.unary_unary_rpc_method_handler(
                    self.ListApplications,
                    serve_api_pb2.ListApplicationsRequest.FromString,
                    serve_api_pb2.ListApplicationsResponse.SerializeToString,
                ),
                "Healthz": grpc.unary_unary_rpc_method_handler(
                    self.Healthz,
                    serve_api_pb2.HealthzRequest.FromString,
                    serve_api_pb2.HealthzResponse.SerializeToString,
                ),
            },
        )

    async def ListApplications(self, request: Any, context: Any) -> Any:
        """The names of all applications; UNAVAILABLE like `Healthz`."""
        del request
        await self._require_health(context)
        return serve_api_pb2.ListApplicationsResponse(application_names=sorted(self._applications()))

    async def Healthz(self, request: Any, context: Any) -> Any:
        """Answers "success", or ends UNAVAILABLE with the reason: no routes yet, no replica, or the gateway drains."""
        del request
        await self._require_health(context)
        return serve_api_pb2.HealthzResponse(message="success")

    async def _require_health(self, context: Any) -> None:
        reason = self._why_unhealthy()
        if reason:
            await context.abort(grpc.StatusCode.UNAVAILABLE, reason)
