"""Broadcasts whose replicas the caller does not know yet: their deadline, and how they are cancelled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mesh.caller.broadcast import BroadcastResponse
from mesh.caller.call_start import begin_broadcast
from mesh.caller.handle_options import HandleOptions
from mesh.context import REQUEST, Request
from mesh.exceptions import CancelReason, DeadlineExceededError, RequestCancelledError
from mesh.routing.link_pool import CallerIdentity
from mesh.routing.router import Router
from mesh.routing.snapshot import Snapshot
from tests.unit.fakes.small_mesh import KEY, do_on_io

pytestmark = pytest.mark.timeout(60)
WAIT_S = 30.0


@pytest.fixture
def router() -> Iterator[Router]:
    """One that has no snapshot."""
    router = do_on_io(Router, KEY, CallerIdentity("process", "node", "", b""))
    yield router
    assert not router.listing._waiting
    do_on_io(router.listing.close)


def broadcast(router: Router, parent: Request | None = None, **options: Any) -> BroadcastResponse:
    token = REQUEST.set(parent)
    try:
        return begin_broadcast(KEY, router, HandleOptions(method_name="m", **options), (1,), {})
    finally:
        REQUEST.reset(token)


@pytest.mark.parametrize("timeout_s", [0.05, 1e-9])
def test_a_broadcast_that_cannot_begin_ends_at_its_deadline(router: Router, timeout_s: float) -> None:
    with pytest.raises(DeadlineExceededError):
        broadcast(router, timeout_s=timeout_s).results(timeout_s=WAIT_S)


def test_the_deadline_of_the_request_that_makes_it_counts(router: Router) -> None:
    parent = Request(deadline_at_s=time.monotonic() + 0.05)

    async def wait() -> Any:
        return await broadcast(router, parent).results_async(timeout_s=WAIT_S)

    with pytest.raises(DeadlineExceededError):
        asyncio.run(wait())
    assert not parent.children


@pytest.mark.parametrize("is_cancelled_before", [False, True])
def test_it_is_cancelled_with_the_request_that_makes_it(router: Router, is_cancelled_before: bool) -> None:
    parent = Request()
    if is_cancelled_before:
        parent.cancel(CancelReason.CLIENT)
    response = broadcast(router, parent)
    if not is_cancelled_before:
        parent.cancel(CancelReason.CLIENT)
    with pytest.raises(RequestCancelledError) as caught:
        response.results(timeout_s=WAIT_S)
    assert caught.value.reason is CancelReason.PARENT
    assert not parent.children


def test_its_caller_may_cancel_it(router: Router) -> None:
    """Like any call (C1)."""
    response = broadcast(router)
    assert repr(response) == f"<BroadcastResponse of {KEY}, waiting for replicas: ask for its results()>"
    response.cancel()
    with pytest.raises(RequestCancelledError) as caught:
        response.results(timeout_s=WAIT_S)
    assert caught.value.reason is CancelReason.CLIENT


def test_it_begins_with_the_first_snapshot_and_leaves_nothing_at_its_parent(router: Router) -> None:
    parent = Request()
    response = broadcast(router, parent, timeout_s=WAIT_S)
    do_on_io(router.update, Snapshot(KEY, 1))
    assert response.results(timeout_s=WAIT_S) == []
    assert not parent.children
    assert response._timer is not None
    assert response._timer.cancelled()
