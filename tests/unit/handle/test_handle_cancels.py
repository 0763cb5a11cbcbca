"""Handles over real links: cancels reach the user's code."""

import asyncio
import threading
import time
from typing import Any

import pytest

from mesh.context import REQUEST, Request, outlive_request
from mesh.exceptions import (
    CancelReason,
    DeadlineExceededError,
    RequestCancelledError,
)
from mesh.wire.request_context import RequestContext
from tests.unit.fakes.small_mesh import SmallMesh, mesh_of, on_io, until, until_async
from tests.unit.handle.store import DEADLINE_S, Store, raised, result, value_of

pytestmark = pytest.mark.timeout(60)


def test_a_cancel_reaches_the_users_code_and_the_caller(mesh: SmallMesh, store: Store) -> None:
    """Cancelling twice is cancelling once (item 36)."""
    response = mesh.handle("hang").remote()
    until(lambda: store.started, "the call to run")
    response.cancel()
    response.cancel()
    assert isinstance(raised(response), RequestCancelledError)
    until(lambda: store.cancelled == 1, "the user's code to see it")


def waiters(response: Any) -> int:
    """A task that is cancelled before its first step has never waited, and gives nothing up."""
    return len(response._future._waiters or ())


def test_a_cancelled_waiter_gives_up_its_call(mesh: SmallMesh, store: Store) -> None:
    response = mesh.handle("hang").remote()

    async def wait() -> None:
        waiting = asyncio.create_task(value_of(response))
        await until_async(lambda: store.started and waiters(response) == 1, "the call to run, and the task to wait")
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()

    asyncio.run(wait())
    until(lambda: store.cancelled == 1, "the user's code to see it")


def test_a_cancelled_waiter_leaves_the_call_to_the_others(mesh: SmallMesh, store: Store) -> None:
    """The last one that waits, in a task or in a thread, gives it up (item 21)."""
    response = mesh.handle("hang").remote()
    blocked = threading.Thread(target=raised, args=(response,))

    async def wait() -> None:
        waiting = [asyncio.create_task(value_of(response)) for _ in range(3)]
        await until_async(lambda: store.started and waiters(response) == 3, "the call to run, and the tasks to wait")
        for each in waiting[:2]:
            each.cancel()
        await asyncio.wait(waiting[:2])
        assert await mesh.handle().remote(1) == 1  # what they may have sent has arrived before this
        assert not store.cancelled
        blocked.start()
        await until_async(lambda: waiters(response) == 2, "the thread to wait")
        waiting[2].cancel()
        await asyncio.wait(waiting)
        assert await mesh.handle().remote(2) == 2
        assert not store.cancelled

    asyncio.run(wait())
    response.cancel()
    blocked.join(DEADLINE_S)
    assert not blocked.is_alive()


def test_the_last_of_several_cancelled_waiters_gives_up_the_call(mesh: SmallMesh, store: Store) -> None:
    """As at the end of `asyncio.run` (item 21)."""
    response = mesh.handle("hang").remote()
    tasks: list[asyncio.Task[Any]] = []

    async def wait() -> None:
        tasks.extend(asyncio.create_task(value_of(response)) for _ in range(3))
        await until_async(lambda: store.started and waiters(response) == 3, "the call to run, and the tasks to wait")

    asyncio.run(wait())
    assert all(each.cancelled() for each in tasks)
    until(lambda: store.cancelled == 1, "the user's code to see it")


def test_a_cancelled_request_leaves_calls_that_it_has_not_made(mesh: SmallMesh, store: Store) -> None:
    """A response that the constructor has asked for is for all requests, and so are its items (item 38)."""
    early, stream = mesh.handle("hang").remote(), mesh.handle("hang", stream=True).remote()

    async def serve() -> None:
        REQUEST.set(Request())
        for waiting in (asyncio.ensure_future(value_of(early)), asyncio.ensure_future(anext(stream))):
            await until_async(lambda: store.started == 2, "both calls to run")
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()
        assert await mesh.handle().remote(1) == 1  # what they may have sent has arrived before this
        assert not store.cancelled

    asyncio.run(serve())
    early.cancel()
    stream.cancel()
    until(lambda: store.cancelled == 2, "the end of both")


def test_a_cancel_after_the_end_changes_nothing(mesh: SmallMesh) -> None:
    """The value stays, and `cancelled()` is true (item 39)."""
    response = mesh.handle().remote(3)
    assert result(response) == 3
    response.cancel()
    assert result(response) == 3
    assert response.cancelled()


def test_a_cancel_that_overtakes_the_submission_ends_the_call_once(mesh: SmallMesh, store: Store) -> None:
    """On the I/O thread a cancel acts immediately, while the call is still in the mailbox."""
    made = threading.Event()
    responses: list[Any] = []

    def call() -> None:
        responses.append(mesh.handle("hang").remote())
        made.set()

    async def cancel_first() -> None:
        caller = threading.Thread(target=call)
        caller.start()
        assert made.wait(DEADLINE_S)  # the I/O loop stands still meanwhile
        responses[0].cancel()

    on_io(cancel_first())
    assert isinstance(raised(responses[0]), RequestCancelledError)
    mesh.assert_idle()
    assert store.started == 0


def test_children_are_cancelled_with_their_request_and_forgotten(mesh: SmallMesh, store: Store) -> None:
    """Children that have ended are forgotten too (item 38)."""
    parent = Request(RequestContext("parent"))
    token = REQUEST.set(parent)
    try:
        hanging = [mesh.handle("hang").remote() for _ in range(3)]
        assert result(mesh.handle().remote(1)) == 1
    finally:
        REQUEST.reset(token)
    until(lambda: store.started == 3, "the calls to run")
    assert len(parent.children) == 3
    parent.cancel(CancelReason.CLIENT)
    for response in hanging:
        assert isinstance(raised(response), RequestCancelledError)
    assert not parent.children
    assert hanging[0].request_id == "parent"


def test_a_child_of_a_cancelled_request_is_cancelled_at_once(mesh: SmallMesh) -> None:
    parent = Request()
    parent.cancel(CancelReason.CLIENT)
    token = REQUEST.set(parent)
    try:
        assert isinstance(raised(mesh.handle("hang").remote()), RequestCancelledError)
    finally:
        REQUEST.reset(token)


def test_blocked_async_code_delays_no_cancel_of_code_in_threads() -> None:
    """A generator that waits for credit ends, and so do the calls that a method has made."""
    with mesh_of(Store()) as mesh:
        store: Any = mesh.replicas[0].target
        store.peer = mesh.handle()
        stream = mesh.handle("count_plain", stream=True).remote(1_000_000)
        assert next(stream) == 0
        waiting = mesh.handle("wait_for_hang").remote()
        until(lambda: store.started == 1, "the child call to run")
        blocked = mesh.handle("block_the_loop").remote()
        until(lambda: store.started == 2, "the loop to be blocked")
        stream.cancel()
        until(lambda: store.closed == 1, "the generator to be closed")
        waiting.cancel()
        until(lambda: store.children_ended == 1, "the child call to be cancelled")
        assert not store.gate.is_set()
        store.gate.set()
        assert result(blocked) == "unblocked"
        mesh.assert_idle()


@pytest.mark.parametrize("outlives", [False, True])
def test_background_work_of_a_request_may_outlive_it(mesh: SmallMesh, store: Store, outlives: bool) -> None:
    """It keeps the request id and is free of deadline and cancel (item 13)."""
    ids: list[str] = []

    async def work(ended: asyncio.Event) -> Any:
        if outlives:
            outlive_request()
        await ended.wait()
        response = mesh.handle().remote(7)
        ids.append(response.request_id)
        return await response

    async def serve() -> Any:
        request, ended = Request(RequestContext("request-1"), time.monotonic() - 1.0), asyncio.Event()
        REQUEST.set(request)
        background = asyncio.create_task(work(ended))
        await asyncio.sleep(0)
        request.cancel(CancelReason.DEADLINE)
        ended.set()
        return await background

    if outlives:
        assert asyncio.run(serve()) == 7
    else:
        with pytest.raises((RequestCancelledError, DeadlineExceededError)):
            asyncio.run(serve())
    assert ids == ["request-1"]
