"""A server of many linear models, of which each replica keeps two in memory.

`mesh run examples.inference.app:app` serves it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import mesh
from mesh.inference import InferenceRequest, InferenceServer, ModelInfo, TensorInfo

FEATURES = 4


class LinearModel:
    """Stands for a model that takes long to load."""

    def __init__(self, model_id: str) -> None:
        name, _, version = model_id.partition(":")
        seed = sum(name.encode()) + int(version or "2")
        self.weights = np.random.default_rng(seed).normal(size=(FEATURES, 1)).astype(np.float32)

    def predict(self, features: Any) -> Any:
        return features @ self.weights


class LinearModels(InferenceServer):
    """Any name is a model here; a real server would look into its store."""

    async def find_model(self, name: str, version: str) -> ModelInfo | None:
        if not name.startswith("linear"):
            return None
        return ModelInfo(
            name,
            inputs=[TensorInfo("features", "FP32", [-1, FEATURES])],
            outputs=[TensorInfo("price", "FP32", [-1, 1])],
            versions=["1", "2"],
            platform="numpy",
        )

    @mesh.multiplexed(max_num_models_per_replica=2)
    async def load(self, model_id: str) -> LinearModel:
        return LinearModel(model_id)

    async def infer(self, inputs: dict[str, Any], request: InferenceRequest) -> dict[str, Any]:
        model = await self.load(request.model_id)
        return {"price": model.predict(inputs["features"])}


app = mesh.deployment(LinearModels, num_replicas=2, max_ongoing_requests=16, ray_actor_options={"num_cpus": 0.1}).bind()
