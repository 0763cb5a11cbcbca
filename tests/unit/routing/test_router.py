"""The router over real links: calls that fail and come back, snapshots and the end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from mesh.exceptions import CancelReason, DisconnectedError, ReplicaUnavailableError
from mesh.link.outgoing_call import CallState, OutgoingCall
from mesh.routing.router import Router
from mesh.routing.snapshot import ReplicaInfo, Snapshot, read_snapshot
from mesh.routing.waiting.call_queue import PendingQueue
from mesh.settings import settings
from mesh.v1 import common_pb2, control_pb2
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import BackpressureAnswer, to_exception
from tests.unit.fakes.small_mesh import KEY, do_on_io, mesh_of, on_io, until, until_async
from tests.unit.routing.router_calls import Models, Sink, call_of

DEADLINE_S = 30.0
CANCELLED = grpc.StatusCode.CANCELLED.value[0]
NEWER = 10**9
"""A snapshot version above those that a small mesh publishes."""
pytestmark = pytest.mark.timeout(60)


def test_a_call_that_was_cancelled_before_it_came_is_not_sent() -> None:
    with mesh_of(Models()) as mesh:
        sink = Sink()
        call = call_of(sink)
        do_on_io(mesh.router.cancel, call, CancelReason.CLIENT)
        do_on_io(mesh.router.submit, call)
        mesh.assert_idle()
        assert [outcome.code for outcome in sink.outcomes] == [CANCELLED]
        assert mesh.replicas[0].target.asked == []


def test_a_closed_router_fails_calls_immediately() -> None:
    with mesh_of(Models()) as mesh:
        on_io(mesh.router.close())
        sink = Sink()
        do_on_io(mesh.router.submit, call_of(sink))
        assert isinstance(to_exception(sink.outcomes[0]), DisconnectedError)


def test_a_call_that_waits_when_its_router_closes_fails_a_task_group() -> None:
    """A cancellation, with which the call ended before, ended the group without an error and without a result."""
    with mesh_of(Models(), limit=1) as mesh:
        mesh.handle("wait").remote()
        until(lambda: mesh.replicas[0].target.asked, "the place to be taken")

        async def call() -> None:
            await mesh.handle().remote()

        async def in_group() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(call())
                await until_async(lambda: mesh.router.queued, "the call to wait")
                io_thread().submit(mesh.router.close())

        with pytest.raises(ExceptionGroup) as caught:
            asyncio.run(in_group())
        (error,) = caught.value.exceptions
        assert isinstance(error, DisconnectedError)
        assert error.code is grpc.StatusCode.UNAVAILABLE
        assert error.is_retry_safe
        assert "Make the call again" in str(error)


@dataclass
class RejectingLink:
    is_draining: bool
    replica_id: str = "r7"


def rejections(router: Router, call: OutgoingCall, link: Any) -> int:
    """How often a link rejects the call until the router gives it up; 100 if it does not."""
    for count in range(100):
        if call.state is CallState.DONE:
            return count
        router.queue.remove(call)
        call.state = CallState.SENT
        router.on_reject(link, call)
    return 100


def test_a_call_that_replicas_keep_refusing_is_given_up() -> None:
    """Every attempt meets a draining replica that comes back under the same snapshot."""
    with mesh_of() as mesh:
        sink = Sink()
        count = do_on_io(rejections, mesh.router, call_of(sink), RejectingLink(is_draining=True))
        assert count == settings().routing.retry_attempts_max
        error = to_exception(sink.outcomes[0])
        assert isinstance(error, ReplicaUnavailableError)
        assert error.replica_id == "r7"
        assert "it refuses calls (attempt 16, the last one)" in str(error)
        assert error.is_retry_safe, "no replica has run it"


def test_rejections_of_full_replicas_are_no_failures() -> None:
    with mesh_of() as mesh:
        assert do_on_io(rejections, mesh.router, call_of(Sink()), RejectingLink(is_draining=False)) == 100


def test_a_call_that_is_refused_after_its_cancel_stays_cancelled() -> None:
    """The refusal was on its way: the call has ended and is not queued again (item 35)."""
    with mesh_of(Models()) as mesh:
        sink = Sink()
        call = call_of(sink)

        def cancelled_and_refused() -> int:
            mesh.router.submit(call)
            link = call.link
            assert link is not None
            mesh.router.cancel(call, CancelReason.CLIENT)
            mesh.router.on_reject(link, call)  # type: ignore[arg-type]
            return mesh.router.queued

        assert do_on_io(cancelled_and_refused) == 0
        mesh.assert_idle()
        assert [outcome.code for outcome in sink.outcomes] == [CANCELLED]


def test_many_calls_of_a_broken_link_come_back_in_order_and_in_one_step_each(monkeypatch: pytest.MonkeyPatch) -> None:
    taken_out: list[OutgoingCall] = []
    pop = PendingQueue.pop

    def counted(queue: PendingQueue) -> OutgoingCall:
        taken_out.append(pop(queue))
        return taken_out[-1]

    monkeypatch.setattr(PendingQueue, "pop", counted)
    with mesh_of() as mesh:
        calls = [call_of(Sink(), is_idempotent=True) for _ in range(20_000)]
        for call in calls:
            io_thread().post(mesh.router.submit, call)
        until(lambda: mesh.router.queued == 20_000, "all to be queued")

        class Link:
            replica_id = "r"
            is_draining = False

        async def give_back() -> list[OutgoingCall]:
            taken = mesh.router.queue.drain()
            for call in taken:
                call.state = CallState.SENT
            taken_out.clear()
            mesh.router.on_broken(Link(), "gone", taken[::2], taken[1::2])  # type: ignore[arg-type]
            assert len(taken_out) <= 1, "only to look whether the oldest can be sent"
            return mesh.router.queue.drain()

        assert on_io(give_back()) == calls


def test_a_replica_that_leaves_finishes_its_calls_and_one_that_was_lost_does_not() -> None:
    """The controller may know that a host has vanished before the connection shows it."""
    with mesh_of(Models()) as mesh:
        (replica,) = mesh.replicas
        call = mesh.handle("wait").remote()
        until(lambda: replica.ongoing == 1, "the call to run")
        mesh.replicas.remove(replica)
        mesh.publish()
        with pytest.raises(TimeoutError):
            call.result(timeout_s=0.1)
        mesh.publish(lost=frozenset({replica.replica_id}))
        with pytest.raises(ReplicaUnavailableError, match=f"{replica.replica_id}.*its process or its node is gone"):
            call.result(timeout_s=DEADLINE_S)
        replica.close()


def test_snapshots_are_read_from_the_wire() -> None:
    replica = control_pb2.ReplicaInfo(replica_id="r", address="a:1", node_id="n", zone="z")
    message = control_pb2.DeploymentSnapshot(
        deployment=common_pb2.DeploymentId(app="shop", name="Store"),
        version=4,
        replicas=[replica],
        max_ongoing_requests=7,
        max_queued_requests=9,
        queue_timeout_s=2.5,
        unavailable="why",
        backpressure=common_pb2.BackpressureAnswer(status_code=429, retry_after_s=0.5),
    )
    replicas = (ReplicaInfo("r", "a:1", "n", "z"),)
    answer = BackpressureAnswer(429, 0.5)
    assert read_snapshot(message) == Snapshot(KEY, 4, replicas, 7, 9, "why", queue_timeout_s=2.5, backpressure=answer)


def test_calls_that_find_no_replica_are_reported_immediately() -> None:
    """When the first begins to wait, and when the last replica goes while calls wait (item 231)."""
    reported: list[int] = []
    with mesh_of(Models(), on_no_replica=lambda router: reported.append(router.queued)) as mesh:
        replicas, mesh.replicas = mesh.replicas, []
        mesh.publish()
        assert reported == []
        do_on_io(mesh.router.submit, call_of(Sink()))
        do_on_io(mesh.router.submit, call_of(Sink()))
        assert reported == [1]
        mesh.publish()
        assert reported == [1, 2]
        mesh.replicas = replicas
        mesh.publish()
        mesh.assert_idle()
        assert reported == [1, 2]


def test_a_router_reads_its_load_only_where_the_controller_wants_it() -> None:
    with mesh_of(Models(), limit=2) as mesh:
        calls = [mesh.handle("wait").remote() for _ in range(5)]
        until(lambda: (mesh.router.queued, mesh.router.ongoing) == (3, 2), "calls to wait")
        assert mesh.router.reading().interval_s == 0
        replicas = tuple(replica.info for replica in mesh.replicas)
        do_on_io(mesh.router.update, Snapshot(KEY, NEWER, replicas, 2, load_interval_s=10.0))
        reading = mesh.router.reading()
        assert (reading.deployment, reading.queued, reading.ongoing, reading.interval_s) == (KEY, 3, 2, 10.0)
        for call in calls:
            call.cancel()
        mesh.assert_idle()


def test_a_deployment_that_starts_on_demand_can_serve_without_replicas() -> None:
    """A gateway that called itself unhealthy would get no call that starts one (item 201)."""
    with mesh_of(Models()) as mesh:
        assert mesh.router.can_serve
        for snapshot, can_serve in (
            (Snapshot(KEY, NEWER), False),
            (Snapshot(KEY, NEWER + 1, starts_on_demand=True), True),
            (Snapshot(KEY, NEWER + 2, starts_on_demand=True, unavailable="its constructor fails"), False),
        ):
            do_on_io(mesh.router.update, snapshot)
            assert mesh.router.can_serve is can_serve
            assert not mesh.router.has_replicas
