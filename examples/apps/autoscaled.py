"""A worker whose replicas follow the load: one at rest, up to three while renderings wait.

`mesh run examples.apps.autoscaled:app`, then open http://localhost:8000/?ms=500 in many windows.
"""

from __future__ import annotations

import os
import time

from starlette.requests import Request

import mesh


class Renderer:
    def render(self, ms: int) -> int:
        """The process that did it."""
        time.sleep(ms / 1000)
        return os.getpid()


class Studio:
    def __init__(self, renderer: mesh.DeploymentHandle) -> None:
        self.renderer = renderer

    async def __call__(self, request: Request) -> dict[str, int]:
        return {"rendered_by": await self.renderer.render.remote(int(request.query_params.get("ms", 200)))}


renderer = mesh.deployment(
    Renderer,
    max_ongoing_requests=2,
    autoscaling_config={
        "min_replicas": 1,
        "max_replicas": 3,
        "target_ongoing_requests": 1,
        "upscale_delay_s": 0.2,
        "downscale_delay_s": 1,
        "metrics_interval_s": 0.1,
        "look_back_period_s": 0.5,
    },
    ray_actor_options={"num_cpus": 0.5},
)
studio = mesh.deployment(Studio, max_ongoing_requests=100)
app = studio.bind(renderer.bind())
