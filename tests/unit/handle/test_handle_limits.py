"""Handles over real links: limits, and the end of a mesh."""

from typing import Any

import pytest

from mesh.exceptions import (
    BackPressureError,
    DisconnectedError,
    MeshException,
    RequestCancelledError,
)
from tests.unit.fakes.small_mesh import mesh_of, on_io, until
from tests.unit.handle.store import Store, raised, result

pytestmark = pytest.mark.timeout(60)


def test_a_full_queue_drops_calls() -> None:
    with mesh_of(Store(), limit=1, queued_max=1) as mesh:
        store: Any = mesh.replicas[0].target
        running, queued = mesh.handle("block").remote(), mesh.handle("block").remote()
        error = raised(mesh.handle("block").remote())
        assert isinstance(error, BackPressureError)
        store.gate.set()
        assert [result(running), result(queued)] == ["unblocked"] * 2
        mesh.assert_idle()


def test_queued_calls_that_are_cancelled_never_reach_a_replica() -> None:
    """User code never sees them (item 35)."""
    with mesh_of(Store(), limit=1) as mesh:
        store: Any = mesh.replicas[0].target
        running = mesh.handle("block").remote()
        queued = [mesh.handle("hang").remote() for _ in range(20)]
        until(lambda: store.started == 1, "the first call to run")
        for response in queued:
            response.cancel()
        for response in queued:
            assert isinstance(raised(response), RequestCancelledError)
        store.gate.set()
        assert result(running) == "unblocked"
        mesh.assert_idle()
        assert store.started == 1


def test_a_thread_call_that_waits_for_its_thread_can_be_cancelled() -> None:
    with mesh_of(Store(), limit=3) as mesh:
        replica = mesh.replicas[0]
        replica.user_loop.threads._max_workers = 1
        store: Any = replica.target
        running, waiting = mesh.handle("block").remote(), mesh.handle("block").remote()
        until(lambda: replica.ongoing == 2 and store.started == 1, "one call to run and one to wait")
        waiting.cancel()
        until(lambda: replica.ongoing == 1, "the place of the cancelled call")
        store.gate.set()
        assert result(running) == "unblocked"
        mesh.assert_idle()
        assert store.started == 1


def test_a_handle_that_was_shut_down_fails_what_waits() -> None:
    with mesh_of(Store(), limit=1) as mesh:
        store: Any = mesh.replicas[0].target
        running, queued = mesh.handle("hang").remote(), mesh.handle().remote(1)
        until(lambda: store.started == 1, "the first call to run")
        on_io(mesh.router.close())
        assert isinstance(raised(queued), DisconnectedError)
        assert isinstance(raised(running), MeshException)
        until(lambda: store.cancelled == 1, "the call of the closed link to be cancelled")


def test_user_code_that_blocks_its_loop_delays_no_other_call() -> None:
    with mesh_of(Store(), limit=10) as mesh:
        store: Any = mesh.replicas[0].target
        blocked = mesh.handle("block_the_loop").remote()
        until(lambda: store.started == 1, "the loop to be blocked")
        waiting = mesh.handle().remote("async")
        assert result(mesh.handle("plain").remote("thread")) == "thread"
        waiting.cancel()
        assert isinstance(raised(waiting), RequestCancelledError)
        assert blocked._future.outcome is None
        store.gate.set()
        assert result(blocked) == "unblocked"
        mesh.assert_idle()
