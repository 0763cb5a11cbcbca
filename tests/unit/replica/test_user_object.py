"""mesh.replica.user_object: how the user's object comes to be and how it goes."""

import asyncio
import gc
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from mesh.replica.user_object import UserObject
from mesh.usercode.user_code import UserCode


def constructed(cls: Callable[..., Any], *args: Any) -> UserObject:
    user_object = UserObject(UserCode(cls, args))
    asyncio.run(user_object.construct())
    return user_object


def test_arguments_reach_new_and_init() -> None:
    class Sized:
        def __new__(cls, size: int) -> "Sized":
            made = super().__new__(cls)
            made.size_at_birth = size
            return made

        def __init__(self, size: int) -> None:
            self.size = size

        size_at_birth: int

    target = constructed(Sized, 3).target
    assert (target.size_at_birth, target.size) == (3, 3)


def test_what_new_returns_of_another_class_is_not_constructed_again() -> None:
    """As Python has it."""

    class Connection:
        def __init__(self, host: str) -> None:
            self.hosts = [*getattr(self, "hosts", ()), host]

    class Pooled:
        def __new__(cls, host: str) -> Connection:  # type: ignore[misc]
            return Connection(host.upper())

    assert constructed(Pooled, "a").target.hosts == ["A"]


def test_a_second_delete_waits_for_the_first() -> None:
    """A controller that is restarted drains a replica again, and ends its process when that is done."""
    events: list[str] = []
    may_end = asyncio.Event()

    class Slow:
        async def __del__(self) -> None:
            await may_end.wait()
            events.append("finalised")

    async def delete_twice() -> None:
        user_object = UserObject(UserCode(Slow, ()))
        await user_object.construct()
        first, second = asyncio.create_task(user_object.delete()), asyncio.create_task(user_object.delete())
        second.add_done_callback(lambda task: events.append("drained again"))
        for _ in range(5):  # steps of the loop, more than a delete that does nothing takes
            await asyncio.sleep(0)
        may_end.set()
        await asyncio.gather(first, second)

    asyncio.run(delete_twice())
    assert events == ["finalised", "drained again"]


def test_wrong_arguments_are_a_type_error() -> None:
    with pytest.raises(TypeError):
        constructed(type("Plain", (), {}), 3)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_finaliser_runs_once_where_the_constructor_ran(is_async: bool) -> None:
    """`__del__` may be async and runs on the same loop as `__init__` (item 99)."""
    ended: list[int] = []

    class Sync:
        def __del__(self) -> None:
            ended.append(threading.get_ident())

    class Async:
        async def __del__(self) -> None:
            ended.append(threading.get_ident())

    user_object = constructed(Async if is_async else Sync)
    asyncio.run(user_object.delete())
    asyncio.run(user_object.delete())
    gc.collect()
    assert ended == [threading.get_ident()]


def test_other_objects_of_the_class_keep_their_finaliser() -> None:
    ended: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def __del__(self) -> None:
            ended.append(self.name)

    user_object = constructed(Named, "the replica's")
    other = Named("the user's own")
    asyncio.run(user_object.delete())
    del other
    gc.collect()
    assert ended == ["the replica's", "the user's own"]


def test_what_a_finaliser_raises_is_raised() -> None:
    class Bad:
        def __del__(self) -> None:
            raise ValueError("not in order")

    with pytest.raises(ValueError, match="not in order"):
        asyncio.run(constructed(Bad).delete())


def test_a_stats_hook_that_hangs_takes_one_thread_however_often_it_is_asked() -> None:
    entered: list[int] = []
    released = threading.Event()

    class Slow:
        def record_autoscaling_stats(self) -> dict[str, float]:
            entered.append(1)
            released.wait(timeout=10)
            return {"entered": len(entered)}

    user_object = constructed(Slow)

    async def ask_without_answer() -> None:
        asking = asyncio.ensure_future(user_object.record("record_autoscaling_stats"))
        while not entered:  # noqa: ASYNC110 - nothing tells when the thread has begun
            await asyncio.sleep(0.002)
        asking.cancel()
        await asyncio.wait([asking])

    async def scenario() -> list[object]:
        for _ in range(3):
            await ask_without_answer()
        released.set()
        return [await user_object.record("record_autoscaling_stats") for _ in range(2)]

    assert asyncio.run(scenario()) == [{"entered": 1}, {"entered": 2}]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_check_that_returns_false_gets_one_warning(is_async: bool, caplog: pytest.LogCaptureFixture) -> None:
    """It counts as success, as in Ray Serve (item 151)."""

    class Ill:
        if is_async:

            async def check_health(self) -> bool:
                return False

            async def check_ready(self) -> bool:
                return False

        else:

            def check_health(self) -> bool:  # type: ignore[misc]
                return False

            def check_ready(self) -> bool:  # type: ignore[misc]
                return False

    async def checked(user_object: UserObject) -> None:
        for _ in range(3):
            await user_object.check_health()
            await user_object.check_ready()

    with caplog.at_level(logging.WARNING, "mesh"):
        asyncio.run(checked(constructed(Ill)))
    assert [record.getMessage() for record in caplog.records] == [
        f"Ill.{hook} returned False, which counts as success like any other result: raise an error to let it fail."
        for hook in ("check_health", "check_ready")
    ]
