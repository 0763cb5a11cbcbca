"""The few threads that fetch large payloads from the object store, so that no loop waits for a transfer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

from mesh.settings import settings

T = TypeVar("T")


async def run_bulk(function: Callable[..., T], *args: Any) -> T:
    """Run a blocking function on a bulk thread."""
    return await asyncio.get_running_loop().run_in_executor(_pool(), function, *args)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(settings().payload.object_fetch_threads, thread_name_prefix="mesh-bulk")
