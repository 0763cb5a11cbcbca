"""mesh.phases.waiting: a wait ends when its condition is true, and not before."""

import asyncio

import pytest

from mesh.phases.waiting import Waiters

DEADLINE_S = 30.0


def test_a_condition_that_is_true_needs_no_wake() -> None:
    async def scenario() -> None:
        waiters = Waiters()
        await asyncio.wait_for(waiters.until(lambda: True), DEADLINE_S)
        assert not waiters._futures

    asyncio.run(scenario())


def test_a_wake_ends_only_the_waits_whose_condition_has_become_true() -> None:
    async def scenario() -> None:
        waiters, level = Waiters(), 0
        waits = [asyncio.create_task(waiters.until(lambda needed=needed: level >= needed)) for needed in (1, 1, 2)]
        for level, ended in ((0, 0), (1, 2), (2, 3)):  # noqa: B007 - the conditions read it
            waiters.wake()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert sum(wait.done() for wait in waits) == ended

    asyncio.run(scenario())


def test_a_cancelled_wait_does_not_disturb_the_others() -> None:
    async def scenario() -> None:
        waiters = Waiters()
        is_open = False
        first, second = (asyncio.create_task(waiters.until(lambda: is_open)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        is_open = True
        waiters.wake()
        async with asyncio.timeout(DEADLINE_S):
            await second
        assert (first.cancelled(), second.cancelled()) == (True, False)

    asyncio.run(scenario())


def test_cancelled_waits_leave_nothing_behind() -> None:
    async def scenario() -> None:
        waiters = Waiters()
        waits = [asyncio.create_task(waiters.until(lambda: False)) for _ in range(100)]
        await asyncio.sleep(0)
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
        assert not waiters._futures

    asyncio.run(scenario())


def test_a_wait_raises_what_its_condition_raises() -> None:
    async def scenario() -> None:
        with pytest.raises(ZeroDivisionError):
            await Waiters().until(lambda: 1 / 0)

    asyncio.run(scenario())
