"""The user's object: construction, health, reconfiguration and deletion. On the user loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from mesh.exceptions import MeshException
from mesh.multiplex.multiplex_decorator import model_registry
from mesh.usercode.finalizer import finalize
from mesh.usercode.user_code import UserCode


class UserObject:
    """The instance of a deployment's class, or its function. Every coroutine runs on the user loop."""

    def __init__(self, code: UserCode) -> None:
        self._code = code
        self.target: Any = None
        self._recording: asyncio.Future[object] | None = None
        """The call of a sync `record_autoscaling_stats` that was made last."""

    async def construct(self) -> None:
        """Run the constructor, sync or async. Raises what it raises."""
        if not inspect.isclass(self._code.callable):
            self.target = self._code.callable
            return
        cls, args, kwargs = self._code.callable, self._code.init_args, self._code.init_kwargs
        # Kept before it is complete: `__del__` runs even where the constructor has not returned.
        self.target = instance = cls.__new__(cls, *args, **kwargs)
        await _settled(type(instance).__init__, instance, *args, **kwargs)

    async def reconfigure(self, user_config: Any) -> None:
        """Raises MeshException when the class has no `reconfigure`, else what that raises."""
        if not inspect.isclass(self._code.callable):
            raise ValueError("user_config is for classes: a function deployment has no `reconfigure` to take it.")
        method = getattr(self.target, "reconfigure", None)
        if method is None:
            name = self._code.callable.__name__
            raise MeshException(f"user_config was given, but {name} has no method `reconfigure(self, config)`.")
        await _settled(method, user_config)

    async def check_health(self) -> None:
        """Raises what the user's `check_health` raises. A sync one runs in a thread: it may block."""
        method = getattr(self.target, "check_health", None)
        if method is None:
            return
        if inspect.iscoroutinefunction(method):
            await method()
        else:
            await asyncio.to_thread(method)

    @property
    def has_autoscaling_stats(self) -> bool:
        return inspect.isclass(self._code.callable) and hasattr(self._code.callable, "record_autoscaling_stats")

    async def autoscaling_stats(self) -> object:
        """What the user's `record_autoscaling_stats` returns. A sync one runs in a thread: it may block."""
        method = self.target.record_autoscaling_stats
        if inspect.iscoroutinefunction(method):
            return await method()
        # One that hangs keeps its thread. Asked again it gets no other, or `check_health` would soon find none.
        if self._recording is None or self._recording.done():
            self._recording = asyncio.ensure_future(asyncio.to_thread(method))
        return await asyncio.shield(self._recording)

    async def delete(self) -> None:
        """Unload models and run `__del__`, sync or async, once; Python does not run it again. Raises what it raises."""
        await model_registry.unload_all()
        target, self.target = self.target, None
        if target is not None and inspect.isclass(self._code.callable):
            await finalize(target, in_thread=False)


async def _settled(function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    result = function(*args, **kwargs)
    if inspect.isawaitable(result):
        await result
