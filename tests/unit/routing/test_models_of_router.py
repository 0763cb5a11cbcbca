"""Calls that name a model go to replicas that hold it, over real links (items 125, 176–179)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import pytest

from mesh.link.frames import pack_welcome
from mesh.link.replica_facts import ReplicaFacts
from mesh.routing.endpoint import Endpoint
from mesh.routing.snapshot import ReplicaInfo
from mesh.settings import settings
from tests.unit.fakes.small_mesh import SmallMesh, do_on_io, mesh_of, until
from tests.unit.routing.router_calls import Models

DEADLINE_S = 30.0
pytestmark = pytest.mark.timeout(60)


def announce(mesh: SmallMesh, number: int, *models: str) -> None:
    replica = mesh.replicas[number]
    do_on_io(replica.servicer.announce_models, list(models))
    endpoint = mesh.endpoints[replica.replica_id]
    until(lambda: endpoint.link is not None and endpoint.link.facts.model_ids == frozenset(models), "the announcement")


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
