"""The models of one multiplexed loader: the least recently used is evicted first, one load per model at a time.

Loads and unloads go one after the other under one lock, so the loader never has more than its limit in memory: the old
model is gone before the new one begins to load. A load is a task of the cache, not of the caller who asked first:
callers wait for it behind a shield, and one that leaves takes nothing from the others.
"""

from __future__ import annotations

import asyncio
import functools
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any

from mesh.multiplex.model_stats import ModelStats
from mesh.usercode.finalizer import finalize
from mesh.usercode.shared_work import shared_context


class ModelCache:
    """Models of one (object, loader) pair. Belongs to one event loop."""

    def __init__(
        self,
        load: Callable[[str], Awaitable[Any]],
        limit: int | None,
        stats: ModelStats,
        on_change: Callable[[], None],
    ) -> None:
        self._load = load
        self._limit = limit
        self._stats = stats
        self._on_change = on_change
        self._resident: OrderedDict[str, Any] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Any]] = {}
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<ModelCache resident={list(self._resident)} loading={list(self._loading)} limit={self._limit}>"

    @property
    def resident_ids(self) -> list[str]:
        """Least recently used first."""
        return list(self._resident)

    @property
    def model_ids(self) -> list[str]:
        """Loaded, then loading."""
        return list(dict.fromkeys([*self._resident, *self._loading]))

    async def get(self, model_id: str) -> Any:
        """The model, loaded if it is not there. Raises what the loader, or the unloading of another model, raised."""
        self._stats.gets += 1
        if model_id in self._resident:
            self._resident.move_to_end(model_id)
            return self._resident[model_id]
        loading = self._loading.get(model_id) or self._begin_load(model_id)
        return await asyncio.shield(loading)

    async def unload_all(self) -> list[Exception]:
        """Stop the loads, unload every model, and return what went wrong with any of them."""
        loads = list(self._loading.values())
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        errors: list[Exception] = []
        async with self._lock:
            while self._resident:
                try:
                    await self._evict()
                except Exception as error:
                    errors.append(error)
        return errors

    def _begin_load(self, model_id: str) -> asyncio.Task[Any]:
        load = asyncio.get_running_loop().create_task(
            self._make_room_and_load(model_id), name=f"load {model_id}", context=shared_context(copy_context())
        )
        self._loading[model_id] = load
        load.add_done_callback(functools.partial(self._on_load_done, model_id))
        self._on_change()
        return load

    async def _make_room_and_load(self, model_id: str) -> Any:
        async with self._lock:
            while self._limit is not None and len(self._resident) >= self._limit:
                await self._evict()
            with self._stats.timed_load():
                model = await self._load(model_id)
            self._resident[model_id] = model
            return model

    async def _evict(self) -> None:
        _, model = self._resident.popitem(last=False)
        self._on_change()
        with self._stats.timed_unload():
            await finalize(model)

    def _on_load_done(self, model_id: str, load: asyncio.Task[Any]) -> None:
        # A callback and not the task's own `finally`: that of a task cancelled before its first step never runs.
        del self._loading[model_id]
        self._on_change()
        if not load.cancelled():
            # A failure is counted and has reached every waiting call; retrieving it keeps asyncio from logging it
            # when none waited.
            load.exception()
