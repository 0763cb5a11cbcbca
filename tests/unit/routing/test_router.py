"""The router over real links: queueing, models, snapshots and the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import grpc
import pytest

from mesh.context import REQUEST
from mesh.exceptions import (
    BackPressureError,
    CancelReason,
    DeadlineExceededError,
    DeploymentUnavailableError,
    DisconnectedError,
    ReplicaUnavailableError,
)
from mesh.link.frames import pack_welcome
from mesh.link.outgoing_call import CallRequest, CallState, OutgoingCall
from mesh.link.replica_facts import ReplicaFacts
from mesh.routing.endpoint import Endpoint
from mesh.routing.router import Router
from mesh.routing.snapshot import ReplicaInfo, Snapshot, read_snapshot
from mesh.routing.waiting.call_queue import PendingQueue
from mesh.settings import settings
from mesh.v1 import common_pb2, control_pb2
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import BackpressureAnswer, Outcome, Trailers, to_exception
from mesh.wire.payload import Payload, encode
from mesh.wire.request_context import RequestContext
from tests.unit.fakes.small_mesh import KEY, SmallMesh, do_on_io, mesh_of, on_io, until, until_async

DEADLINE_S = 10.0
CANCELLED = grpc.StatusCode.CANCELLED.value[0]
NEWER = 10**9
"""A snapshot version above those that a small mesh publishes."""
pytestmark = pytest.mark.timeout(60)


class Models:
    """Knows its models by itself; remembers who asked for which."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate = asyncio.Event()

    async def __call__(self, value: Any = None) -> str:
        request = REQUEST.get()
        assert request is not None
        self.asked.append(request.multiplexed_model_id)
        return request.multiplexed_model_id

    async def wait(self) -> None:
        await self()
        await self.gate.wait()


class Sink:
    """Counts how often a call ends."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def on_item(self, payload: Payload) -> None: ...

    def on_credit(self) -> None: ...

    def on_initial_metadata(self, entries: Trailers) -> None: ...

    def on_compression(self, encoding: str, *, skips_next: bool) -> None: ...

    def on_done(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


def call_of(sink: Sink, **options: Any) -> OutgoingCall:
    return OutgoingCall(CallRequest("__call__", encode(((), {})), RequestContext("id"), **options), sink)


def announce(mesh: SmallMesh, number: int, *models: str) -> None:
    replica = mesh.replicas[number]
    do_on_io(replica.servicer.announce_models, list(models))
    endpoint = mesh.router._pool._endpoints[replica.replica_id]
    until(lambda: endpoint.link is not None and endpoint.link.facts.model_ids == frozenset(models), "the announcement")


def test_calls_wait_in_order_until_a_replica_is_there() -> None:
    """A call is made at once, and sent when there is one (items 5, 164)."""
    with mesh_of(Models(), limit=1) as mesh:
        replica = mesh.replicas.pop()
        mesh.publish()
        responses = [mesh.handle(multiplexed_model_id=str(n)).remote() for n in range(50)]
        until(lambda: mesh.router.queued == 50, "all to be queued")
        mesh.replicas.append(replica)
        mesh.publish()
        assert [response.result(timeout_s=DEADLINE_S) for response in responses] == [str(n) for n in range(50)]
        assert replica.target.asked == [str(n) for n in range(50)]
        mesh.assert_idle()


def test_what_waits_fails_when_no_replica_will_come() -> None:
    with mesh_of() as mesh:
        waiting = mesh.handle().remote()
        mesh.publish(unavailable="its constructor failed")
        app, name = mesh.handle().deployment_id
        expected = f"Deployment '{name}' of application '{app}' is unavailable: its constructor failed"
        with pytest.raises(DeploymentUnavailableError, match=expected):
            waiting.result(timeout_s=DEADLINE_S)
        with pytest.raises(DeploymentUnavailableError):
            mesh.handle().remote().result(timeout_s=DEADLINE_S)


BUSY = "1 of 1 calls busy on 1 replica"


@pytest.fixture
def full() -> Iterator[SmallMesh]:
    """A mesh whose only place is taken."""
    with mesh_of(Models(), limit=1, queued_max=1) as mesh:
        holder = mesh.handle("wait").remote()
        until(lambda: mesh.replicas[0].target.asked, "the place to be taken")
        yield mesh
        mesh.replicas[0].user_loop.post(mesh.replicas[0].target.gate.set)
        holder.result(timeout_s=DEADLINE_S)
        mesh.assert_idle()


def test_a_deadline_in_the_queue_says_what_the_call_waited_for(full: SmallMesh) -> None:
    """How long, and how busy the replicas are (item 162)."""
    with pytest.raises(DeadlineExceededError, match=rf"waited \d\.\d s for a free place of {KEY}: {BUSY}; raise max_"):
        full.handle(timeout_s=1.0).remote().result(timeout_s=DEADLINE_S)


def test_a_queued_call_is_answered_before_its_deadline(full: SmallMesh) -> None:
    """At the deadline itself a gRPC client has given up and takes no answer."""
    deadline_at_s = time.monotonic() + 10.0
    call = call_of(Sink(), deadline_at_s=deadline_at_s)
    do_on_io(full.router.submit, call)
    assert call.timer is not None
    assert deadline_at_s - 0.03 < call.timer.when() < deadline_at_s - 0.01
    do_on_io(full.router.cancel, call, CancelReason.CLIENT)


def test_a_call_that_runs_has_all_its_time(full: SmallMesh) -> None:
    with mesh_of(Models()) as mesh:
        began_s = time.monotonic()
        with pytest.raises(DeadlineExceededError, match="Allow more time"):
            mesh.handle("wait", timeout_s=0.1).remote().result(timeout_s=DEADLINE_S)
        assert time.monotonic() - began_s >= 0.1


def test_a_call_that_was_sent_late_says_that_it_waited() -> None:
    with mesh_of(Models(), limit=1) as mesh:
        holder = mesh.handle("wait", timeout_s=0.6).remote()
        until(lambda: mesh.replicas[0].target.asked, "the place to be taken")
        late = mesh.handle("wait", timeout_s=1.0).remote()
        for response, why in ((holder, "Allow more time"), (late, r"waited \d\.\d of \d\.\d s for a free place")):
            with pytest.raises(DeadlineExceededError, match=why):
                response.result(timeout_s=DEADLINE_S)
        mesh.assert_idle()


def test_the_wait_for_arguments_is_no_wait_for_a_place(full: SmallMesh) -> None:
    with mesh_of(Models()) as other:
        argument = other.handle("wait").remote()
        until(lambda: other.replicas[0].target.asked, "the argument's call to run")
        with pytest.raises(DeadlineExceededError, match="Allow more time"):
            full.handle(timeout_s=0.1).remote(argument).result(timeout_s=DEADLINE_S)
        argument.cancel()


def test_a_caller_that_stops_waiting_learns_what_the_call_waits_for(full: SmallMesh) -> None:
    queued = full.handle().remote()
    until(lambda: full.router.queued, "the call to be queued")
    with pytest.raises(TimeoutError, match=f"No result within 0.01 s: it waited .* s for a free place .*{BUSY}"):
        queued.result(timeout_s=0.01)
    queued.cancel()


def test_back_pressure_says_how_busy_the_replicas_are(full: SmallMesh) -> None:
    queued = full.handle().remote()
    with pytest.raises(BackPressureError, match=rf"max_queued_requests=1\): {BUSY}\. Retry later"):
        full.handle().remote().result(timeout_s=DEADLINE_S)
    queued.cancel()


def test_the_queue_of_a_router_without_a_snapshot_has_a_limit_as_soon_as_it_has_one() -> None:
    """The first calls of a process meet it: those that its replicas take and that may wait stay (item 168)."""
    with mesh_of(Models(), limit=2, queued_max=1) as mesh:
        snapshot = mesh.router.listing.snapshot
        assert snapshot is not None
        unreachable = replace(snapshot.replicas[0], replica_id="unreachable", address="127.0.0.1:9")
        fresh = do_on_io(Router, KEY, mesh.router._pool.identity)
        sinks = [Sink() for _ in range(6)]
        for sink in sinks:
            do_on_io(fresh.submit, call_of(sink))
        assert fresh.queued == 6
        do_on_io(fresh.update, replace(snapshot, replicas=(unreachable,)))
        assert fresh.queued == 3
        assert [type(to_exception(each)) for sink in sinks[3:] for each in sink.outcomes] == [BackPressureError] * 3
        late = Sink()
        do_on_io(fresh.submit, call_of(late))
        assert [type(to_exception(each)) for each in late.outcomes] == [BackPressureError]
        on_io(fresh.close())


def test_models_are_asked_for_where_they_are() -> None:
    """A replica that holds the model gets the call (items 125, 176)."""
    with mesh_of(Models(), Models(), Models()) as mesh:
        for number, model in enumerate("abc"):
            announce(mesh, number, model)
        for model in "abcabcabc":
            mesh.handle(multiplexed_model_id=model).remote().result(timeout_s=DEADLINE_S)
        assert [replica.target.asked for replica in mesh.replicas] == [["a"] * 3, ["b"] * 3, ["c"] * 3]


def test_a_new_model_goes_where_the_fewest_are_and_stays_there() -> None:
    """A free replica with the fewest models (items 125, 177)."""
    with mesh_of(Models(), Models()) as mesh:
        announce(mesh, 0, "a", "b")
        responses = [mesh.handle(multiplexed_model_id="new").remote() for _ in range(10)]
        assert [response.result(timeout_s=DEADLINE_S) for response in responses] == ["new"] * 10
        assert mesh.replicas[1].target.asked == ["new"] * 10


def test_a_hot_model_spreads_and_others_pass_what_waits_for_it() -> None:
    """A model is not bound to one replica, and a call that waits for it holds up no other one (items 178, 179)."""
    with mesh_of(Models(), Models(), limit=1) as mesh:
        announce(mesh, 0, "hot")
        first = mesh.handle("wait", multiplexed_model_id="hot").remote()
        until(lambda: mesh.replicas[0].ongoing == 1, "the holder to be full")
        waiting_for_model = mesh.handle(multiplexed_model_id="hot").remote()
        until(lambda: mesh.router.queued == 1, "the second to hold out")
        # The other replica is free: a call without a model need not wait behind the one that holds out.
        passed = mesh.handle().remote()
        assert passed.result(timeout_s=settings().routing.multiplex_spill_delay_s * 100) == ""
        assert waiting_for_model.result(timeout_s=DEADLINE_S) == "hot"
        assert mesh.replicas[1].target.asked == ["", "hot"]
        mesh.replicas[0].user_loop.post(mesh.replicas[0].target.gate.set)
        first.result(timeout_s=DEADLINE_S)
        mesh.assert_idle()


def test_a_model_comes_to_as_many_replicas_as_its_loader_says_and_stays_on_them() -> None:
    """The first calls make the copies; later ones share them, and a copy that is lost is made again."""
    with copies_min(2), mesh_of(Models(), Models(), Models()) as mesh:
        for _ in range(12):
            mesh.handle(multiplexed_model_id="a").remote().result(timeout_s=DEADLINE_S)
        asked = [len(replica.target.asked) for replica in mesh.replicas]
        assert sorted(count > 0 for count in asked) == [False, True, True]
        lost = max(mesh.replicas, key=lambda replica: len(replica.target.asked))
        lost.close()
        mesh.replicas.remove(lost)
        mesh.publish()
        for _ in range(12):
            mesh.handle(multiplexed_model_id="a").remote().result(timeout_s=DEADLINE_S)
        assert all(replica.target.asked for replica in mesh.replicas)


def test_fewer_replicas_than_copies_are_enough() -> None:
    with copies_min(5), mesh_of(Models()) as mesh:
        for _ in range(3):
            assert mesh.handle(multiplexed_model_id="a").remote().result(timeout_s=DEADLINE_S) == "a"


@contextmanager
def copies_min(count: int) -> Iterator[None]:
    """Replicas of this test want as many copies of each model."""

    def welcome(ongoing: int, facts: ReplicaFacts) -> bytes:
        return pack_welcome(ongoing, replace(facts, copies_min=count))

    with patch("mesh.link.frames.pack_welcome", welcome):
        yield


def test_models_without_an_announcement_take_bounded_memory() -> None:
    endpoint = Endpoint(ReplicaInfo("r", "a"), 5)
    for number in range(1000):
        endpoint.expect_model(str(number))
    assert len(endpoint.expected_models) <= 64
    assert endpoint.holds("999")
    assert not endpoint.holds("0")


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
        router._queue.remove(call)
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
            taken = mesh.router._queue.drain()
            for call in taken:
                call.state = CallState.SENT
            taken_out.clear()
            mesh.router.on_broken(Link(), "gone", taken[::2], taken[1::2])  # type: ignore[arg-type]
            assert len(taken_out) <= 1, "only to look whether the oldest can be sent"
            return mesh.router._queue.drain()

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
