"""Credit and request streams: every wait ends, and no item is sent without credit."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Any

import grpc.aio
import pytest

from mesh.exceptions import CancelReason, MeshException, RequestCancelledError
from mesh.replica.flow_control import CreditWindow, RequestStream
from mesh.settings import settings
from mesh.wire.payload import Payload, raw
from tests.unit.fakes.small_mesh import until, until_async

DEADLINE_S = 30.0


def test_concurrent_producers_share_the_credit_and_all_go_on() -> None:
    async def scenario() -> None:
        window, taken = CreditWindow(2), []

        async def produce(number: int) -> None:
            await window.acquire()
            taken.append(number)

        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(produce(number))
            for credit in (2, 3, 4, 5):
                await until_async(lambda credit=credit: len(taken) == credit, "what the credit allows")  # type: ignore[misc]
                window.add(1)
                window.wake()
        assert sorted(taken) == [0, 1, 2, 3, 4]

    asyncio.run(scenario())


def test_a_thread_waits_for_credit_and_ends_with_the_call() -> None:
    window, taken, ends = CreditWindow(1), [], []

    def produce() -> None:
        try:
            while True:
                window.acquire_blocking()
                taken.append(1)
        except RequestCancelledError as error:
            ends.append(error)

    thread = threading.Thread(target=produce)
    thread.start()
    window.add(2)
    until(lambda: len(taken) == 3, "all credit to be used")
    window.stop(CancelReason.CLIENT)
    thread.join(DEADLINE_S)
    assert ends
    assert len(taken) == 3


def test_a_stopped_window_refuses_even_with_credit_left() -> None:
    window = CreditWindow(5)
    window.stop(CancelReason.CLIENT)
    with pytest.raises(RequestCancelledError):
        asyncio.run(window.acquire())


async def stream_of(count: int, granted: list[int]) -> RequestStream:
    stream = RequestStream(asyncio.get_running_loop(), granted.append, lambda payload: bytes(payload.data))
    for number in range(count):
        stream.on_item(raw(b"%d" % number))
    return stream


def test_credit_goes_back_half_a_window_at_a_time() -> None:
    async def scenario() -> list[int]:
        granted: list[int] = []
        window = settings().payload.stream_credits
        stream = await stream_of(window, granted)
        stream.on_half_close()
        assert len([each async for each in stream]) == window
        return granted

    assert asyncio.run(scenario()) == [settings().payload.stream_credits // 2] * 2


def test_the_end_comes_after_all_messages_and_stays() -> None:
    async def scenario() -> list[Any]:
        stream = await stream_of(2, [])
        stream.on_half_close()
        return [await stream.read() for _ in range(4)]

    assert asyncio.run(scenario()) == [b"0", b"1", grpc.aio.EOF, grpc.aio.EOF]


def test_several_readers_are_all_woken() -> None:
    async def scenario() -> list[Any]:
        stream = await stream_of(0, [])
        readers = [asyncio.create_task(stream.read()) for _ in range(3)]
        await asyncio.sleep(0)
        stream.on_item(raw(b"one"))
        stream.on_half_close()
        async with asyncio.timeout(DEADLINE_S):
            return await asyncio.gather(*readers)

    assert sorted(map(str, asyncio.run(scenario()))) == sorted(map(str, [b"one", grpc.aio.EOF, grpc.aio.EOF]))


def test_a_failed_stream_raises_at_once() -> None:
    async def scenario() -> None:
        stream = await stream_of(3, [])
        stream.fail(RequestCancelledError())
        await stream.read()

    with pytest.raises(RequestCancelledError):
        asyncio.run(scenario())


def test_a_plain_loop_over_requests_in_async_code_is_refused() -> None:
    """It would wait on the very loop that it blocks."""

    async def scenario() -> None:
        next(await stream_of(1, []))

    with pytest.raises(RuntimeError, match="async for"):
        asyncio.run(scenario())


@pytest.mark.parametrize("is_complete", [False, True])
def test_requests_that_are_read_after_the_method_has_returned_end(is_complete: bool) -> None:
    """A task that goes on after the call gets what has arrived, then the end or an error; its wait always ends."""

    async def scenario() -> None:
        stream = RequestStream(asyncio.get_running_loop(), lambda _: None, lambda payload: bytes(payload.data))
        stream.on_item(raw(b"first"))
        if is_complete:
            stream.on_half_close()
        waiting = asyncio.ensure_future(_read_all(stream))
        await asyncio.to_thread(stream.end)
        async with asyncio.timeout(DEADLINE_S):
            if is_complete:
                assert await waiting == [b"first"]
            else:
                with pytest.raises(MeshException, match="until the method returns"):
                    await waiting
                with pytest.raises(MeshException, match="until the method returns"):
                    await stream.read()

    asyncio.run(scenario())


async def _read_all(stream: RequestStream) -> list[Any]:
    return [message async for message in stream]


def test_a_cancel_in_a_thread_takes_no_message_from_under_a_reader() -> None:
    """It may come at any moment, also when a reader on the loop has just seen that there is a message."""

    class Watched(deque[Payload]):
        """Another thread cancels at the first look."""

        is_watched = True

        def __bool__(self) -> bool:
            is_full = len(self) > 0
            if self.is_watched:
                self.is_watched = False
                canceller = threading.Thread(target=requests.cancel)
                canceller.start()
                canceller.join()
            return is_full

    async def scenario() -> tuple[Any, Any]:
        nonlocal requests
        requests = RequestStream(asyncio.get_running_loop(), lambda credits: None, lambda payload: payload.data)
        requests._items = Watched([raw(b"a"), raw(b"b")])
        first = await requests.read()
        await asyncio.sleep(0)
        return first, await requests.read()

    requests: RequestStream
    assert asyncio.run(scenario()) == (b"a", grpc.aio.EOF)
