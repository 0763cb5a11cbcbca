"""Calls that wait in the queue of a router, over real links: their order, their deadlines, and what they say."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mesh.exceptions import BackPressureError, CancelReason, DeadlineExceededError, DeploymentUnavailableError
from mesh.routing.router import Router
from mesh.wire.outcome import to_exception
from tests.unit.fakes.small_mesh import KEY, SmallMesh, do_on_io, mesh_of, on_io, until
from tests.unit.routing.router_calls import Models, Sink, call_of

DEADLINE_S = 30.0
pytestmark = pytest.mark.timeout(60)


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
    assert deadline_at_s - 5 < call.timer.when() < deadline_at_s - 0.01
    do_on_io(full.router.cancel, call, CancelReason.CLIENT)


def test_a_call_that_runs_has_all_its_time(full: SmallMesh) -> None:
    with mesh_of(Models()) as mesh:
        began_s = time.monotonic()
        with pytest.raises(DeadlineExceededError, match="Allow more time"):
            mesh.handle("wait", timeout_s=0.1).remote().result(timeout_s=DEADLINE_S)
        assert time.monotonic() - began_s >= 0.1


def test_a_call_that_was_sent_late_says_that_it_waited() -> None:
    with mesh_of(Models(), limit=1) as mesh:
        holder = mesh.handle("wait", timeout_s=1.0).remote()
        until(lambda: mesh.replicas[0].target.asked, "the place to be taken")
        late = mesh.handle("wait", timeout_s=1.9).remote()
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
        fresh = do_on_io(Router, KEY, mesh.identity)
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
