"""Handles over real links: values, from threads and loops."""

import asyncio
import os
import pickle
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from mesh.caller.init_options import DeploymentHandleSource
from mesh.exceptions import (
    MeshException,
)
from mesh.handle import DeploymentHandle
from mesh.testing import replica_context
from tests.unit.fakes.small_mesh import SmallMesh, on_io
from tests.unit.handle.store import DEADLINE_S, Store, result, value_of

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("method", ["__call__", "plain"])
@pytest.mark.parametrize(
    "value", [None, 7, "text", {"a": [1, 2]}, b"x" * 3_000_000], ids=["none", "int", "str", "dict", "large"]
)
def test_a_value_goes_there_and_back(mesh: SmallMesh, method: str, value: Any) -> None:
    assert result(mesh.handle(method).remote(value)) == value


def test_a_response_can_be_asked_repeatedly_and_from_several_loops(mesh: SmallMesh) -> None:
    """The value is fetched once (items 21, 22)."""
    response = mesh.handle().remote(5)

    async def ask() -> list[int]:
        return list(await asyncio.gather(*(value_of(response) for _ in range(5))))

    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.extend(asyncio.run(ask()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert results == [5] * 20
    assert result(response) == 5


def test_many_threads_and_loops_call_at_once(mesh: SmallMesh) -> None:
    """One handle serves all of them (items 15, 16)."""
    handle = mesh.handle()
    results: list[int] = []

    async def from_a_loop(start: int) -> None:
        results.extend(await asyncio.gather(*(value_of(handle.remote(start + n)) for n in range(100))))

    def from_a_thread(start: int) -> None:
        results.extend(result(handle.plain.remote(start + n)) for n in range(20))

    threads = [threading.Thread(target=asyncio.run, args=(from_a_loop(n * 1000),)) for n in range(3)]
    threads += [threading.Thread(target=from_a_thread, args=(10_000 + n * 1000,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    expected = [n * 1000 + i for n in range(3) for i in range(100)]
    expected += [10_000 + n * 1000 + i for n in range(3) for i in range(20)]
    assert sorted(results) == sorted(expected)


def test_result_refuses_to_block_a_loop(mesh: SmallMesh) -> None:
    """The response can still be awaited (item 23)."""
    response = mesh.handle().remote(1)

    async def ask() -> None:
        with pytest.raises(RuntimeError, match="Sync methods should not be called from within an `asyncio` event loop"):
            response.result()
        assert await response == 1

    asyncio.run(ask())


def test_a_result_that_is_late_can_still_be_had(mesh: SmallMesh, store: Store) -> None:
    """A timeout does not cancel the call (item 24)."""
    response = mesh.handle("block").remote()
    with pytest.raises(TimeoutError):
        response.result(timeout_s=0.01)
    store.gate.set()
    assert result(response) == "unblocked"


def test_polling_for_a_result_keeps_nothing(mesh: SmallMesh, store: Store) -> None:
    """A timeout leaves no waiter behind (item 24)."""
    response = mesh.handle("block").remote()
    for _ in range(100):
        with pytest.raises(TimeoutError):
            response.result(timeout_s=0)

    async def ask() -> None:
        asking = [asyncio.ensure_future(response._future.wait(is_shielded=True)) for _ in range(100)]
        await asyncio.sleep(0)
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    asyncio.run(ask())
    assert not response._future._waiters
    store.gate.set()
    assert result(response) == "unblocked"


def test_a_forked_process_hears_that_it_cannot_use_the_mesh(mesh: SmallMesh, store: Store) -> None:
    """Neither the I/O thread nor gRPC follows a fork: waiting for them would never end."""
    handle = mesh.handle()
    pending = mesh.handle("block").remote()
    attempts: list[Callable[[], Any]] = [
        handle.remote,
        lambda: DeploymentHandle[Any]("New", "shop").remote(),
        lambda: pending.result(timeout_s=DEADLINE_S),
        lambda: asyncio.run(_awaited(pending)),
        pending.cancel,
    ]
    child = os.fork()
    if child == 0:
        signal.alarm(int(DEADLINE_S))
        os._exit(sum(1 << number for number, attempt in enumerate(attempts) if not _is_refused_after_fork(attempt)))
    _, status = os.waitpid(child, 0)
    assert status == 0, "the attempts that hung (a signal) or went through (bits)"
    store.gate.set()
    assert result(pending) == "unblocked"
    assert result(handle.remote(7)) == 7


def _is_refused_after_fork(attempt: Callable[[], Any]) -> bool:
    try:
        attempt()
    except MeshException as error:
        return "was forked" in str(error)
    return False


async def _awaited(response: Any) -> Any:
    return await response


def test_options_make_new_handles_that_share_the_router(mesh: SmallMesh) -> None:
    """The original keeps its options (items 6, 8)."""
    handle = mesh.handle()
    other = handle.options(multiplexed_model_id="m", stream=True).some_method
    assert other._options.method_name == "some_method"
    assert other._options.multiplexed_model_id == "m"
    assert handle._options.multiplexed_model_id == ""
    assert other._router is handle._router
    assert other.request_counter == handle.request_counter


def test_init_comes_once_and_first() -> None:
    """A second `_init`, or one after a use, raises (item 17)."""
    handle: DeploymentHandle[Any] = DeploymentHandle("Store", "shop")
    with pytest.raises(RuntimeError, match="No event loop running"):
        handle._init(_run_router_in_separate_loop=False)
    handle._init(_prefer_local_routing=True)
    assert handle.options(method_name="plain")._options._prefer_local_routing
    with pytest.raises(RuntimeError, match="once"):
        handle._init()
    used: DeploymentHandle[Any] = DeploymentHandle("Store", "shop")
    used.options(stream=True)
    with pytest.raises(RuntimeError, match="before the first"):
        used._init()


def test_a_handle_says_where_it_is_used_and_what_its_init_chose() -> None:
    """In a replica, or anywhere else; `_init` works on handles that were given to someone (item 17, D3)."""
    handle = pickle.loads(pickle.dumps(DeploymentHandle[Any]("Store", "shop")))
    assert handle.init_options._source == DeploymentHandleSource.UNKNOWN
    handle._init(_prefer_local_routing=True)
    assert handle.init_options._prefer_local_routing
    with replica_context():
        assert handle.init_options._source == "REPLICA"


def test_the_request_counter_describes_its_metric() -> None:
    """Derived handles have the same one (items 8, 14, D4)."""
    handle: DeploymentHandle[Any] = DeploymentHandle("Store", "shop")
    derived = handle.options(method_name="plain")
    assert derived.request_counter is handle.request_counter
    assert handle.request_counter.info == {
        "name": "mesh_handle_requests_total",
        "description": "Calls that ended, by gRPC status code.",
        "tag_keys": ("application", "deployment", "method", "code"),
        "default_tags": {"application": "shop", "deployment": "Store"},
    }


def test_a_generator_that_is_called_like_a_function_says_what_to_do(mesh: SmallMesh) -> None:
    """The text is that of the original (item 28, D2)."""
    with pytest.raises(TypeError) as caught:
        mesh.handle("count").remote(1).result(timeout_s=DEADLINE_S)
    assert str(caught.value) == (
        "Method 'count' returned a generator. You must use `handle.options(stream=True)` to call generators on a "
        "deployment."
    )


@pytest.mark.parametrize(("is_stream", "name"), [(False, "DeploymentResponse"), (True, "DeploymentResponseGenerator")])
def test_a_response_cannot_be_pickled(mesh: SmallMesh, is_stream: bool, name: str) -> None:
    """The error says what to do, also for one inside of an argument (item 41, C13, D5)."""
    response = mesh.handle("count" if is_stream else "plain", stream=is_stream).remote(0)
    with pytest.raises(MeshException, match=f"`{name}` is not serializable. Pass it as a top-level argument"):
        mesh.handle("plain").remote([response])
    response.cancel()


def test_handles_can_be_pickled_with_their_options() -> None:
    """The copy connects by itself (item 11)."""
    handle: DeploymentHandle[Any] = DeploymentHandle("Store", "shop").options(method_name="plain")
    copy = pickle.loads(pickle.dumps(handle))
    assert (copy.deployment_name, copy.app_name, copy._options) == ("Store", "shop", handle._options)
    assert not copy.is_initialized
    assert repr(copy) == "DeploymentHandle(deployment='Store')"


def test_the_event_loop_of_the_wire_does_not_wait_for_a_response(mesh: SmallMesh, store: Store) -> None:
    """Async user code that is not isolated runs there: it gets an error instead of stopping the process."""
    response, stream = mesh.handle("hang").remote(), mesh.handle("count_when_open", stream=True).remote(0)

    async def wait() -> None:
        with pytest.raises(RuntimeError, match="never end"):
            response._to_object_ref_sync(_allow_running_in_asyncio_loop=True)
        with pytest.raises(RuntimeError, match="never end"):
            stream._future.next_item_blocking()

    on_io(wait())
    response.cancel()
    store.gate.set()
