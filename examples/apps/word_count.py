"""Fan-out and fan-in: a text is counted in parts at the same time, and the parts are added up.

`mesh run examples.apps.word_count:app`, then POST a text to http://localhost:8000.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from starlette.requests import Request

import mesh


class Mapper:
    def count(self, lines: list[str]) -> Counter[str]:
        return Counter(word.lower() for line in lines for word in line.split())


class Reducer:
    def add(self, *counts: Counter[str]) -> Counter[str]:
        return sum(counts, Counter())


class WordCount:
    def __init__(self, mapper: mesh.DeploymentHandle, reducer: mesh.DeploymentHandle, lines_per_part: int = 2) -> None:
        self.mapper = mapper
        self.reducer = reducer
        self.lines_per_part = lines_per_part

    async def __call__(self, request: Request) -> dict[str, int]:
        return await self.top((await request.body()).decode(), int(request.query_params.get("top", 3)))

    async def top(self, text: str, number: int) -> dict[str, int]:
        lines = text.splitlines()
        parts = [lines[at : at + self.lines_per_part] for at in range(0, len(lines), self.lines_per_part)]
        counts = await self.reducer.add.remote(*[self.mapper.count.remote(part) for part in parts])
        return dict(counts.most_common(number))

    async def lengths(self, texts: list[str]) -> list[int]:
        """The same with `asyncio.gather`: the results are needed here, in their order."""
        counts = await asyncio.gather(*[self.mapper.count.remote([text]) for text in texts])
        return [sum(each.values()) for each in counts]


mapper = mesh.deployment(Mapper, num_replicas=2, max_ongoing_requests=10)
reducer = mesh.deployment(Reducer)
word_count = mesh.deployment(WordCount)
app = word_count.bind(mapper.bind(), reducer.bind())
