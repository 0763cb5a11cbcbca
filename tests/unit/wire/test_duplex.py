"""mesh.wire.duplex: the two directions of a stream end together, and a defect in one is seen."""

import asyncio

import grpc.aio
import pytest

from mesh.wire.duplex import converse


async def never_ending() -> None:
    await asyncio.Event().wait()


async def failing(error: BaseException) -> None:
    raise error


def test_what_the_reading_one_returns_ends_both() -> None:
    is_writer_gone = False

    async def reading() -> str:
        await asyncio.sleep(0)
        return "the end"

    async def writing() -> None:
        nonlocal is_writer_gone
        try:
            await never_ending()
        finally:
            is_writer_gone = True

    assert asyncio.run(converse(reading(), writing())) == "the end"
    assert is_writer_gone


def test_what_the_reading_one_raises_is_raised() -> None:
    with pytest.raises(ValueError, match="no frame"):
        asyncio.run(converse(failing(ValueError("no frame")), never_ending()))


@pytest.mark.parametrize("error", [grpc.aio.UsageError("RPC already finished."), asyncio.InvalidStateError()])
def test_a_break_that_the_writing_one_meets_is_left_to_the_reading_one(error: Exception) -> None:
    async def reading() -> str:
        for _ in range(5):
            await asyncio.sleep(0)
        return "the server stops"

    assert asyncio.run(converse(reading(), failing(error))) == "the server stops"


def test_a_defect_of_the_writing_one_ends_the_reading_one() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(converse(never_ending(), failing(ZeroDivisionError())))


def test_who_is_cancelled_ends_both() -> None:
    ended: list[str] = []

    async def direction(name: str) -> None:
        try:
            await never_ending()
        finally:
            ended.append(name)

    async def scenario() -> None:
        task = asyncio.create_task(converse(direction("reading"), direction("writing")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel("the node is gone")
        with pytest.raises(asyncio.CancelledError, match="the node is gone"):
            await task

    asyncio.run(scenario())
    assert sorted(ended) == ["reading", "writing"]
