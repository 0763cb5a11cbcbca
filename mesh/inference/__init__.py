"""The Open Inference Protocol, version 2: a class that inherits `InferenceServer` serves it over gRPC and REST.

May import inference.protocol and replica, and what they may import.
"""

from mesh.inference.inference_server import InferenceServer
from mesh.inference.protocol.inference_request import InferenceRequest, InferenceResult, InputTensor
from mesh.inference.protocol.model_info import ModelInfo, TensorInfo

__all__ = ["InferenceRequest", "InferenceResult", "InferenceServer", "InputTensor", "ModelInfo", "TensorInfo"]
