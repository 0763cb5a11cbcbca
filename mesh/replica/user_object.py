"""The user's object: construction, health, reconfiguration and deletion. On the user loop."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

from mesh.exceptions import MeshException
from mesh.multiplex.multiplex_decorator import current_registry
from mesh.replica.user_loop import UserLoop
from mesh.replica.user_methods import Kind, MethodTable
from mesh.usercode.finalizer import finalize
from mesh.usercode.thread_call import thread_call
from mesh.usercode.user_code import UserCode
from mesh.web.asgi_service import AsgiService
from mesh.web.asgi_types import WebService
from mesh.web.ingress import ingress_app_of
from mesh.web.plain_service import PlainService

logger = logging.getLogger("mesh")


class UserObject:
    """The instance of a deployment's class, or its function. Every coroutine runs on the user loop."""

    def __init__(self, code: UserCode) -> None:
        self._code = code
        self.target: Any = None
        self._asked: dict[str, asyncio.Future[object]] = {}
        """The call of each hook that was made last."""
        self._warned_of: set[str] = set()
        """Checks that have returned False."""
        self._deleting = asyncio.Lock()
        """A restarted controller drains a replica again: it must not end before the first `delete` has."""
        self.not_ready = ""
        """Why its `check_ready` says that it takes no calls, when it was asked last."""
        self.web: WebService | None = None
        """What answers its web calls, once that has started; `delete` stops it."""

    async def construct(self) -> None:
        """Run the constructor, sync or async. Raises what it raises."""
        if not inspect.isclass(self._code.callable):
            self.target = self._code.callable
            return
        cls, args, kwargs = self._code.callable, self._code.init_args, self._code.init_kwargs
        # Kept before it is complete: `__del__` runs even where the constructor has not returned.
        self.target = instance = cls.__new__(cls, *args, **kwargs)
        if isinstance(instance, cls):  # as Python has it: `__new__` may return something else, which is complete
            await _settled(type(instance).__init__, instance, *args, **kwargs)

    async def start_web(self, user_loop: UserLoop) -> None:
        """Make what answers web calls: the ASGI application, after its startup, or the object itself.

        Raises what user code raises, MeshException for a failed startup.
        """
        ingress = ingress_app_of(self._code.callable)
        if ingress is not None:
            self.web = await AsgiService.start(ingress, self.target, user_loop.threads_max)
        else:
            method = MethodTable(self.target, {}).find("__call__")
            is_async = method.kind is Kind.ASYNC
            self.web = PlainService(method.function, lambda: user_loop.threads, is_async=is_async)

    def set_threads_max(self, threads_max: int) -> None:
        """Let the ASGI application, if there is one, run as many `def` endpoints at a time."""
        if isinstance(self.web, AsgiService):
            self.web.set_threads_max(threads_max)

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
        """Raises what the user's `check_health` raises."""
        if hasattr(self.target, "check_health"):
            self._look_at(await self._ask("check_health"), "check_health")

    @property
    def checks_ready(self) -> bool:
        return self.has_hook("check_ready")

    async def check_ready(self) -> None:
        """Raises what the user's `check_ready` raises."""
        if self.checks_ready:
            self._look_at(await self._ask("check_ready"), "check_ready")

    def has_hook(self, name: str) -> bool:
        """Whether the class has this method, which the mesh calls by itself."""
        return inspect.isclass(self._code.callable) and hasattr(self._code.callable, name)

    async def record(self, hook: str) -> object:
        """What a hook like `record_autoscaling_stats` returns."""
        return await self._ask(hook)

    async def delete(self) -> None:
        """Stop what answers web calls, unload models and run `__del__`, sync or async, once.

        A step that raises does not stop the others; then this raises it. Python does not run `__del__` again.
        """
        async with self._deleting:
            web, self.web = self.web, None
            target, self.target = self.target, None
            try:
                if web is not None:
                    await web.stop()
            finally:
                await current_registry().unload_all()
                if target is not None and inspect.isclass(self._code.callable):
                    await finalize(target, in_thread=False)

    async def _ask(self, hook: str) -> object:
        """What a hook returns now. A sync one runs in a thread: it may block.

        One that hangs keeps its thread: asked again it gets no other, or user code would soon find none. An async one
        whose caller has given up is cancelled.
        """
        method = getattr(self.target, hook)
        before = self._asked.get(hook)
        if not inspect.iscoroutinefunction(method):
            if before is None or before.done():
                before = self._asked[hook] = asyncio.ensure_future(_answer_in_thread(method))
            return await asyncio.shield(before)
        if before is not None:
            before.cancel()
        task = asyncio.current_task()
        assert task is not None
        self._asked[hook] = task
        try:
            answer: object = await method()
        finally:
            if self._asked.get(hook) is task:
                del self._asked[hook]
        return answer

    def _look_at(self, answer: object, hook: str) -> None:
        """Warn once of a check that says no in a way that counts as yes."""
        if answer is False and hook not in self._warned_of:
            self._warned_of.add(hook)
            logger.warning(
                "%s.%s returned False, which counts as success like any other result: raise an error to let it fail.",
                type(self.target).__name__,
                hook,
            )


async def _answer_in_thread(method: Callable[[], Any]) -> Any:
    """What it returns may have to be awaited, as with a wrapper around an `async def`."""
    answer = await asyncio.to_thread(thread_call, method)
    return await answer if inspect.isawaitable(answer) else answer


async def _settled(function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    result = function(*args, **kwargs)
    if inspect.isawaitable(result):
        await result
