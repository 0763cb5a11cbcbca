"""The messages of the protocol, in a pool of descriptors of their own.

All implementations define `inference.ModelInferRequest` and so on, and a pool takes each name once: in the default pool
these messages would make it impossible to use `tritonclient` or KServe's package in the same process.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from mesh.inference.protocol.open_inference_pb2 import (
        InferParameter,
        InferTensorContents,
        ModelInferRequest,
        ModelInferResponse,
        ModelMetadataRequest,
        ModelMetadataResponse,
        ModelReadyRequest,
        ModelReadyResponse,
        ModelStreamInferResponse,
        ServerLiveRequest,
        ServerLiveResponse,
        ServerMetadataRequest,
        ServerMetadataResponse,
        ServerReadyRequest,
        ServerReadyResponse,
    )
else:
    _set = descriptor_pb2.FileDescriptorSet.FromString(files(__package__).joinpath("open_inference.binpb").read_bytes())
    _pool = descriptor_pool.DescriptorPool()
    for _file in _set.file:
        _pool.Add(_file)
    globals().update(
        (name.removeprefix("inference."), message)
        for name, message in message_factory.GetMessageClassesForFiles([each.name for each in _set.file], _pool).items()
    )

__all__ = [
    "InferParameter",
    "InferTensorContents",
    "ModelInferRequest",
    "ModelInferResponse",
    "ModelMetadataRequest",
    "ModelMetadataResponse",
    "ModelReadyRequest",
    "ModelReadyResponse",
    "ModelStreamInferResponse",
    "ServerLiveRequest",
    "ServerLiveResponse",
    "ServerMetadataRequest",
    "ServerMetadataResponse",
    "ServerReadyRequest",
    "ServerReadyResponse",
]
