"""The models of one multiplexed loader: the least recently used is evicted first, one load per model at a time.

Loads and unloads go one after the other under one lock, so the loader never has more than its limits in memory: old
models are gone before the new one begins to load. A load is a task of the cache, not of the caller who asked first;
mesh.multiplex.shared_load has what becomes of it when callers leave.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar, copy_context
from typing import Any

from mesh.multiplex.model_limits import ModelLimits
from mesh.multiplex.model_stats import ModelStats
from mesh.multiplex.shared_load import SharedLoad
from mesh.settings import settings
from mesh.usercode.finalizer import finalize
from mesh.usercode.shared_work import shared_context

logger = logging.getLogger(__name__)

_WITHIN: ContextVar[frozenset[object]] = ContextVar("mesh_within_loads", default=frozenset())
"""The marks of the loads whose code runs here, be it in tasks or threads that this code has started."""


class ModelCache:
    """Models of one (object, loader) pair. Belongs to one event loop."""

    def __init__(
        self,
        load: Callable[[str], Awaitable[Any]],
        limits: ModelLimits,
        stats: ModelStats,
        on_change: Callable[[], None],
        *,
        size_of: Callable[[str], Awaitable[int]] | None = None,
        names: Callable[[Sequence[str]], Sequence[str]] = lambda model_ids: model_ids,
    ) -> None:
        """`on_change` is called when models come or go, and `names` gives all that they are announced under.

        `size_of` gives the bytes of a model that is to be loaded; None: models have no size.
        """
        self._load = load
        self._limits = limits
        self._stats = stats
        self._on_change = on_change
        self._size_of = size_of
        self._names = names
        self._resident: OrderedDict[str, Any] = OrderedDict()
        self._sizes: OrderedDict[str, int] = OrderedDict()
        """The bytes of the same models, in the same order."""
        self._loading: dict[str, SharedLoad] = {}
        self._lock = asyncio.Lock()
        self._current: object | None = None
        """The mark of the load that has the lock."""
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<ModelCache resident={list(self._resident)} loading={list(self._loading)} limits={self._limits}>"

    @property
    def resident_ids(self) -> list[str]:
        """Least recently used first."""
        return list(self._resident)

    @property
    def resident_bytes(self) -> int:
        return sum(self._sizes.values())

    @property
    def model_ids(self) -> list[str]:
        """Loaded, then loading."""
        return list(dict.fromkeys([*self._resident, *self._loading]))

    @property
    def announced(self) -> Sequence[str]:
        """What callers may ask for: `model_ids`, and their other names."""
        return self._names(self.model_ids)

    def renamed(self) -> None:
        """Models have other names than before. From any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_change)

    async def get(self, model_id: str) -> Any:
        """The model, loaded if it is not there. Raises what the loader, or the unloading of another model, raised."""
        self._stats.gets += 1
        if model_id in self._resident:
            self._resident.move_to_end(model_id)
            self._sizes.move_to_end(model_id)
            return self._resident[model_id]
        if self._current in _WITHIN.get():
            raise RuntimeError(
                f"While it loads a model, the loader asks itself for model {model_id!r}, and would never get it: loads "
                "come one after the other. Give that model a loader of its own, or ask for it when the load is over."
            )
        load = self._loading.get(model_id) or self._begin_load(model_id)
        return await load.result()

    async def unload_all(self) -> list[BaseException]:
        """Stop the loads, unload every model, and return what went wrong with any of them."""
        loads = [load.task for load in self._loading.values()]
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        errors: list[BaseException] = []
        async with self._lock:
            while self._resident:
                try:
                    await self._evict()
                except asyncio.CancelledError:
                    raise
                except BaseException as error:  # the others go nevertheless
                    errors.append(error)
        return errors

    def _begin_load(self, model_id: str) -> SharedLoad:
        task = asyncio.get_running_loop().create_task(
            self._load_in_turn(model_id), name=f"load {model_id}", context=shared_context(copy_context())
        )
        load = self._loading[model_id] = SharedLoad(task, functools.partial(self._abandon, model_id))
        task.add_done_callback(functools.partial(self._on_load_done, model_id, load))
        self._on_change()
        return load

    async def _load_in_turn(self, model_id: str) -> Any:
        async with self._lock:
            if model_id in self._resident:  # by a load that was cancelled and has finished nevertheless
                return self._resident[model_id]
            self._current = object()
            _WITHIN.set(_WITHIN.get() | {self._current})
            try:
                return await self._make_room_and_load(model_id)
            finally:
                self._current = None

    async def _make_room_and_load(self, model_id: str) -> Any:
        size = 0 if self._size_of is None else await self._size_of(model_id)
        refusal = self._limits.refusal(size)
        if refusal:
            raise RuntimeError(f"Model {model_id!r} cannot be loaded: {refusal}.")
        while self._limits.next_victim(self._sizes, size) is not None:
            await self._evict()
        with self._stats.timed_load():
            model = await self._load(model_id)
        self._resident[model_id], self._sizes[model_id] = model, size
        return model

    def _abandon(self, model_id: str, load: SharedLoad) -> None:
        """The load is about to be cancelled. The next call for the model begins another one."""
        logger.warning(
            "stopping the load of model %r: no call has waited for it for %g s, and other models cannot load meanwhile",
            model_id,
            settings().replica.abandoned_load_timeout_s,
        )
        self._forget(model_id, load)

    async def _evict(self) -> None:
        """Unload the least recently used model. Meanwhile others may be used and change the order, but none comes."""
        model_id, model = self._resident.popitem(last=False)
        del self._sizes[model_id]
        self._on_change()
        with self._stats.timed_unload():
            await finalize(model)

    def _on_load_done(self, model_id: str, load: SharedLoad, task: asyncio.Task[Any]) -> None:
        # A callback and not the task's own `finally`: that of a task cancelled before its first step never runs.
        self._forget(model_id, load)
        if not task.cancelled():
            # A failure is counted and has reached every waiting call; retrieving it keeps asyncio from logging it
            # when none waited.
            task.exception()

    def _forget(self, model_id: str, load: SharedLoad) -> None:
        if self._loading.get(model_id) is load:
            del self._loading[model_id]
        self._on_change()
