"""Thousands of calls of every kind, most of them given up at random moments: nothing is left of them anywhere."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from mesh.exceptions import RequestCancelledError
from tests.unit.fakes.small_mesh import mesh_of

DEADLINE_S = 30.0
CALLS = 2000
pytestmark = pytest.mark.timeout(60)


class Work:
    def __init__(self) -> None:
        self.running = 0

    async def __call__(self, steps: int, data: bytes = b"") -> int:
        self.running += 1
        try:
            for _ in range(steps):
                await asyncio.sleep(0)
            return len(data)
        finally:
            self.running -= 1

    def in_a_thread(self, steps: int, data: bytes = b"") -> int:
        return len(data)

    async def stream(self, steps: int, data: bytes = b"") -> AsyncIterator[bytes]:
        self.running += 1
        try:
            for _ in range(steps * 10):
                yield data
        finally:
            self.running -= 1

    def thread_stream(self, steps: int, data: bytes = b"") -> Iterator[bytes]:
        for _ in range(steps * 10):
            yield data


METHODS = (("__call__", False), ("in_a_thread", False), ("stream", True), ("thread_stream", True))


async def _one(handle: Any, streams: bool, dice: random.Random) -> str:
    data = b"x" * dice.choice([0, 100, 100, 100, 700_000 if dice.random() < 0.05 else 0])
    response = handle.remote(dice.randrange(20), data)
    reading = asyncio.create_task(_read(response, streams))
    if dice.random() < 0.1:  # on a busy machine hardly any of the others ends in time
        await reading
        return "done"
    patience = dice.choice([0, 0, 1, 5, 30, 1000])
    for _ in range(patience):
        if reading.done():
            break
        await asyncio.sleep(0)
    if dice.random() < 0.5:
        response.cancel()
    else:
        reading.cancel()
    try:
        await reading
    except (RequestCancelledError, asyncio.CancelledError):
        return "cancelled"
    return "done"


async def _read(response: Any, streams: bool) -> None:
    if streams:
        async for _ in response:
            pass
    else:
        await response


def test_random_cancels_leave_nothing_behind() -> None:
    works = Work(), Work()
    ends: list[str] = []
    with mesh_of(*works, limit=8) as mesh:

        async def from_one_loop(seed: int) -> None:
            dice = random.Random(seed)
            handles = [(mesh.handle(method, stream=streams), streams) for method, streams in METHODS]
            async with asyncio.timeout(DEADLINE_S):
                for _ in range(CALLS // 200):
                    calls = (_one(*dice.choice(handles), dice) for _ in range(100))
                    ends.extend(await asyncio.gather(*calls))

        threads = [threading.Thread(target=asyncio.run, args=(from_one_loop(seed),)) for seed in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        assert len(ends) == CALLS
        assert set(ends) == {"cancelled", "done"}
        mesh.assert_idle()
        assert [work.running for work in works] == [0, 0]
        for replica in mesh.replicas:
            assert (replica.admission.links_waiting, replica.admission.taken) == (0, 0)
            for link in replica.servicer.links:
                assert link.unfinished == 0
        for endpoint in mesh.endpoints.values():
            assert endpoint.link is not None
            assert endpoint.link.unfinished == 0
            assert endpoint.link.others_ongoing == 0
        assert mesh.handle().remote(1, b"123").result(timeout_s=DEADLINE_S) == 3
