"""Owns the calls that any actor gets, whatever it is: watched, checked, drained, killed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from mesh.controller.actors.cluster_runtime import ActorCallError, ActorDiedError, ActorUnreachableError, Runtime

logger = logging.getLogger("mesh")

_EXIT_POLL_S = 0.05
_OUT_OF_REACH_POLL_S = 1.0
_KILL_TIMEOUT_S = 60.0
_RELEASE_ATTEMPTS_MAX = 30
_RELEASE_PAUSE_S = 1.0


class ActorCalls:
    def __init__(self, runtime: Runtime, before_drain: Callable[[], Awaitable[None]]) -> None:
        """`before_drain` returns when callers have been told to leave."""
        self._runtime = runtime
        self._before_drain = before_drain
        self._being_killed: set[str] = set()

    async def death_reason(self, name: str, address: Callable[[], str] = lambda: "") -> ActorDiedError:
        """Waits until the actor's process has ended and returns why.

        `address` tells where it should be listening: Ray takes long to notice that a node has died, its ports do not.
        """
        while True:
            try:
                await self._runtime.call(name, "wait_closed")
                pause_s = _EXIT_POLL_S  # it has drained: its process ends any moment
            except ActorDiedError as error:
                return error
            except ActorUnreachableError:
                # While its node lives, Ray hears of an actor's death before it says that the actor is out of reach.
                if await self._runtime.refuses(address()):
                    return ActorDiedError("its process is gone, and probably its node", is_node_lost=True)
                pause_s = _OUT_OF_REACH_POLL_S
            except ActorCallError:
                pause_s = _OUT_OF_REACH_POLL_S  # out of reach is not dead: ask again until somebody knows
            await asyncio.sleep(pause_s)

    async def check(self, name: str, timeout_s: float) -> str | None:
        """What is wrong with the actor, None when it is healthy."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._runtime.call(name, "check_health")
        except TimeoutError:
            return f"no answer within {timeout_s:g} s"
        except ActorCallError as error:
            return str(error)
        return None

    async def drain(self, name: str) -> None:
        """Let it finish its calls and end. The planner sets the deadline: an actor that outlasts it is killed."""
        await self._before_drain()
        try:
            await self._runtime.call(name, "drain")
        except ActorDiedError:
            return
        except ActorUnreachableError:
            pass  # so Ray calls an actor that has finished and is about to exit
        except ActorCallError as error:
            logger.warning("%s did not drain properly: %s", name, error)
        # Ray lets an actor exit only when its last method has returned. One that hangs must not keep it.
        await self.kill(name)

    async def kill(self, name: str) -> None:
        """Should it fail, the planner finds the actor overdue and says it again.

        It does so at every turn, and Ray may take long: once at a time is enough.
        """
        if name in self._being_killed:
            return
        self._being_killed.add(name)
        try:
            async with asyncio.timeout(_KILL_TIMEOUT_S):
                await self._runtime.kill(name)
        except (ActorCallError, TimeoutError) as error:
            reason = str(error) or f"no answer within {_KILL_TIMEOUT_S:g} s"
            logger.warning("%s could not be killed, trying again: %s", name, reason)
        finally:
            self._being_killed.discard(name)

    async def release(self, name: str) -> None:
        """Give back what the cluster holds for an actor that has ended. A name without such a thing is no error."""
        for attempt in range(1, _RELEASE_ATTEMPTS_MAX + 1):
            try:
                await self._runtime.release(name)
                return
            except ActorCallError as error:
                logger.warning("the placement group of %s could not be removed (attempt %d): %s", name, attempt, error)
            await asyncio.sleep(_RELEASE_PAUSE_S)
