"""A scorer that takes single rows and computes whole batches of them.

`mesh run examples.apps.batch_scorer:app`, then POST a list of three numbers to http://localhost:8000.
"""

from __future__ import annotations

import numpy as np
from starlette.requests import Request
from starlette.responses import PlainTextResponse

import mesh

WEIGHTS = np.array([0.5, -1.0, 2.0])


class Scorer:
    def reconfigure(self, user_config: dict[str, float]) -> None:
        self.score.set_max_batch_size(int(user_config["max_batch_size"]))
        self.score.set_batch_wait_timeout_s(user_config["wait_s"])

    @mesh.batch
    async def score(self, rows: list[list[float]]) -> list[dict[str, float]]:
        scores = 1 / (1 + np.exp(-(np.array(rows) @ WEIGHTS)))
        return [{"score": round(float(score), 4), "batch_size": len(rows)} for score in scores]

    async def __call__(self, request: Request) -> dict[str, float] | PlainTextResponse:
        row = await request.json()
        if not isinstance(row, list) or len(row) != len(WEIGHTS):
            # Here, because an error in the batch would be one of all its callers.
            return PlainTextResponse(f"POST a list of {len(WEIGHTS)} numbers.", 400)
        return await self.score(row)


scorer = mesh.deployment(Scorer, max_ongoing_requests=64, user_config={"max_batch_size": 16, "wait_s": 0.02})
app = scorer.bind()
