"""What becomes of the iterable of a streamed request: closed once, its errors raised, its threads limited."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from mesh.caller.request_source import _threads
from mesh.exceptions import RequestCancelledError, UnserializableError
from mesh.wire.io_thread import mailbox_of
from tests.unit.fakes.small_mesh import SmallMesh, do_on_io, until, until_async
from tests.unit.handle.stream_reader import DEADLINE_S, Reader, result, stream_threads

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def target(reader: Reader) -> Reader:
    return reader


def test_an_error_of_the_iterable_is_raised_as_it_is(mesh: SmallMesh) -> None:
    """In both kinds of responses, each time that it is asked for (item 25)."""
    error = LookupError("broken")

    def items() -> Iterator[int]:
        yield 1
        raise error

    response = mesh.handle("collect").remote(items())
    for _ in range(2):
        with pytest.raises(LookupError) as caught:
            result(response)
        assert caught.value is error
    with pytest.raises(LookupError):
        list(mesh.handle("echo", stream=True).remote(items()))


def test_an_item_that_cannot_be_pickled_ends_the_call(mesh: SmallMesh) -> None:
    with pytest.raises(UnserializableError, match="item of the request stream"):
        result(mesh.handle("collect").remote(threading.Lock() for _ in range(1)))


def test_a_cancelled_task_of_the_iterable_cancels_the_call(mesh: SmallMesh) -> None:
    """As at the end of `asyncio.run`: the call does not wait for items that never come."""

    async def call() -> Any:
        async def never() -> AsyncIterator[int]:
            yield 1
            await asyncio.Event().wait()

        return mesh.handle("collect").remote(never())

    response = asyncio.run(call())
    with pytest.raises(RequestCancelledError):
        result(response)


class Numbers:
    """A custom async iterator that counts how often it is closed."""

    def __init__(self) -> None:
        self.closed = 0

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        return 1

    async def aclose(self) -> None:
        self.closed += 1


def test_an_iterable_whose_task_is_cancelled_before_its_first_step_is_closed(mesh: SmallMesh) -> None:
    """And its call ends."""
    numbers = Numbers()

    async def call() -> None:
        response = mesh.handle("collect").remote(numbers)
        (task,) = [each for each in asyncio.all_tasks() if each.get_name() == "mesh-request-stream"]
        task.cancel()
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(RequestCancelledError):
                await response
        await until_async(lambda: numbers.closed == 1, "the end of the iterable")

    asyncio.run(call())


def test_an_iterable_whose_call_ends_before_its_task_begins_is_closed(mesh: SmallMesh) -> None:
    numbers = Numbers()

    async def call() -> None:
        mailbox_of(asyncio.get_running_loop()).post(lambda: None)  # what follows it is read before the task begins
        response = mesh.handle("collect").remote(numbers)
        response.cancel()
        do_on_io(lambda: None)  # behind this the call has ended
        with pytest.raises(RequestCancelledError):
            await response
        await until_async(lambda: numbers.closed == 1, "the end of the iterable")

    asyncio.run(call())


def test_the_clean_up_of_an_iterable_is_not_interrupted(mesh: SmallMesh) -> None:
    """Not by the end of the call which its own item has caused."""
    log: list[str] = []

    async def call() -> None:
        ended, closed = asyncio.Event(), asyncio.Event()

        async def items() -> AsyncIterator[Any]:
            try:
                yield threading.Lock()
            finally:
                try:
                    log.append("begins")
                    await ended.wait()
                    await asyncio.sleep(0)
                    log.append("ends")
                finally:
                    closed.set()

        with pytest.raises(UnserializableError):
            await mesh.handle("collect").remote(items())
        ended.set()
        async with asyncio.timeout(DEADLINE_S):
            await closed.wait()

    asyncio.run(call())
    assert log == ["begins", "ends"]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ValueError])
def test_clean_up_that_fails_costs_no_place_of_a_thread(
    mesh: SmallMesh, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            raise error("while it closes")

    free = _threads()._value
    with pytest.raises(ZeroDivisionError):
        result(mesh.handle("fail").remote(items()))
    until(lambda: not stream_threads(), "the end of the thread")
    assert _threads()._value == free
    assert "while it closes" in caplog.text


def test_threads_of_generators_have_a_limit(mesh: SmallMesh, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.caller.request_source._thread_slots", threading.Semaphore(1))
    first = mesh.handle("count_slowly").remote(each for each in range(1000))
    with pytest.raises(RuntimeError, match="MESH_REQUEST_STREAM_THREADS_MAX"):
        mesh.handle("collect").remote(each for each in ())
    reader.gate.set()
    assert result(first) == 1000
    until(lambda: not stream_threads(), "the end of the thread")
    assert result(mesh.handle("collect").remote(each for each in ())) == []
    until(lambda: _threads()._value == 1, "the place to be given back")
