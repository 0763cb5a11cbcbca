"""Threads for work that blocks, so that no event loop waits. Work that is stuck delays only work of its own kind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from functools import cache, partial
from typing import Any, TypeVar

from mesh.settings import settings

T = TypeVar("T")

_THREADS_MAX = 4


class Work(Enum):
    """The kinds, each with a pool of its own."""

    FETCH = "fetch"
    """Large payloads from the object store, whose owner or node may be gone."""
    ENCODE = "encode"
    """Arguments that were waited for: pickling runs code of users, and storing waits for room in the object store."""
    TRANSLATE = "translate"
    """Large messages from and to JSON."""
    TRANSLATE_HUGE = "translate-huge"
    """Those that take up to seconds and hundreds of megabytes each: one at a time, as they hold Python's lock."""
    LOOK_UP = "look-up"
    """What the cluster's key-value store holds: addresses, the token, the code of a replica."""
    STORE = "store"
    """The desired state, as the controller writes it: not behind starts of actors that Ray does not answer."""
    START = "start"
    """Actors and their placement groups: a mass deploy asks for thousands."""
    END = "end"
    """Actors that are killed, and placement groups that are removed."""
    FIND = "find"
    """Actors by name, and the nodes of placement groups: a restarted controller asks for all of them."""
    OBSERVE = "observe"
    """What the cluster has: nodes, names of actors, deaths. The controller decides nothing without."""
    EXPORT = "export"
    """Spans, to a collector that may be gone."""
    FILES = "files"
    """Certificates and keys, on whatever file system they are."""


async def run_blocking(work: Work, function: Callable[..., T], *args: Any) -> T:
    """Run a blocking function in a thread. A cancel ends the wait at once; the thread finishes alone.

    What has not begun then is dropped with all that it refers to: behind other work it may wait for long.
    """
    waiting = [partial(function, *args)]
    try:
        return await asyncio.get_running_loop().run_in_executor(_pool(work), lambda: waiting.pop()())
    finally:
        waiting.clear()


@cache
def _pool(work: Work) -> ThreadPoolExecutor:
    threads_max = {Work.FETCH: settings().payload.object_fetch_threads, Work.TRANSLATE_HUGE: 1}
    return ThreadPoolExecutor(threads_max.get(work, _THREADS_MAX), thread_name_prefix=f"mesh-{work.value}")
