"""Jobs that take longer than a request: start one, ask how it stands, cancel it.

`mesh run examples.apps.jobs:app`, then `curl -X POST 'http://localhost:8000/jobs?rounds=1000000'`.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass

from fastapi import FastAPI, HTTPException

import mesh
from mesh.context import outlive_request

web = FastAPI()
RUNNING_MAX = 10
"""Jobs at a time. The others wait in the trainer, which has room for them and for those who ask how they stand."""


@dataclass
class Job:
    rounds: int = 0
    state: str = "waiting"


class Trainer:
    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.places = asyncio.Semaphore(RUNNING_MAX)

    async def train(self, name: str, rounds: int) -> float:
        job = self.jobs[name] = Job()
        try:
            async with self.places:
                job.state = "running"
                while job.rounds < rounds:
                    await asyncio.sleep(0.001)  # stands for one round
                    job.rounds += 1
        except asyncio.CancelledError:
            job.state = "cancelled"
            raise
        job.state = "done"
        return 1 / (1 + rounds)

    async def job(self, name: str) -> Job:
        return self.jobs.get(name, Job())


@mesh.ingress(web)
class Jobs:
    def __init__(self, trainer: mesh.DeploymentHandle) -> None:
        self.trainer = trainer
        self.losses: dict[str, mesh.DeploymentResponse[float]] = {}

    @web.post("/jobs", status_code=202)
    async def start(self, rounds: int) -> str:
        outlive_request()  # the deadline of the request that starts a job is not the job's
        name = uuid.uuid4().hex
        self.losses[name] = self.trainer.train.remote(name, rounds)
        return name

    @web.get("/jobs/{name}")
    async def show(self, name: str) -> dict[str, object]:
        loss = self.loss_of(name)
        job: Job = await self.trainer.job.remote(name)
        shown: dict[str, object] = {"state": job.state, "rounds": job.rounds}
        return {**shown, "loss": await loss} if job.state == "done" else shown

    @web.delete("/jobs/{name}", status_code=204, response_model=None)
    async def cancel(self, name: str) -> None:
        self.loss_of(name).cancel()

    def loss_of(self, name: str) -> mesh.DeploymentResponse[float]:
        if name not in self.losses:
            raise HTTPException(404, f"There is no job {name}.")
        return self.losses[name]


trainer = mesh.deployment(Trainer, max_ongoing_requests=1000)
jobs = mesh.deployment(Jobs)
app = jobs.bind(trainer.bind())
