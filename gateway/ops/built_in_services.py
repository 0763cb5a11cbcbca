"""The gateway's own gRPC services in one handler, and their descriptors under the names that clients know.

Their messages have names of our own in this process (see protos/mesh/v1/health.proto). Reflection describes them as the
standards do: the same file in another package, with the service.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

from gateway.requests.descriptors import Descriptors
from mesh.v1 import health_pb2, reflection_pb2, serve_api_pb2

REQUEST_MAX_BYTES = 16 * 1024
"""Limit of a request to one of our own services. Strangers may send them, and no buffer counts them; names suffice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicMethod:
    """One method of a service of the gateway's; the types are names of messages."""

    name: str
    request: str
    response: str
    streams_request: bool = False
    streams_response: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicService:
    """A service as its clients know it."""

    full_name: str
    file_name: str
    messages: FileDescriptor
    """Where this process has them."""
    methods: tuple[PublicMethod, ...]

    def file(self) -> FileDescriptorProto:
        """The `.proto` file that defines it."""
        package, _, name = self.full_name.rpartition(".")
        file = FileDescriptorProto.FromString(self.messages.serialized_pb)
        file.name = self.file_name
        own_prefix, file.package = f".{file.package}.", package
        for message in file.message_type:
            _rename_types(message, own_prefix, f".{package}.")
        service = file.service.add(name=name)
        for method in self.methods:
            service.method.add(
                name=method.name,
                input_type=f".{package}.{method.request}",
                output_type=f".{package}.{method.response}",
                client_streaming=method.streams_request,
                server_streaming=method.streams_response,
            )
        return file


_REFLECT = PublicMethod(
    name="ServerReflectionInfo",
    request="ServerReflectionRequest",
    response="ServerReflectionResponse",
    streams_request=True,
    streams_response=True,
)

PUBLIC_SERVICES = (
    PublicService(
        full_name="grpc.health.v1.Health",
        file_name="grpc/health/v1/health.proto",
        messages=health_pb2.DESCRIPTOR,
        methods=(
            PublicMethod(name="Check", request="HealthCheckRequest", response="HealthCheckResponse"),
            PublicMethod(name="List", request="HealthListRequest", response="HealthListResponse"),
            PublicMethod(
                name="Watch", request="HealthCheckRequest", response="HealthCheckResponse", streams_response=True
            ),
        ),
    ),
    PublicService(
        full_name="grpc.reflection.v1.ServerReflection",
        file_name="grpc/reflection/v1/reflection.proto",
        messages=reflection_pb2.DESCRIPTOR,
        methods=(_REFLECT,),
    ),
    PublicService(
        full_name="grpc.reflection.v1alpha.ServerReflection",
        file_name="grpc/reflection/v1alpha/reflection.proto",
        messages=reflection_pb2.DESCRIPTOR,
        methods=(_REFLECT,),
    ),
    PublicService(
        full_name="ray.serve.RayServeAPIService",
        file_name="ray/serve/serve_api.proto",
        messages=serve_api_pb2.DESCRIPTOR,
        methods=(
            PublicMethod(
                name="ListApplications", request="ListApplicationsRequest", response="ListApplicationsResponse"
            ),
            PublicMethod(name="Healthz", request="HealthzRequest", response="HealthzResponse"),
        ),
    ),
)


class BuiltInServices(grpc.GenericRpcHandler):
    """The handlers of several services as one."""

    def __init__(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        self._handlers = tuple(handlers)

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a method; None if none of the services has it."""
        found = (handler.service(handler_call_details) for handler in self._handlers)
        return next((each for each in found if each is not None), None)


def _rename_types(message: DescriptorProto, prefix: str, new_prefix: str) -> None:
    for field in message.field:
        if field.type_name.startswith(prefix):
            field.type_name = new_prefix + field.type_name.removeprefix(prefix)
    for nested in message.nested_type:
        _rename_types(nested, prefix, new_prefix)


PUBLIC_DESCRIPTORS = Descriptors(
    "built-in", FileDescriptorSet(file=[service.file() for service in PUBLIC_SERVICES]).SerializeToString()
)
"""Descriptors of all services of the gateway itself."""
