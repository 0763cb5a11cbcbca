"""A deployment's own request router over real links: it chooses, and whatever it does wrong costs no call."""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from mesh.exceptions import BackPressureError, RequestCancelledError
from mesh.request_router import RunningReplica
from mesh.routing.choice.traffic_split import TrafficRule
from mesh.routing.custom.router_thread import HostedRouter
from mesh.settings import settings
from tests.unit.fakes import request_routers
from tests.unit.fakes.small_mesh import SmallMesh, do_on_io, until
from tests.unit.routing.routed_mesh import DEADLINE_S, by_shard, publish, result, routed_by

pytestmark = pytest.mark.timeout(60)


def test_the_class_chooses_by_what_the_call_says() -> None:
    """It reads arguments, and hears which replica got the call (items 171, 172, 173)."""
    request_routers.ROUTED.clear()
    with routed_by("ByShard") as mesh:
        responses = [mesh.handle("who").remote(number) for number in range(30)]
        assert [result(each) for each in responses] == by_shard(mesh) * 10
        until(lambda: len(request_routers.ROUTED) == 30, "the router to hear of all calls")
        ids = sorted(each.replica_id for each in mesh.replicas)
        assert sorted(request_routers.ROUTED) == [(number, ids[number % 3]) for number in range(30)]


def test_another_router_takes_over_without_a_restart() -> None:
    """Its arguments are those of the configuration (item 173)."""
    with routed_by("ByShard") as mesh:
        assert result(mesh.handle("who").remote(0)) == by_shard(mesh)[0]
        publish(mesh, "ByShard", '{"offset": 1}')
        assert result(mesh.handle("who").remote(0)) == by_shard(mesh)[1]
        publish(mesh, None)
        assert {result(mesh.handle("who").remote(0)) for _ in range(50)} == set(by_shard(mesh))


def test_a_call_waits_for_the_replica_that_was_chosen_while_others_are_free() -> None:
    """And calls for the others pass it (item 172)."""
    with routed_by("ByShard", limit=1) as mesh:
        held = mesh.handle("hold").remote(0)
        shard = next(each.target for each in mesh.replicas if id(each.target) == by_shard(mesh)[0])
        until(lambda: shard.started, "the first call to run")
        waiting = [mesh.handle("who").remote(0) for _ in range(3)]
        assert result(mesh.handle("who").remote(1)) == by_shard(mesh)[1]
        assert mesh.router.queued == 3
        waiting[0].cancel()
        with pytest.raises(RequestCancelledError):
            result(waiting[0])
        shard.gate.set()
        assert [result(each) for each in (held, *waiting[1:])] == [by_shard(mesh)[0]] * 3


def test_a_chosen_replica_that_goes_is_replaced_by_another_choice() -> None:
    with routed_by("ByShard", limit=1) as mesh:
        mesh.handle("hold").remote(0)
        shard = next(each for each in mesh.replicas if id(each.target) == by_shard(mesh)[0])
        until(lambda: shard.target.started, "the first call to run")  # type: ignore[attr-defined]
        waiting = mesh.handle("who").remote(0)
        until(lambda: mesh.router.queued == 1, "the call to wait")
        mesh.replicas.remove(shard)
        publish(mesh, "ByShard")
        assert result(waiting) == by_shard(mesh)[0]
        shard.target.gate.set()  # type: ignore[attr-defined]
        until(lambda: shard.is_idle, "the first call to end")
        shard.close()


@pytest.mark.parametrize("name", ["Raises", "Nonsense", "CannotStart", "NoSuchClass", "Exits", "ExitsAtStart"])
def test_a_router_that_fails_costs_no_call(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The usual rules apply, and the log says why (item 171)."""
    with caplog.at_level(logging.WARNING, "mesh"), routed_by(name) as mesh:
        responses = [mesh.handle("who").remote(number) for number in range(60)]
        assert {result(each) for each in responses} == set(by_shard(mesh))
    warnings = [record.getMessage() for record in caplog.records if "request router" in record.getMessage()]
    assert len(warnings) == 1
    assert name in warnings[0]
    assert "usual rules" in warnings[0]


def test_a_router_that_blocks_stalls_no_call_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither those it should rank nor those of other deployments (item 171)."""
    impatient = replace(settings(), routing=replace(settings().routing, request_router_timeout_s=0.05))
    monkeypatch.setattr("mesh.routing.custom.custom_choice.settings", lambda: impatient)
    with routed_by("Blocks") as mesh:
        assert result(mesh.handle("who").remote(0)) in by_shard(mesh)


def test_a_router_whose_task_exits_goes_on_with_all_others_of_the_process(caplog: pytest.LogCaptureFixture) -> None:
    """The thread of the routers outlives SystemExit (item 171)."""
    with routed_by("EndsItsLoop") as mesh:
        responses = [mesh.handle("who").remote(0) for _ in range(3)]
        assert len({result(each) for each in responses}) == 1
        publish(mesh, "ByShard")
        assert result(mesh.handle("who").remote(1)) == by_shard(mesh)[1]
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_questions_to_a_router_that_hangs_are_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of them stays (item 171)."""
    impatient = replace(settings(), routing=replace(settings().routing, request_router_timeout_s=0.05))
    monkeypatch.setattr("mesh.routing.custom.custom_choice.settings", lambda: impatient)
    with routed_by("Hangs") as mesh:
        responses = [mesh.handle("who").remote(0) for _ in range(20)]
        assert {result(each) for each in responses} <= set(by_shard(mesh))
        until(lambda: hosted(mesh).open_count == 0, "all questions to end")


def test_a_stuck_router_is_asked_a_limited_number_of_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls above that do not wait for it at all (item 171)."""
    request_routers.Stuck.gate.clear()
    few = replace(settings().routing, request_router_open_max=3, request_router_timeout_s=DEADLINE_S)
    monkeypatch.setattr("mesh.routing.custom.router_thread.settings", lambda: replace(settings(), routing=few))
    monkeypatch.setattr("mesh.routing.custom.custom_choice.settings", lambda: replace(settings(), routing=few))
    with routed_by("Stuck") as mesh:
        try:
            asked = [mesh.handle("who").remote(0) for _ in range(3)]
            others = [mesh.handle("who").remote(0) for _ in range(100)]
            assert {result(each) for each in others} == set(by_shard(mesh))
            assert hosted(mesh).open_count == 3
            assert mesh.router.queued == 3
        finally:
            request_routers.Stuck.gate.set()
        assert {result(each) for each in asked} <= set(by_shard(mesh))
        until(lambda: hosted(mesh).open_count == 0, "the router to catch up")


def hosted(mesh: SmallMesh) -> HostedRouter:
    custom = mesh.router.queue.custom
    assert custom is not None
    return custom.hosted


def test_a_router_that_chooses_nothing_is_asked_again() -> None:
    with routed_by("Undecided") as mesh:
        assert result(mesh.handle("who").remote(0)) in by_shard(mesh)


def test_calls_that_wait_for_no_replica_are_ranked_when_there_is_one() -> None:
    with routed_by("ByShard") as mesh:
        replicas, mesh.replicas = mesh.replicas, []
        publish(mesh, "ByShard")
        waiting = mesh.handle("who").remote(2)
        until(lambda: mesh.router.queued == 1, "the call to wait")
        mesh.replicas = replicas
        publish(mesh, "ByShard")
        assert result(waiting) in by_shard(mesh)


def test_back_pressure_counts_calls_that_wait_for_a_place() -> None:
    """Not those that are being ranked (item 168)."""
    with routed_by("ByShard", limit=1, queued_max=1) as mesh:
        free = [mesh.handle("who").remote(number) for number in range(3)]
        assert [result(each) for each in free] == by_shard(mesh)
        mesh.handle("hold").remote(0)
        shard = next(each.target for each in mesh.replicas if id(each.target) == by_shard(mesh)[0])
        until(lambda: shard.started, "the first call to run")
        waiting = mesh.handle("who").remote(0)
        until(lambda: do_on_io(lambda: mesh.router.queue.waiting) == 1, "the call to wait")
        with pytest.raises(BackPressureError):
            result(mesh.handle("who").remote(0))
        shard.gate.set()
        assert result(waiting) == by_shard(mesh)[0]


def test_a_burst_that_is_being_ranked_counts_beyond_the_free_places() -> None:
    """Free places are for as many calls of it; those that no place is free for are in the queue (item 168)."""
    request_routers.Stuck.gate.clear()
    with routed_by("Stuck", limit=2, replicas=3, queued_max=5) as mesh:
        try:
            burst = [mesh.handle("who").remote(number) for number in range(50)]
            for refused in burst[3 * 2 + 5 :]:
                with pytest.raises(BackPressureError):
                    result(refused)
            assert mesh.router.queued == 3 * 2 + 5
        finally:
            request_routers.Stuck.gate.set()
        assert {result(each) for each in burst[: 3 * 2 + 5]} <= set(by_shard(mesh))


def test_back_pressure_holds_while_no_replica_is_linked() -> None:
    """There is nothing to rank then, so all calls wait (item 168)."""
    with routed_by("ByShard", queued_max=5) as mesh:
        replicas, mesh.replicas = mesh.replicas, []
        publish(mesh, "ByShard")
        responses = [mesh.handle("who").remote(2) for _ in range(50)]
        for refused in responses[5:]:
            with pytest.raises(BackPressureError):
                result(refused)
        assert mesh.router.queued == 5
        mesh.replicas = replicas
        publish(mesh, "ByShard")
        assert {result(each) for each in responses[:5]} <= set(by_shard(mesh))
        assert do_on_io(lambda: mesh.router.queue.waiting) == 0


def test_calls_that_were_ranked_forget_it_with_their_router() -> None:
    """One that comes back after the router was removed goes to any replica (item 173)."""
    with routed_by("ByShard", limit=1, replicas=2) as mesh:
        first = min(mesh.replicas, key=lambda each: each.replica_id)
        held = mesh.handle("hold", idempotent=True).remote(0)
        until(lambda: first.target.started, "the call to run")  # type: ignore[attr-defined]
        mesh.replicas.remove(first)
        publish(mesh, None)
        mesh.replicas[0].target.gate.set()  # type: ignore[attr-defined]
        first.kill()
        assert result(held) == id(mesh.replicas[0].target)
        first.target.gate.set()  # type: ignore[attr-defined]
        first.close()


@contextmanager
def with_canary(name: str, share: float, limit: int = 10) -> Iterator[SmallMesh]:
    """Two replicas, the second of which is of a canary."""
    with routed_by(name, limit=limit, replicas=2) as mesh:
        before = mesh.router.listing.snapshot
        assert before is not None
        versions = zip(mesh.replicas, ("v1", "v2"), strict=True)
        infos = tuple(replace(each.info, version=version) for each, version in versions)
        do_on_io(mesh.router.update, replace(before, replicas=()))
        rule = TrafficRule("shop", "v2", share)
        do_on_io(mesh.router.update, replace(before, replicas=infos, traffic=rule))
        yield mesh.connected()


@pytest.mark.parametrize("name", ["ByShard", "Raises"])
def test_a_canary_gets_its_share_beside_a_router(name: str) -> None:
    """The class chooses among the replicas of the version that serves the call (items 171, 172)."""
    with with_canary(name, share=0.5) as mesh:
        stable, canary = (id(each.target) for each in mesh.replicas)
        served = Counter(result(mesh.handle("who").remote(number)) for number in range(40))
        assert served == {stable: 20, canary: 20}


def test_a_full_canary_delays_no_call_beside_a_router() -> None:
    """The version beside it serves the call (item 172)."""
    with with_canary("ByShard", share=1.0, limit=1) as mesh:
        stable, canary = (each.target for each in mesh.replicas)
        mesh.handle("hold").remote(0)
        until(lambda: canary.started, "the first call to run")  # type: ignore[attr-defined]
        assert result(mesh.handle("who").remote(0)) == id(stable)


def test_broadcasts_and_chosen_replicas_work_beside_a_router() -> None:
    with routed_by("ByShard") as mesh:
        assert sorted(mesh.handle().broadcast("who", 0).results(timeout_s=DEADLINE_S)) == sorted(by_shard(mesh))


def test_replicas_tell_their_load_node_and_models() -> None:
    """As the caller knows them (item 175)."""
    with routed_by("NearAndLoaded", limit=1) as mesh:
        seen: list[list[RunningReplica]] = []

        async def choose_replicas(self: Any, candidate_replicas: Any, pending_request: Any) -> Any:
            seen.append(candidate_replicas)
            return [candidate_replicas]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(request_routers.NearAndLoaded, "choose_replicas", choose_replicas)
            mesh.handle("hold", multiplexed_model_id="m").remote(0)
            until(lambda: any(each.target.started for each in mesh.replicas), "the first call to run")  # type: ignore[attr-defined]
            result(mesh.handle("who").remote(0))
        assert sorted(each.queue_len for each in seen[1]) == [0, 0, 1]
        busy = next(each for each in seen[1] if each.queue_len)
        assert (busy.max_ongoing_requests, busy.multiplexed_model_ids) == (1, frozenset({"m"}))
