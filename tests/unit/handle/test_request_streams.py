"""Handles over real links: streamed requests arrive whole, within limits, whatever breaks."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.exceptions import BackPressureError, MeshException, ReplicaUnavailableError, RequestCancelledError
from mesh.settings import settings as mesh_settings
from tests.unit.fakes.small_mesh import SmallMesh, mesh_of, until
from tests.unit.handle.stream_reader import DEADLINE_S, Reader, count, no_stream_threads, result

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def target(reader: Reader) -> Reader:
    return reader


@pytest.mark.parametrize("items", [0, 1, 1000])
def test_streams_arrive_in_order_and_whole(mesh: SmallMesh, items: int) -> None:
    """From generators and async generators, in both kinds of methods, with and without streamed responses (item 5)."""
    numbers = list(range(items))
    assert result(mesh.handle("collect").remote(each for each in numbers)) == numbers
    assert list(mesh.handle("echo", stream=True).remote(each for each in numbers)) == numbers

    async def call() -> None:
        assert await mesh.handle("collect").remote(count(items)) == numbers
        assert [item async for item in mesh.handle("echo", stream=True).remote(count(items))] == numbers

    asyncio.run(call())


def test_a_method_in_a_thread_iterates_over_its_requests(reader: Reader) -> None:
    with mesh_of(reader) as mesh:
        assert result(mesh.handle("in_thread").remote(each for each in range(1000))) == list(range(1000))


@pytest.mark.parametrize("item_bytes", [100_000, 600_000, 9_000_000])
def test_large_items_arrive_whole(mesh: SmallMesh, item_bytes: int) -> None:
    items = result(mesh.handle("collect").remote(bytes([number]) * item_bytes for number in range(10)))
    assert [(item[0], len(item)) for item in items] == [(number, item_bytes) for number in range(10)]


@pytest.mark.parametrize("item_bytes", [1, 1_000_000])
def test_a_slow_method_bounds_the_items_on_their_way(mesh: SmallMesh, reader: Reader, item_bytes: int) -> None:
    """No more is taken from the iterable than the method's window allows."""
    made = 0

    def items() -> Iterator[bytes]:
        nonlocal made
        for _ in range(500):
            made += 1
            yield b"x" * item_bytes

    response = mesh.handle("count_slowly").remote(items())
    assert reader.started.wait(DEADLINE_S)
    window = mesh_settings().payload.stream_credits
    at_most = window // (1 + item_bytes // 65536) + 1
    until(lambda: made >= at_most - 1, "the caller to use its credit")
    # Another stream passes on the same link, so the first one had its time.
    assert len(result(mesh.handle("collect").remote(each for each in range(1000)))) == 1000
    assert made <= at_most
    reader.gate.set()
    assert result(response) == 500


def test_a_call_that_waits_for_a_place_does_not_touch_its_iterable(reader: Reader) -> None:
    """Nor one that back-pressure refuses (items 35, 168)."""
    with mesh_of(reader, limit=1, queued_max=1) as mesh:
        holder = mesh.handle("hold").remote()
        assert reader.started.wait(DEADLINE_S)
        touched: list[str] = []

        def items(name: str) -> Iterator[int]:
            touched.append(name)
            yield 1

        cancelled = mesh.handle("collect").remote(items("cancelled"))
        until(lambda: mesh.router.queued == 1, "the call to wait")
        refused = mesh.handle("collect").remote(items("refused"))
        with pytest.raises(BackPressureError):
            result(refused)
        cancelled.cancel()
        with pytest.raises(RequestCancelledError):
            result(cancelled)
        waiting = mesh.handle("collect").remote(items("waiting"))
        reader.gate.set()
        assert result(waiting) == [1]
        assert touched == ["waiting"]
        result(holder)
        assert no_stream_threads()


def test_a_stream_is_sent_once_whatever_the_handle_says(reader: Reader) -> None:
    """Neither retries nor second copies apply (item 166)."""
    with mesh_of(reader, Reader()) as mesh:
        options = {"idempotent": True, "hedge_after_s": 0.001, "retry": {"codes": ["INTERNAL"]}}
        with pytest.raises(ZeroDivisionError):
            result(mesh.handle("fail", **options).remote(each for each in range(3)))
        retries = mesh.router.counts.retries
        assert (retries.failed, retries.broken, mesh.router.counts.hedges.sent) == (0, 0, 0)


def test_the_death_of_the_replica_ends_the_call_and_closes_the_iterable(reader: Reader) -> None:
    with mesh_of(reader) as mesh:
        closed, taken = threading.Event(), threading.Event()

        def items() -> Iterator[int]:
            try:
                while True:
                    taken.set()
                    yield 1
            finally:
                closed.set()

        response = mesh.handle("count_slowly").remote(items())
        assert taken.wait(DEADLINE_S)
        mesh.replicas[0].kill()
        with pytest.raises(ReplicaUnavailableError):
            result(response)
        assert closed.wait(DEADLINE_S)
        reader.gate.set()


def test_a_response_that_is_dropped_stops_both_streams(mesh: SmallMesh) -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    stream = mesh.handle("echo", stream=True).remote(items())
    assert next(stream) == 1
    del stream
    gc.collect()
    assert closed.wait(DEADLINE_S)


def test_a_method_may_stop_reading(mesh: SmallMesh) -> None:
    """`cancel`, `is_cancelled` and `is_exhausted` of its iterator (item 216)."""
    assert result(mesh.handle("stop_reading").remote(each for each in range(5, 10_000))) == (5, True, True)


def test_misuse_says_what_to_do(mesh: SmallMesh) -> None:
    with pytest.raises(RuntimeError, match="runs in an event loop"):
        mesh.handle("collect").remote(count(3))
    with pytest.raises(TypeError, match="one request stream"):
        mesh.handle("collect").remote((each for each in ()), (each for each in ()))


def test_an_empty_handle_method_still_needs_its_arguments(mesh: SmallMesh) -> None:
    with pytest.raises(TypeError):
        result(mesh.handle("collect").remote())


STEPS = st.lists(st.sampled_from(["item", "fail", "yield", "end"]), max_size=12)


@given(
    steps=STEPS,
    stop_after=st.integers(1, 6),
    read=st.integers(0, 8),
    is_async=st.booleans(),
    end=st.sampled_from(["cancel", "drop", "read"]),
)
@settings(max_examples=100, deadline=None)
def test_any_interleaving_of_both_streams_ends_in_one_state_without_leaks(
    shared: tuple[SmallMesh, Reader], steps: list[str], stop_after: int, read: int, is_async: bool, end: str
) -> None:
    """Whichever side ends first, and however."""
    mesh, _ = shared
    closed = threading.Event()

    def items() -> Iterator[str]:
        try:
            for step in steps:
                if step == "fail":
                    raise LookupError(step)
                if step == "end":
                    return
                yield step
        finally:
            closed.set()

    async def async_items() -> AsyncIterator[str]:
        try:
            for step in steps:
                if step == "fail":
                    raise LookupError(step)
                if step == "end":
                    return
                if step == "yield":
                    await asyncio.sleep(0)
                yield step
        finally:
            closed.set()

    async def call() -> None:
        argument = async_items() if is_async else items()
        response = mesh.handle("echo", stream=True).remote(argument, stop_after=stop_after)
        received: list[str] = []
        try:
            while len(received) < read or end == "read":
                received.append(await anext(response))
        except (StopAsyncIteration, LookupError, RequestCancelledError):
            pass
        assert received == expected[: len(received)]
        if end == "cancel":
            response.cancel()
        if end == "read":
            assert response._future.outcome is not None
        del response
        await asyncio.to_thread(mesh.assert_idle)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=DEADLINE_S)
        assert not asyncio.all_tasks() - {asyncio.current_task()}

    cut = next((place for place, step in enumerate(steps) if step in ("fail", "end")), len(steps))
    expected = steps[:cut][:stop_after]
    asyncio.run(call())
    assert no_stream_threads()


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[SmallMesh, Reader]]:
    reader = Reader()
    with mesh_of(reader) as mesh:
        yield mesh, reader


def test_the_exceptions_of_a_closed_mesh_are_its_own(reader: Reader) -> None:
    with mesh_of(reader) as mesh:
        handle = mesh.handle("collect")
    with pytest.raises(MeshException):
        result(handle.remote(each for each in range(3)))
    assert no_stream_threads()
