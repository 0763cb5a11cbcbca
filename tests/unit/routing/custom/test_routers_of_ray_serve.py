"""Request routers that were written for Ray Serve, with one import changed."""

from __future__ import annotations

import time

import pytest

from tests.unit.fakes.request_routers import ASKED_FOR, CHOSEN_FROM, ROUTED_TO
from tests.unit.fakes.small_mesh import until
from tests.unit.routing.routed_mesh import result, routed_by


def test_a_router_finds_the_names_and_helpers_that_it_uses() -> None:
    """Free replicas, ids with their deployment, replicas in sets, and the mixins (items 171–175, D6)."""
    CHOSEN_FROM.clear()
    ROUTED_TO.clear()
    with routed_by("LeastThroughput", limit=1) as mesh:
        replicas = {id(each.target): each for each in mesh.replicas}
        mesh.handle("hold").remote(0)
        until(lambda: any(each.target.started for each in replicas.values()), "the first call to run")  # type: ignore[attr-defined]
        (busy,) = (each for each in replicas.values() if each.target.started)  # type: ignore[attr-defined]
        served = result(mesh.handle("who", multiplexed_model_id="m").remote(0))
        assert replicas[served] is not busy
        until(lambda: len(ROUTED_TO) == 2, "the router to hear of both calls")
    chosen_from, free = CHOSEN_FROM[-1]
    assert {each.replica_id for each in free} == {each.replica_id for each in replicas.values()} - {busy.replica_id}
    assert chosen_from == set(free)
    assert [(each.replica_id, "Store", "shop") for each in (busy, replicas[served])] == ROUTED_TO


def test_a_router_reads_what_a_call_is_by_the_names_of_ray_serve() -> None:
    """Its method, whether it streams, its application, and when it was made (items 171–175)."""
    ASKED_FOR.clear()
    began_at_s = time.time()
    with routed_by("LeastThroughput") as mesh:
        result(mesh.handle("who").remote(0))
        handle = mesh.handle("who", stream=True)
        with pytest.raises(TypeError):
            next(handle.remote(0))
    unary, stream = ASKED_FOR
    assert (unary.metadata.call_method, unary.metadata.is_streaming, unary.metadata.app_name) == ("who", False, "")
    assert stream.metadata.is_streaming
    assert began_at_s - 1 <= unary.created_at <= stream.created_at <= time.time() + 1
