"""A model per tenant: each replica keeps the two that it used last, and requests go where their model is loaded.

`mesh run examples.apps.tenants:app`, then `curl -H 'serve_multiplexed_model_id: acme' 'http://localhost:8000/?x=2'`.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse

import mesh

FACTORS = {"acme": 2.0, "bolt": 3.0, "core": 5.0}


class Model:
    def __init__(self, tenant: str) -> None:
        self.factor = FACTORS[tenant]

    def predict(self, x: float) -> float:
        return self.factor * x


class Models:
    @mesh.multiplexed(max_num_models_per_replica=2)
    async def load(self, tenant: str) -> Model:
        if tenant not in FACTORS:
            raise LookupError(f"There is no tenant {tenant!r}.")
        await asyncio.sleep(0.01)  # as from a disk
        return Model(tenant)

    async def predict(self, x: float) -> float:
        model = await self.load(mesh.get_multiplexed_model_id())
        return model.predict(x)


class Front:
    def __init__(self, models: mesh.DeploymentHandle) -> None:
        self.models = models

    async def __call__(self, request: Request) -> JSONResponse:
        tenant = mesh.get_multiplexed_model_id()
        if not tenant:
            return JSONResponse({"error": "Which tenant? Send the header serve_multiplexed_model_id."}, 400)
        x = float(request.query_params.get("x", 1))
        models = self.models.options(multiplexed_model_id=tenant)
        try:
            return JSONResponse({"y": await models.predict.remote(x)})
        except LookupError as error:
            return JSONResponse({"error": str(error)}, 404)


models = mesh.deployment(Models, num_replicas=2)
front = mesh.deployment(Front)
app = front.bind(models.bind())
