"""Triton's own client, over gRPC and over HTTP: nothing of the mesh.

`python -m examples.inference.client [GRPC_ADDRESS] [HTTP_ADDRESS]`, with `pip install 'tritonclient[grpc,http]'`. The
HTTP address may have the route prefix behind it. Exit code 1: an answer is wrong.
"""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import tritonclient.grpc  # type: ignore[import-untyped]
import tritonclient.http  # type: ignore[import-untyped]


def main(grpc_address: str = "localhost:9000", http_address: str = "localhost:8000") -> int:
    over_grpc = ask(tritonclient.grpc, grpc_address, "linear-north", "1")
    over_http = ask(tritonclient.http, http_address, "linear-north", "1")
    return 0 if np.array_equal(over_grpc, over_http) else 1


def ask(client_library: ModuleType, address: str, model: str, version: str) -> np.ndarray:
    """The answer of a model to two rows of features. Both libraries have the same functions."""
    client = client_library.InferenceServerClient(address)
    assert client.is_server_ready()
    assert client.is_model_ready(model, version)
    features = np.array([[1, 2, 3, 4], [4, 3, 2, 1]], np.float32)
    sent = client_library.InferInput("features", features.shape, "FP32")
    sent.set_data_from_numpy(features)
    price: np.ndarray = client.infer(model, [sent], version).as_numpy("price")
    print(f"{client_library.__name__}: {model} version {version} says {price.ravel().round(3).tolist()}")
    client.close()
    return price


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
