"""Streams through handles: order, early items, flow control, and the end of a stream from either side (items 42–50)."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import mesh
from mesh.exceptions import RequestCancelledError
from tests.e2e.conftest import Deploy
from tests.e2e.gate import Gate, small
from tests.e2e.waiting import until

Handle = mesh.DeploymentHandle[Any]

PRODUCERS = ["produce", "produce_in_thread", "returned_by_async_code"]
AHEAD_MAX = 400
"""Items a producer may be ahead of its consumer: the credit of a stream is well below, an endless stream is not."""


@small(max_ongoing_requests=100)
class Producer:
    """Remembers how far each labelled stream got and how it ended."""

    def __init__(self) -> None:
        self._produced: dict[str, int] = {}
        self._ended: dict[str, str] = {}

    async def produce(self, label: str, items: int) -> AsyncIterator[int]:
        try:
            for item in range(items):
                self._produced[label] = item + 1
                yield item
        except BaseException as error:
            self._ended[label] = type(error).__name__
            raise

    def produce_in_thread(self, label: str, items: int) -> Iterator[int]:
        try:
            for item in range(items):
                self._produced[label] = item + 1
                yield item
        except BaseException as error:
            self._ended[label] = type(error).__name__
            raise

    async def returned_by_async_code(self, label: str, items: int) -> Iterator[int]:
        return self.produce_in_thread(label, items)

    def returned(self, items: int) -> Iterator[int]:
        return iter(range(items))

    async def break_after(self, items: int) -> AsyncIterator[int]:
        for item in range(items):
            yield item
        raise LookupError(f"after {items}")

    async def no_stream(self) -> int:
        return 1

    async def progress(self, label: str) -> tuple[int, str]:
        """Items produced, and the type of the exception that ended the stream, if one did."""
        return self._produced.get(label, 0), self._ended.get(label, "")


@small(max_ongoing_requests=100)
class Relay:
    """Streams through a second hop."""

    def __init__(self, producer: Handle, gate: Handle) -> None:
        self._producer = producer.options(stream=True)

    async def __call__(self, label: str, items: int) -> AsyncIterator[int]:
        async for item in self._producer.produce.remote(label, items):
            yield item


@pytest.fixture(scope="module")
def relay(deploy: Deploy) -> Handle:
    return deploy(Relay.bind(Producer.bind(), Gate.bind()), "streaming").options(stream=True)


@pytest.fixture
def producer(relay: Handle) -> Handle:
    return mesh.get_deployment_handle("Producer", "streaming")


@pytest.fixture
def streams(producer: Handle) -> Handle:
    return producer.options(stream=True)


@pytest.fixture
def gate(relay: Handle) -> Handle:
    return mesh.get_deployment_handle("Gate", "streaming")


@pytest.mark.parametrize("method", PRODUCERS)
@pytest.mark.parametrize("items", [0, 1, 1000])
def test_items_arrive_in_order_from_either_kind_of_generator(streams: Handle, method: str, items: int) -> None:
    """An empty stream ends without an item (items 42, 45)."""
    assert list(streams.options(method_name=method).remote("order", items)) == list(range(items))


def test_items_arrive_over_two_hops_and_from_a_returned_generator(relay: Handle, streams: Handle) -> None:
    """A method may return a generator instead of being one (item 42)."""
    assert list(relay.remote("hops", 500)) == list(range(500))
    assert list(streams.returned.remote(3)) == [0, 1, 2]


def test_two_streams_can_be_read_in_turns_inside_a_loop(streams: Handle, relay: Handle) -> None:
    """An exhausted stream keeps saying so (item 50)."""

    async def read() -> list[tuple[int, int]]:
        left, right = streams.produce.remote("left", 50), relay.remote("right", 50)
        pairs = [(await anext(left), await anext(right)) for _ in range(50)]
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(left)
        return pairs

    assert asyncio.run(read()) == [(number, number) for number in range(50)]


def test_an_item_arrives_while_the_next_one_is_still_waited_for(gate: Handle) -> None:
    """Items are not held back (item 47)."""
    items = gate.options(stream=True).stream.remote("early")
    assert next(items) == "first"
    gate.open.remote("early").result(timeout_s=10)
    assert list(items) == ["early"]


def test_an_exception_comes_after_the_items_before_it(streams: Handle) -> None:
    """Nothing that was produced is lost (item 46)."""
    items = streams.break_after.remote(3)
    assert list(itertools.islice(items, 3)) == [0, 1, 2]
    with pytest.raises(LookupError, match="after 3"):
        next(items)


def test_misuse_is_answered_with_what_to_do(streams: Handle) -> None:
    """Each error names the right way (items 43, 44, C11, C12)."""
    with pytest.raises(TypeError, match="did not return a generator"):
        next(streams.no_stream.remote())
    with pytest.raises(TypeError):
        streams.produce.remote("result", 1).result()

    async def misuse() -> None:
        with pytest.raises(TypeError, match=r"async for.*_to_object_ref_gen"):
            await streams.produce.remote("awaited", 1)
        with pytest.raises(RuntimeError, match="Sync methods should not be called"):
            next(streams.produce.remote("sync", 1))

    asyncio.run(misuse())


def test_cancelling_a_stream_ends_both_sides(gate: Handle) -> None:
    """The consumer raises and the generator is closed (item 48, C1)."""
    items = gate.options(stream=True).stream.remote("cancelled")
    assert next(items) == "first"
    until(lambda: "cancelled" in gate.entered.remote().result(timeout_s=10))
    items.cancel()
    assert items.cancelled()
    with pytest.raises(RequestCancelledError):
        next(items)
    until(lambda: "cancelled" in gate.cancelled_at_s.remote().result(timeout_s=10))


@pytest.mark.parametrize("method", PRODUCERS)
def test_a_consumer_that_drops_a_stream_half_read_stops_its_producer(
    streams: Handle, producer: Handle, method: str
) -> None:
    """An async generator sees CancelledError, one in a thread is closed (item 48)."""
    items = streams.options(method_name=method).remote(f"dropped {method}", 10_000_000)
    assert list(itertools.islice(items, 5)) == [0, 1, 2, 3, 4]
    del items
    produced, ended = until(lambda: ended_progress(producer, f"dropped {method}"))
    assert ended == ("CancelledError" if method == "produce" else "GeneratorExit")
    assert produced <= AHEAD_MAX


def test_dropping_a_stream_stops_the_producer_behind_a_relay(relay: Handle, producer: Handle) -> None:
    items = relay.remote("dropped far away", 10_000_000)
    assert next(items) == 0
    del items
    produced, _ = until(lambda: ended_progress(producer, "dropped far away"))
    assert produced <= 2 * AHEAD_MAX


def test_breaking_out_of_async_for_stops_the_producer(streams: Handle, producer: Handle) -> None:
    async def take_one() -> None:
        async for _ in streams.produce.remote("broken off", 10_000_000):
            break

    asyncio.run(take_one())
    produced, ended = until(lambda: ended_progress(producer, "broken off"))
    assert ended == "CancelledError"
    assert produced <= AHEAD_MAX


@pytest.mark.parametrize("method", PRODUCERS)
def test_a_slow_consumer_holds_back_only_its_own_producer(streams: Handle, producer: Handle, method: str) -> None:
    label = f"slow {method}"
    slow = streams.options(method_name=method).remote(label, 10_000_000)
    assert next(slow) == 0
    # While the slow one stands still, another stream of the same replica passes thousands of items.
    assert list(streams.options(method_name=method).remote("fast", 5000)) == list(range(5000))
    produced, ended = producer.progress.remote(label).result(timeout_s=10)
    assert 1 < produced <= AHEAD_MAX
    assert not ended
    assert list(itertools.islice(slow, 1000)) == list(range(1, 1001))
    slow.cancel()


def ended_progress(producer: Handle, label: str) -> tuple[int, str] | None:
    produced, ended = producer.progress.remote(label).result(timeout_s=10)
    return (produced, ended) if ended else None
