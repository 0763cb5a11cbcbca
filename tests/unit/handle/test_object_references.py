"""Responses as references to Ray's objects. The store is a stand-in: what is tested is when and where one can wait."""

import asyncio
from typing import Any

import pytest

from mesh.cluster import ray_objects
from mesh.exceptions import RequestCancelledError
from tests.unit.fakes.small_mesh import SmallMesh
from tests.unit.handle.store import DEADLINE_S, Store

pytestmark = pytest.mark.timeout(60)

TIMED_OUT = r"Timed out resolving to ObjectRef\."
SYNC_IN_LOOP = "Sync methods should not be called from within an `asyncio` event loop"


@pytest.fixture(autouse=True)
def objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_objects, "put_object", lambda value: ("reference to", value))


def test_a_result_becomes_a_reference(mesh: SmallMesh) -> None:
    """Any number of times, in a loop and outside of one (item 40, C6)."""
    response = mesh.handle().remote(5)

    async def refer() -> list[Any]:
        return [await response._to_object_ref() for _ in range(2)]

    assert asyncio.run(refer()) == [("reference to", 5)] * 2
    assert response._to_object_ref_sync() == ("reference to", 5)
    assert response.result(timeout_s=DEADLINE_S) == 5


def test_a_reference_that_is_late_times_out_and_the_call_goes_on(mesh: SmallMesh, store: Store) -> None:
    """Nothing is left of the waits (item 40)."""
    response = mesh.handle("block").remote()
    for _ in range(3):
        with pytest.raises(TimeoutError, match=TIMED_OUT):
            response._to_object_ref_sync(_timeout_s=0)
    assert not response._future._waiters
    store.gate.set()
    assert response._to_object_ref_sync(_timeout_s=DEADLINE_S) == ("reference to", "unblocked")


def test_a_failed_call_has_no_reference(mesh: SmallMesh) -> None:
    """Its error is raised instead (items 25, 40)."""
    with pytest.raises(ZeroDivisionError):
        mesh.handle("fail").remote("zero")._to_object_ref_sync(_timeout_s=DEADLINE_S)
    hanging = mesh.handle("hang").remote()
    hanging.cancel()
    with pytest.raises(RequestCancelledError):
        hanging._to_object_ref_sync(_timeout_s=DEADLINE_S)


def test_a_loop_is_blocked_only_where_that_is_allowed(mesh: SmallMesh) -> None:
    """Of results and of streams (items 40, 49)."""

    async def refer() -> list[Any]:
        response, stream = mesh.handle("plain").remote(1), mesh.handle("count_plain", stream=True).remote(2)
        with pytest.raises(RuntimeError, match=SYNC_IN_LOOP):
            response._to_object_ref_sync()
        with pytest.raises(RuntimeError, match=SYNC_IN_LOOP):
            stream._to_object_ref_gen_sync()
        one = response._to_object_ref_sync(DEADLINE_S, _allow_running_in_asyncio_loop=True)
        return [one, *stream._to_object_ref_gen_sync(DEADLINE_S, _allow_running_in_asyncio_loop=True)]

    assert asyncio.run(refer()) == [("reference to", value) for value in (1, 0, 1)]


def test_references_to_items_are_iterated_over_in_both_ways(mesh: SmallMesh) -> None:
    """Each is made when it is asked for, and their end repeats (items 49, 50, C6)."""
    expected = [("reference to", number) for number in range(3)]

    async def refer() -> list[Any]:
        first = await mesh.handle("count", stream=True).remote(3)._to_object_ref_gen()
        references = [each async for each in first]
        with pytest.raises(StopAsyncIteration):
            await anext(first)
        second = (
            mesh.handle("count", stream=True).remote(3)._to_object_ref_gen_sync(_allow_running_in_asyncio_loop=True)
        )
        return [references, [each async for each in second]]

    assert asyncio.run(refer()) == [expected, expected]
    outside = mesh.handle("count", stream=True).remote(3)._to_object_ref_gen_sync()
    assert list(outside) == expected
    assert list(outside) == []


def test_the_first_item_is_waited_for_as_long_as_is_said(mesh: SmallMesh, store: Store) -> None:
    """The stream goes on, and nothing is left of the waits (item 49)."""
    stream = mesh.handle("count_when_open", stream=True).remote(2)
    for _ in range(3):
        with pytest.raises(TimeoutError, match=TIMED_OUT):
            stream._to_object_ref_gen_sync(_timeout_s=0)
    assert not stream._future._header_waiters
    store.gate.set()
    references = stream._to_object_ref_gen_sync(_timeout_s=DEADLINE_S)
    assert list(references) == [("reference to", 0), ("reference to", 1)]


def test_an_exception_comes_after_the_references_before_it(mesh: SmallMesh) -> None:
    """As it does among the items (items 46, 49)."""
    references = mesh.handle("fail_after", stream=True).remote(1)._to_object_ref_gen_sync()
    assert next(references) == ("reference to", 0)
    with pytest.raises(ZeroDivisionError):
        next(references)
