"""Handles over real links: streamed responses."""

import asyncio
import gc
import threading

import pytest

from mesh.exceptions import (
    RequestCancelledError,
)
from mesh.settings import settings
from tests.unit.fakes.small_mesh import SmallMesh, until
from tests.unit.handle.store import DEADLINE_S, STREAMS, Store

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("method", ["relay", "relay_async"])
def test_the_responses_of_a_streaming_call_may_be_returned(mesh: SmallMesh, store: Store, method: str) -> None:
    """A stream may be relayed as it is (item 42)."""
    store.peer = mesh.handle()
    assert list(mesh.handle(method, stream=True).remote(300)) == list(range(300))


@pytest.mark.parametrize("method", STREAMS)
@pytest.mark.parametrize("items", [0, 1, 1000])
def test_streams_come_in_order_and_whole(mesh: SmallMesh, method: str, items: int) -> None:
    """Both kinds of iteration work, and empty streams end immediately (items 42, 45)."""
    assert list(mesh.handle(method, stream=True).remote(items)) == list(range(items))

    async def read() -> list[int]:
        return [item async for item in mesh.handle(method, stream=True).remote(items)]

    assert asyncio.run(read()) == list(range(items))


@pytest.mark.parametrize("item_bytes", [100_000, 600_000, 3_000_000])
def test_large_items_come_in_order_and_whole(mesh: SmallMesh, item_bytes: int) -> None:
    items = list(mesh.handle("large", stream=True).remote(20, item_bytes))
    assert [item[0] for item in items] == list(range(20))
    assert {len(item) for item in items} == {item_bytes}


def test_consumers_of_one_stream_share_its_items(mesh: SmallMesh) -> None:
    """None of them waits for an item that another has been woken for (item 42)."""
    count = 4 * settings().payload.stream_credits
    stream = mesh.handle("count", stream=True).remote(count)
    taken: list[int] = []

    async def take() -> None:
        async for item in stream:
            taken.append(item)
            await asyncio.sleep(0)

    async def consume() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*(take() for _ in range(3)))

    asyncio.run(consume())
    assert sorted(taken) == list(range(count))
    stream = mesh.handle("count", stream=True).remote(count)
    threads = [threading.Thread(target=lambda: taken.extend(stream)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert sorted(taken) == sorted([*range(count), *range(count)])


def test_an_exception_comes_after_the_items_before_it(mesh: SmallMesh) -> None:
    """Items that were produced are delivered first (item 46)."""
    stream = mesh.handle("fail_after", stream=True).remote(5)
    assert [next(stream) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError):
        next(stream)


def test_an_exhausted_stream_stays_exhausted(mesh: SmallMesh) -> None:
    """Reading on ends again immediately (item 50)."""
    stream = mesh.handle("count", stream=True).remote(1)
    assert list(stream) == [0]
    assert list(stream) == []


@pytest.mark.parametrize("method", STREAMS)
def test_a_slow_consumer_bounds_its_producer(mesh: SmallMesh, store: Store, method: str) -> None:
    stream = mesh.handle(method, stream=True).remote(10_000)
    window = settings().payload.stream_credits
    until(lambda: store.produced > window, "the producer to use its credit")
    # Another stream passes the blocked one, on the same link.
    assert len(list(mesh.handle(method, stream=True).remote(1000))) == 1000
    assert store.produced <= window + 1 + 1000
    assert next(stream) == 0
    stream.cancel()
    until(lambda: store.closed == 2, "both generators to be closed")


@pytest.mark.parametrize("item_bytes", [1_000_000, 20_000_000])
def test_a_slow_consumer_bounds_the_bytes_that_wait_for_it(mesh: SmallMesh, store: Store, item_bytes: int) -> None:
    stream = mesh.handle("large", stream=True).remote(200, item_bytes)
    assert len(next(stream)) == item_bytes
    # Another stream passes: the producer has had its time.
    assert len(list(mesh.handle("count", stream=True).remote(1000))) == 1000
    window_bytes = settings().payload.stream_credits * 64 * 1024
    assert store.produced - 1000 <= window_bytes / item_bytes + 3
    stream.cancel()


@pytest.mark.parametrize("method", STREAMS)
def test_a_generator_that_is_dropped_half_read_stops_its_producer(mesh: SmallMesh, store: Store, method: str) -> None:
    stream = mesh.handle(method, stream=True).remote(10**9)
    assert next(stream) == 0
    del stream
    gc.collect()
    until(lambda: store.closed == 1, "the generator to be closed")


def test_a_cancelled_stream_raises_at_the_next_item(mesh: SmallMesh, store: Store) -> None:
    """The item after the cancel raises immediately (item 48)."""
    stream = mesh.handle("count", stream=True).remote(10**9)
    assert next(stream) == 0
    stream.cancel()
    with pytest.raises(RequestCancelledError):
        next(stream)
    assert stream.cancelled()


@pytest.mark.parametrize("method", ["count_up", "count_up_returned"])
def test_an_async_generator_that_stands_at_a_yield_is_cancelled_there(
    mesh: SmallMesh, store: Store, method: str
) -> None:
    """It sees CancelledError, as it would at an `await` (item 48)."""
    stream = mesh.handle(method, stream=True).remote()
    assert next(stream) == 0
    stream.cancel()
    until(lambda: store.ended_by is not None, "the end of the generator")
    assert store.ended_by is asyncio.CancelledError


def test_a_generator_may_return_when_it_is_cancelled(mesh: SmallMesh, store: Store) -> None:
    """The call ends as cancelled (item 48, C1)."""
    stream = mesh.handle("count_up_until_cancelled", stream=True).remote()
    assert next(stream) == 0
    stream.cancel()
    with pytest.raises(RequestCancelledError):
        next(stream)
    until(lambda: store.ended_by is StopIteration, "the end of the generator")


def test_a_producer_that_swallows_cancels_is_stopped(mesh: SmallMesh, store: Store) -> None:
    stream = mesh.handle("stubborn", stream=True).remote()
    assert next(stream) == 1
    stream.cancel()
    until(lambda: mesh.replicas[0].is_idle, "the call to end")


def test_a_thousand_consumers_of_one_stream_all_get_their_item(mesh: SmallMesh) -> None:
    """Those that wait are woken one after the other, not one inside the other."""
    consumers = 1200
    stream = mesh.handle("count", stream=True).remote(consumers)

    async def consume() -> list[int]:
        async with asyncio.timeout(DEADLINE_S):
            return await asyncio.gather(*(anext(stream) for _ in range(consumers)))

    assert sorted(asyncio.run(consume())) == list(range(consumers))
