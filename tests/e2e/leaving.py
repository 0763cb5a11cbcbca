"""A web client that leaves in the middle of its request, when that has come as far as a test wants."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx

from tests.e2e.waiting import until


def leave_when(is_there: Callable[[], object], method: str, url: str, **options: Any) -> None:
    """Send a request, wait until `is_there()`, and close its connection. `options` are those of httpx."""

    async def leave() -> None:
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            request = asyncio.create_task(client.request(method, url, **options))
            await asyncio.to_thread(until, is_there)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)

    asyncio.run(leave())
