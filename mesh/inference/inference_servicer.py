"""The servicer of `inference.GRPCInferenceService`, as generated code has it, with a codec of its own for tensors."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import Message

from mesh.inference.protocol import messages
from mesh.inference.protocol.wire_messages import read_request, write_response, write_stream_response

SERVICE = "inference.GRPCInferenceService"


class GRPCInferenceServiceServicer:
    """What serves the methods of the protocol inherits this."""


def add_GRPCInferenceServiceServicer_to_server(servicer: Any, server: Any) -> None:
    """The name by which servicers are found."""
    # The stubs of grpc know messages of protobuf only.
    read: Any = read_request
    write: Any = write_response
    write_one: Any = write_stream_response
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, name),
            _message(f"{name}Request").FromString,
            _message(f"{name}Response").SerializeToString,
        )
        for name in ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")
    }
    handlers["ModelInfer"] = grpc.unary_unary_rpc_method_handler(servicer.ModelInfer, read, write)
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(servicer.ModelStreamInfer, read, write_one)
    server.add_registered_method_handlers(SERVICE, handlers)


def _message(name: str) -> type[Message]:
    found: type[Message] = getattr(messages, name)
    return found
