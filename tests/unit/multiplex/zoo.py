"""A class whose models say when they are loaded and unloaded, and whose loader a test holds back or breaks."""

from __future__ import annotations

import asyncio

from mesh.multiplex.multiplex_decorator import multiplexed


class Model:
    """Says what happens to it."""

    def __init__(self, model_id: str, log: list[str]) -> None:
        self.model_id = model_id
        self.log = log
        log.append(f"load {model_id}")

    def __del__(self) -> None:
        self.log.append(f"unload {self.model_id}")


class Zoo:
    """A user's class with a loader that its test holds back or breaks."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.broken: set[str] = set()

    @multiplexed(max_num_models_per_replica=2)
    async def load(self, model_id: str) -> Model:
        await self.gate.wait()
        if model_id in self.broken:
            raise ZeroDivisionError(model_id)
        return Model(model_id, self.log)
