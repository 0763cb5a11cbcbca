"""The calls that every actor of the mesh gets: watch, check, drain, kill, release."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mesh.controller.actors.cluster_runtime import ActorCallError, ActorDiedError, ActorUnreachableError, Runtime
from mesh.settings import settings

logger = logging.getLogger("mesh")

T = TypeVar("T")

_EXIT_POLL_S = 0.05
"""Pause between two looks at an actor that has drained: its process ends any moment."""
_RELEASE_PAUSE_S = 1.0
"""Pause between two attempts to remove a placement group."""


class ActorCalls:
    """Actor calls with the retries and limits that hold for replicas and gateways alike."""

    def __init__(self, runtime: Runtime, before_drain: Callable[[], Awaitable[None]]) -> None:
        """`before_drain` returns when callers have received the snapshots without the actor."""
        self._runtime = runtime
        self._before_drain = before_drain
        self._being_killed: set[str] = set()

    async def death_reason(self, name: str, address: Callable[[], str] = lambda: "") -> ActorDiedError:
        """Wait until the actor's process has ended; return why.

        `address` returns the "host:port" on which it listens. Ray takes long to notice that a node has died, but the
        ports of that node refuse connections immediately.
        """
        while True:
            try:
                await self._runtime.call(name, "wait_closed")
                pause_s = _EXIT_POLL_S  # it has drained: its process ends any moment
            except ActorDiedError as error:
                return error
            except ActorUnreachableError:
                # While its node lives, Ray learns of an actor's death before it calls the actor unreachable.
                if await self._runtime.refuses(address()):
                    return ActorDiedError("its process is gone, and probably its node", is_node_lost=True)
                pause_s = settings().controller.unreachable_interval_s
            except ActorCallError:  # a failed call does not mean that the actor is dead
                pause_s = settings().controller.unreachable_interval_s
            await asyncio.sleep(pause_s)

    async def answered(self, call: Callable[[], Awaitable[T]], is_needed: Callable[[], bool] = lambda: True) -> T:
        """The answer to a call that is repeated while messages get lost: that is not a failure of the actor.

        Raises ActorDiedError when the answer `is_needed` no more.
        """
        while True:
            try:
                return await call()
            except ActorUnreachableError as error:
                if not is_needed():
                    raise ActorDiedError("it has ended") from error
            await asyncio.sleep(settings().controller.unreachable_interval_s)

    async def check(self, name: str, timeout_s: float) -> str | None:
        """What is wrong with the actor; None when it is healthy."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._runtime.call(name, "check_health")
        except TimeoutError:
            return f"no answer within {timeout_s:g} s"
        except ActorCallError as error:
            return str(error)
        return None

    async def not_ready(self, name: str, timeout_s: float) -> str | None:
        """Why a healthy replica takes no calls now; empty: it does. None: it has not said."""
        try:
            async with asyncio.timeout(timeout_s):
                return (await self._runtime.call(name, "check_ready") or b"").decode()
        except (ActorCallError, TimeoutError):
            return None

    async def drain(self, name: str, is_there: Callable[[], bool] = lambda: True) -> None:
        """Let the actor finish its calls and end. It has no deadline here: the planner kills an overdue actor.

        Another actor may have its name once it `is_there` no more: that one is left alone.
        """
        await self._before_drain()
        if not is_there():
            return
        try:
            await self._runtime.call(name, "drain")
        except ActorDiedError:
            return
        except ActorUnreachableError:
            pass  # Ray calls an actor unreachable that has finished and is about to exit
        except ActorCallError as error:
            logger.warning("%s did not drain properly: %s", name, error)
        # Ray lets an actor exit only when its last method has returned. One that hangs must not keep it.
        if is_there():
            await self.kill(name)

    async def abandon(self, name: str) -> None:
        """Kill an actor that still starts, after the `__del__` of the user's object, if that takes no long time."""
        with contextlib.suppress(ActorCallError, TimeoutError):
            async with asyncio.timeout(settings().controller.abandon_timeout_s):
                await self._runtime.call(name, "drain")
        await self.kill(name)

    async def kill(self, name: str) -> None:
        """Kill the actor, with one attempt at a time. After a failure the planner asks again in its next turn."""
        if name in self._being_killed:
            return
        self._being_killed.add(name)
        timeout_s = settings().controller.kill_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._runtime.kill(name)
        except (ActorCallError, TimeoutError) as error:
            reason = str(error) or f"no answer within {timeout_s:g} s"
            logger.warning("%s could not be killed, trying again: %s", name, reason)
        finally:
            self._being_killed.discard(name)

    async def release(self, name: str) -> None:
        """Remove the placement group of an actor that has ended. Does nothing if there is none."""
        for attempt in range(1, settings().controller.release_attempts_max + 1):
            try:
                await self._runtime.release(name)
                return
            except ActorCallError as error:
                logger.warning("the placement group of %s could not be removed (attempt %d): %s", name, attempt, error)
            await asyncio.sleep(_RELEASE_PAUSE_S)
