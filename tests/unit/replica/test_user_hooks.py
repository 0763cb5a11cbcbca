"""The hooks that the mesh calls by itself, sync and async and what lies between them (items 150, 155)."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from mesh.replica.recorded_stats import numbers
from mesh.replica.user_object import UserObject
from mesh.usercode.user_code import UserCode

DEADLINE_S = 30.0


def logged(function: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
    """A wrapper that is itself no `async def`, as many decorators make it."""

    @functools.wraps(function)
    def call(*args: Any) -> Awaitable[object]:
        return function(*args)

    return call


class Wrapped:
    failure: Exception | None = None
    loops: set[asyncio.AbstractEventLoop] = set()  # noqa: RUF012

    async def _answer(self) -> dict[str, int]:
        self.loops.add(asyncio.get_running_loop())
        if self.failure is not None:
            raise self.failure
        return {"depth": 1}

    @logged
    async def check_health(self) -> object:
        return await self._answer()

    @logged
    async def check_ready(self) -> object:
        return await self._answer()

    @logged
    async def record_autoscaling_stats(self) -> object:
        return await self._answer()


class Sync:
    def __init__(self) -> None:
        self.threads: list[str] = []

    def check_health(self) -> None:
        self.threads.append(threading.current_thread().name)
        raise LookupError("no index")


async def made(cls: type) -> UserObject:
    user_object = UserObject(UserCode(cls, ()))
    await user_object.construct()
    return user_object


def test_a_hook_that_a_wrapper_makes_awaitable_is_awaited() -> None:
    """On the user's loop; what it raises there counts (items 150, 155)."""

    async def main() -> None:
        user_object = await made(Wrapped)
        await user_object.check_health()
        await user_object.check_ready()
        assert await user_object.record("record_autoscaling_stats") == {"depth": 1}
        assert Wrapped.loops == {asyncio.get_running_loop()}
        user_object.target.failure = LookupError("no index")
        hooks = (user_object.check_health(), user_object.check_ready(), user_object.record("record_autoscaling_stats"))
        for asked in hooks:
            with pytest.raises(LookupError, match="no index"):
                await asked

    asyncio.run(main())


def test_a_sync_health_check_runs_in_a_thread_and_what_it_raises_counts() -> None:
    """It may block (item 150)."""

    async def main() -> None:
        user_object = await made(Sync)
        with pytest.raises(LookupError, match="no index"):
            await user_object.check_health()
        assert user_object.target.threads != [threading.current_thread().name]

    asyncio.run(main())


class Emptied:
    def check_health(self) -> None:
        next(iter(()))


def test_a_sync_check_that_asks_an_empty_iterator_fails() -> None:
    """Its StopIteration is an error like others, and the next check asks again (item 150)."""

    async def main() -> None:
        user_object = await made(Emptied)
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"check_health raised StopIteration"):
                await asyncio.wait_for(user_object.check_health(), DEADLINE_S)

    asyncio.run(main())


class Hanging:
    """Its checks hang until the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.threads: list[str] = []
        self.cancelled = 0
        self.is_stuck = True

    def check_health(self) -> None:
        self.threads.append(threading.current_thread().name)
        assert self.gate.wait(DEADLINE_S)

    async def check_ready(self) -> None:
        try:
            await (asyncio.Event().wait() if self.is_stuck else asyncio.sleep(0))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def test_a_sync_check_that_hangs_takes_one_thread_however_often_it_is_asked() -> None:
    """A replica may have to serve on while its checks fail; its code needs the other threads (item 150)."""

    async def main() -> None:
        user_object = await made(Hanging)
        asked = [asyncio.ensure_future(user_object.check_health()) for _ in range(50)]
        await asyncio.sleep(0)
        assert await asyncio.to_thread(lambda: "a thread is free") == "a thread is free"
        user_object.target.gate.set()
        await asyncio.gather(*asked)
        assert len(user_object.target.threads) == 1
        await user_object.check_health()
        assert len(user_object.target.threads) == 2

    asyncio.run(main())


def test_an_async_check_that_hangs_is_cancelled_when_it_is_asked_again() -> None:
    """The new one can succeed (item 150)."""

    async def main() -> None:
        user_object = await made(Hanging)
        stuck = asyncio.ensure_future(user_object.check_ready())
        await asyncio.sleep(0)
        user_object.target.is_stuck = False
        await user_object.check_ready()
        with pytest.raises(asyncio.CancelledError):
            await stuck
        assert user_object.target.cancelled == 1
        await user_object.check_ready()
        assert user_object.target.cancelled == 1

    asyncio.run(main())


@pytest.mark.parametrize("number", [3, 2.5, np.int64(3), np.float32(2.5), np.uint8(3)])
def test_numbers_of_numpy_are_numbers(number: Any) -> None:
    """Stats often come from arrays (item 155)."""
    assert numbers({"depth": number}) == {"depth": float(number)}


@pytest.mark.parametrize("wrong", [np.bool_(True), np.array([1.0, 2.0]), "3", 1j])
def test_what_is_no_number_is_refused(wrong: Any) -> None:
    """It names the key (item 155)."""
    with pytest.raises(TypeError, match="dict of numbers by name, it returned 'depth'"):
        numbers({"depth": wrong})
