"""Handles that stream their requests: to methods of every kind, through two hops, with metadata both ways."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest

import mesh
from mesh.exceptions import DeadlineExceededError, RequestCancelledError
from tests.e2e.conftest import Deploy
from tests.e2e.waiting import until

TIMEOUT_S = 20.0


class Numbers:
    """Reads streams of numbers in every way."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.read = 0

    async def total(self, numbers: AsyncIterator[int], start: int = 0) -> int:
        async for number in numbers:
            self.read += 1
            start += number
        return start

    def total_in_thread(self, numbers: Iterable[int]) -> int:
        return sum(numbers)

    async def doubled(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        async for number in numbers:
            yield 2 * number

    def doubled_in_thread(self, numbers: Iterable[int]) -> Iterator[int]:
        for number in numbers:
            yield 2 * number

    async def first(self, numbers: AsyncIterator[int]) -> int:
        return await anext(numbers)

    async def nothing(self, numbers: AsyncIterator[int]) -> str:
        return "not read"

    async def until_cancelled(self, numbers: AsyncIterator[int]) -> None:
        try:
            async for _ in numbers:
                self.read += 1
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def reads(self) -> int:
        return self.read

    async def cancels(self) -> int:
        return self.cancelled

    async def echo_metadata(self, grpc_context: Any) -> dict[str, Any]:
        received = dict(grpc_context.invocation_metadata())
        await grpc_context.send_initial_metadata([("model", "v2")])
        grpc_context.set_trailing_metadata([("cost", "3"), ("state-bin", b"\x00\xff")])
        return received


class Relay:
    """Streams on what it gets."""

    def __init__(self, numbers: mesh.DeploymentHandle[Any]) -> None:
        self.numbers = numbers

    async def total(self, numbers: AsyncIterator[int]) -> int:
        value: int = await self.numbers.total.remote(numbers)
        return value

    async def doubled(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        async for number in self.numbers.doubled.options(stream=True).remote(each async for each in numbers):
            yield number


@pytest.fixture(scope="module")
def relay(deploy: Deploy) -> mesh.DeploymentHandle[Any]:
    numbers = mesh.deployment(Numbers, ray_actor_options={"num_cpus": 0})
    return deploy(mesh.deployment(Relay, ray_actor_options={"num_cpus": 0}).bind(numbers.bind()), "streams")


@pytest.fixture(scope="module")
def numbers(relay: mesh.DeploymentHandle[Any]) -> mesh.DeploymentHandle[Any]:
    return mesh.get_deployment_handle("Numbers", "streams")


async def count(end: int) -> AsyncIterator[int]:
    for number in range(end):
        yield number


@pytest.mark.parametrize("method", ["total", "total_in_thread"])
def test_an_async_iterable_and_a_generator_are_streamed(numbers: mesh.DeploymentHandle[Any], method: str) -> None:
    """To `async def` methods and to those in threads (item 5)."""
    called = numbers.options(method_name=method)
    assert called.remote(each for each in range(1000)).result(timeout_s=TIMEOUT_S) == 499_500

    async def call() -> Any:
        return await called.remote(count(1000))

    assert asyncio.run(call()) == 499_500


@pytest.mark.parametrize("method", ["doubled", "doubled_in_thread"])
def test_both_streams_flow_at_once(numbers: mesh.DeploymentHandle[Any], method: str) -> None:
    """Each item is answered before the next one is made (items 5, 47)."""

    async def converse() -> list[int]:
        answered = asyncio.Event()

        async def questions() -> AsyncIterator[int]:
            for number in range(10):
                yield number
                await answered.wait()
                answered.clear()

        answers = []
        async for answer in numbers.options(method_name=method, stream=True).remote(questions()):
            answers.append(answer)
            answered.set()
        return answers

    assert asyncio.run(asyncio.wait_for(converse(), TIMEOUT_S)) == [2 * number for number in range(10)]


def test_a_request_stream_passes_through_two_deployments(relay: mesh.DeploymentHandle[Any]) -> None:
    """What a method gets can be streamed on as it is (item 5)."""
    assert relay.total.remote(each for each in range(500)).result(timeout_s=TIMEOUT_S) == 124_750
    doubled = relay.doubled.options(stream=True).remote(each for each in range(500))
    assert list(doubled) == [2 * each for each in range(500)]


def test_other_arguments_go_with_the_stream(numbers: mesh.DeploymentHandle[Any]) -> None:
    """By position and by name, and responses among them (items 5, 29)."""
    first = numbers.total.remote(each for each in range(5))
    assert numbers.total.remote((each for each in range(5)), start=first).result(timeout_s=TIMEOUT_S) == 20
    assert numbers.total.remote(start=1, numbers=(each for each in [2])).result(timeout_s=TIMEOUT_S) == 3


@pytest.mark.parametrize(("method", "expected"), [("nothing", "not read"), ("first", 0)])
def test_a_stream_that_is_not_read_to_its_end_is_closed(
    numbers: mesh.DeploymentHandle[Any], method: str, expected: object
) -> None:
    """Also one whose first item nothing has asked for."""

    def endless() -> Iterator[int]:
        yield from itertools.count()

    stream = endless()
    assert numbers.options(method_name=method).remote(stream).result(timeout_s=TIMEOUT_S) == expected
    until(lambda: inspect.getgeneratorstate(stream) == inspect.GEN_CLOSED, TIMEOUT_S)


def test_what_the_iterable_raises_reaches_its_caller_and_cancels_the_method(
    numbers: mesh.DeploymentHandle[Any],
) -> None:
    """The very exception is raised, and the method sees a cancel (items 25, 36)."""
    before = numbers.cancels.remote().result(timeout_s=TIMEOUT_S)
    error = LookupError("no more numbers")

    read = numbers.reads.remote().result(timeout_s=TIMEOUT_S)

    def broken() -> Iterator[int]:
        yield 1
        # A method that has not begun would not see the cancel.
        until(lambda: numbers.reads.remote().result(timeout_s=TIMEOUT_S) > read, TIMEOUT_S)
        raise error

    with pytest.raises(LookupError) as caught:
        numbers.until_cancelled.remote(broken()).result(timeout_s=TIMEOUT_S)
    assert caught.value is error
    end_s = time.monotonic() + TIMEOUT_S
    while numbers.cancels.remote().result(timeout_s=TIMEOUT_S) == before:
        assert time.monotonic() < end_s, "the method was not cancelled"


def test_a_cancel_of_the_response_closes_the_iterable(numbers: mesh.DeploymentHandle[Any]) -> None:
    """Where it stands, with a CancelledError (item 33)."""

    async def cancel() -> None:
        asked, cancelled = asyncio.Event(), asyncio.Event()

        async def endless() -> AsyncIterator[int]:
            try:
                yield 1
                asked.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        response = numbers.until_cancelled.remote(endless())
        await asked.wait()
        response.cancel()
        with pytest.raises(RequestCancelledError):
            await response
        await cancelled.wait()

    asyncio.run(asyncio.wait_for(cancel(), TIMEOUT_S))


def test_a_deadline_ends_a_call_whose_iterable_is_slow(numbers: mesh.DeploymentHandle[Any]) -> None:
    async def slow() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    async def call() -> None:
        with pytest.raises(DeadlineExceededError):
            await numbers.until_cancelled.options(timeout_s=0.3).remote(slow())

    asyncio.run(asyncio.wait_for(call(), TIMEOUT_S))


def test_metadata_goes_both_ways(numbers: mesh.DeploymentHandle[Any]) -> None:
    """Given by option, read from the response (items 217, 218)."""
    response = numbers.echo_metadata.options(metadata={"tenant": "a", "key-bin": b"\x01"}).remote()
    assert response.result(timeout_s=TIMEOUT_S) == {"tenant": "a", "key-bin": b"\x01"}
    assert response.initial_metadata_sync(timeout_s=TIMEOUT_S) == (("model", "v2"),)
    assert response.trailing_metadata_sync(timeout_s=TIMEOUT_S) == (("cost", "3"), ("state-bin", b"\x00\xff"))
