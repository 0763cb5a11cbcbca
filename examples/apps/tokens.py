"""Tokens of a language model, through two hops: model, filter, and an ingress that sends server-sent events.

`mesh run examples.apps.tokens:app`, then `curl -N 'http://localhost:8000/generate?prompt=tell+me'`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

import mesh

web = FastAPI()


class Model:
    """Stands for a language model: it repeats the prompt, token by token."""

    def __init__(self) -> None:
        self.running = 0

    async def generate(self, prompt: str, tokens_max: int) -> AsyncIterator[str]:
        words = prompt.split() or ["..."]
        self.running += 1
        try:
            for number in range(tokens_max):
                yield words[number % len(words)]
                await asyncio.sleep(0.001)
        finally:
            self.running -= 1

    def how_many_run(self) -> int:
        return self.running


class Filter:
    """Leaves words out, and ends the answer at the word "stop"."""

    def __init__(self, model: mesh.DeploymentHandle, unwanted: set[str]) -> None:
        self.model = model.options(stream=True)
        self.unwanted = unwanted

    async def generate(self, prompt: str, tokens_max: int) -> AsyncIterator[str]:
        tokens = self.model.generate.remote(prompt, tokens_max)
        async for token in tokens:
            if token == "stop":
                tokens.cancel()
                return
            if token not in self.unwanted:
                yield token


@mesh.ingress(web)
class Chat:
    def __init__(self, model: mesh.DeploymentHandle) -> None:
        self.model = model.options(stream=True)

    @web.get("/generate")
    async def generate(self, prompt: str, tokens_max: int = 8) -> StreamingResponse:
        tokens = self.model.generate.remote(prompt, tokens_max)
        return StreamingResponse(as_events(tokens), media_type="text/event-stream")


async def as_events(tokens: AsyncIterator[str]) -> AsyncIterator[str]:
    async for token in tokens:
        yield f"data: {json.dumps({'token': token})}\n\n"
    yield "data: [DONE]\n\n"


model = mesh.deployment(Model)
word_filter = mesh.deployment(Filter)
chat = mesh.deployment(Chat)
app = chat.bind(word_filter.bind(model.bind(), {"damn"}))
