"""The option that names a deployment's own request router, and what such a class may use and answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.config import DeploymentConfig, RequestRouterConfig
from mesh.request_router import LocalityMixin, MultiplexMixin, ReplicaID, RunningReplica
from mesh.routing.custom.router_thread import read_ranking
from mesh.routing.snapshot import RouterSpec, Snapshot, read_router
from mesh.v1 import control_pb2
from tests.unit.fakes import request_routers
from tests.unit.fakes.small_mesh import KEY

pytestmark = pytest.mark.timeout(60)


REPLICAS = [
    RunningReplica(
        replica_id=ReplicaID("a", KEY), node_id="n1", availability_zone="z1", multiplexed_model_ids=frozenset("m")
    ),
    RunningReplica(replica_id=ReplicaID("b", KEY), node_id="n2", availability_zone="z1"),
    RunningReplica(
        replica_id=ReplicaID("c", KEY), node_id="n3", availability_zone="z2", multiplexed_model_ids=frozenset("xy")
    ),
]


def test_the_usual_rules_can_be_built_upon() -> None:
    """By node and zone, and by models (items 174, 175)."""
    router = request_routers.NearAndLoaded()
    router.node_id, router.availability_zone = "n1", "z1"
    assert [[each.replica_id for each in group] for group in router.rank_replicas_via_locality(REPLICAS)] == [
        ["a"],
        ["b"],
        ["c"],
    ]
    assert [[each.replica_id for each in group] for group in router.rank_replicas_via_multiplex(REPLICAS, "x")] == [
        ["c"],
        ["b"],
        ["a"],
    ]
    assert issubclass(request_routers.NearAndLoaded, LocalityMixin)
    assert issubclass(request_routers.NearAndLoaded, MultiplexMixin)


names = st.sampled_from("abcx")


@given(st.lists(st.lists(names, max_size=4), max_size=4))
def test_a_ranking_has_known_replicas_and_no_empty_group(groups: list[list[str]]) -> None:
    ranking = read_ranking(groups, {"a", "b", "c"})
    assert all(ranking)
    assert all(group <= {"a", "b", "c"} for group in ranking)
    assert list(ranking) == [kept for group in groups if (kept := frozenset(group) - {"x"})]


@pytest.mark.parametrize("wrong", ["abc", None, 7, ["abc"], [REPLICAS[0]], [[7]]])
def test_other_answers_are_refused(wrong: Any) -> None:
    if wrong == [[7]]:
        assert read_ranking(wrong, {"a"}) == ()
        return
    with pytest.raises(TypeError, match="list of lists"):
        read_ranking(wrong, {"a"})


# ---- The option ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given_class",
    [
        request_routers.ByShard,
        "tests.unit.fakes.request_routers:ByShard",
        "tests.unit.fakes.request_routers.ByShard",
    ],
)
def test_a_class_or_its_import_path_names_the_router(given_class: Any) -> None:
    """All forms reach callers as one (items 95, 171)."""
    config = DeploymentConfig(request_router_config={"request_router_class": given_class})  # type: ignore[arg-type]
    assert config.to_message().request_router.import_path == "tests.unit.fakes.request_routers:ByShard"
    given = RequestRouterConfig(request_router_class=given_class, request_router_kwargs={"offset": 1})
    assert given.to_message().kwargs_json == '{"offset": 1}'


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"request_router_kwargs": {"offset": 1}}, "for a request_router_class"),
        ({"request_router_class": "ByShard"}, "import path"),
        ({"request_router_class": 7}, "class or its import path"),
        ({"request_router_class": int}, "no choose_replicas"),
        ({"request_router_class": "a:B", "request_router_kwargs": {"a": object()}}, "JSON"),
        ({"request_router_class": "a:B", "request_router_classs": 1}, "Did you mean"),
    ],
)
def test_wrong_configurations_are_refused(wrong: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        DeploymentConfig(request_router_config=wrong)


def test_without_a_class_the_usual_rules_apply_and_the_period_of_stats_holds() -> None:
    """As for the class that is the default of Ray Serve (items 155, 171)."""
    config = DeploymentConfig(request_router_config={"request_routing_stats_period_s": 2})  # type: ignore[arg-type]
    message = config.to_message().request_router
    assert (message.stats_period_s, read_router(message)) == (2, None)
    assert read_router(control_pb2.RequestRouter()) is None
    empty = DeploymentConfig(request_router_config={})  # type: ignore[arg-type]
    assert read_router(empty.to_message().request_router) is None


def test_a_class_without_an_import_path_is_refused() -> None:
    class Local(request_routers.ByShard):
        pass

    with pytest.raises(ValueError, match="top level of a module"):
        RequestRouterConfig(request_router_class=Local)


def test_snapshots_compare_by_their_router() -> None:
    spec = RouterSpec("a:B")
    assert Snapshot(KEY, 1, request_router=spec) == Snapshot(KEY, 1, request_router=RouterSpec("a:B"))
