"""mesh.controller.actors.registry.actor_registry: the registry of replicas, and of nodes that go."""

from dataclasses import replace

import pytest

from mesh.controller.actors.registry.actor_registry import ActorRegistry
from mesh.controller.desired.desired_state import DeploymentTarget
from mesh.controller.plan.actions import Reason
from mesh.controller.plan.cluster_picture import Node, Observed
from mesh.options.deployments.drain_policy import DEFAULT_DRAIN
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.status import GatewayStatus, ReplicaState
from mesh.v1 import control_pb2
from tests.unit.controller.builders import KEY, NODE, gateway, replica, target


class Registry(ActorRegistry):
    """A registry with a clock to turn and a count of its changes."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.changes = 0
        super().__init__(lambda: self.now_s, self._count)

    def _count(self) -> None:
        self.changes += 1

    @property
    def seen(self) -> Observed:
        return self.observed()


@pytest.fixture
def registry() -> Registry:
    return Registry()


def started(registry: Registry) -> str:
    starting = replica(ReplicaState.STARTING)
    registry.add_replica(starting)
    ready = control_pb2.ReplicaReady(
        replica_id=starting.replica_id, config_version="c1", address="10.0.0.1:7000", pid=42
    )
    registry.replica_ready(ready)
    return starting.replica_id


def test_a_replica_that_is_ready_serves(registry: Registry) -> None:
    started(registry)
    (running,) = registry.seen.replicas
    assert (running.state, running.address, running.pid) == (ReplicaState.RUNNING, "10.0.0.1:7000", 42)
    assert running.is_serving


def test_three_failed_checks_in_a_row_make_a_replica_unhealthy(registry: Registry) -> None:
    """A success in between resets the count (item 150)."""
    replica_id = started(registry)
    for failure in ("slow", "slow", None, "slow", "slow"):
        registry.replica_checked(replica_id, failure)
    assert registry.seen.replicas[0].is_serving
    registry.replica_checked(replica_id, "slow")
    assert not registry.seen.replicas[0].is_serving
    assert (
        f"failed {settings().controller.health_failures_max} health checks in a row: slow"
        in registry.seen.replicas[0].unhealthy
    )


def test_a_death_counts_as_a_failure_and_is_explained(registry: Registry) -> None:
    registry.replica_closed(started(registry), "killed by the kernel")
    assert not registry.seen.replicas
    failures = registry.seen.failures_of(KEY, "v2")
    assert (failures.count, failures.message, failures.has_succeeded) == (1, "killed by the kernel", True)


def restarts(registry: Registry) -> dict[str, int]:
    return dict(registry.seen.tallies[KEY].restarts) if KEY in registry.seen.tallies else {}


def test_lost_replicas_are_counted_by_reason(registry: Registry) -> None:
    starting = replica(ReplicaState.STARTING)
    registry.add_replica(starting)
    registry.replica_broken(starting.replica_id, "ValueError: no model")
    registry.replica_closed(starting.replica_id, "killed")
    assert restarts(registry) == {"start_failed": 1}
    registry.replica_broken(started(registry), "failed health checks")
    registry.replica_closed(started(registry), "killed by the kernel")
    registry.see_nodes([NODE, N2])
    on_node(registry)
    registry.see_nodes([NODE])
    assert restarts(registry) == {"start_failed": 1, "unhealthy": 1, "died": 1, "node_lost": 1}


def test_planned_stops_are_no_restarts(registry: Registry) -> None:
    replica_id = started(registry)
    registry.replica_stopping(replica_id, 20.0, Reason.UPDATE)
    registry.replica_closed(replica_id, "ended")
    assert restarts(registry) == {}


def test_failed_health_checks_are_counted_until_the_deployment_is_deleted(registry: Registry) -> None:
    replica_id = started(registry)
    for failure in ("slow", None, "slow"):
        registry.replica_checked(replica_id, failure)
    assert registry.seen.tallies[KEY].failed_checks == 2
    registry.expect(set(), {})
    assert registry.seen.tallies == {}


def test_an_adopted_replica_keeps_its_age(registry: Registry) -> None:
    registry.now_s = 10.0
    registry.add_replica(replica(), age_s=60.0)
    assert registry.seen.replicas[0].created_at_s == -50.0


def test_the_end_of_a_stopping_replica_is_no_failure(registry: Registry) -> None:
    replica_id = started(registry)
    registry.replica_stopping(replica_id, 20.0, Reason.SCALE_DOWN)
    registry.replica_closed(replica_id, "ended")
    assert registry.seen.failures_of(KEY, "v2").count == 0


def test_a_replica_that_lived_long_starts_the_count_afresh(registry: Registry) -> None:
    for _ in range(4):
        registry.replica_closed(started(registry), "crashed")
    assert registry.seen.failures_of(KEY, "v2").count == 4
    replica_id = started(registry)
    registry.now_s += 60.0
    registry.replica_closed(replica_id, "crashed")
    assert registry.seen.failures_of(KEY, "v2").count == 1


def test_failures_of_another_version_do_not_count(registry: Registry) -> None:
    registry.replica_closed(started(registry), "crashed")
    assert registry.seen.failures_of(KEY, "v3").count == 0


def test_a_replica_that_refuses_a_configuration_serves_with_the_one_before(registry: Registry) -> None:
    """It is not a failure of its version (item 154)."""
    replica_id = started(registry)
    registry.replica_reconfiguring(replica_id, "c2")
    assert registry.seen.replicas[0].state == ReplicaState.UPDATING
    registry.config_rejected(replica_id, "c2", "bad config")
    (serving,) = registry.seen.replicas
    assert (serving.is_serving, serving.state, serving.config_version) == (True, ReplicaState.RUNNING, "c1")
    assert registry.seen.failures_of(KEY, "v2").count == 0
    assert registry.seen.config_failures_of(KEY, "v2", "c2").message == "bad config"
    assert registry.seen.config_failures_of(KEY, "v2", "c3").count == 0
    registry.restart_failures(KEY, "v2")
    assert registry.seen.config_failures_of(KEY, "v2", "c2").count == 0


def test_the_death_of_a_replica_is_blamed_on_the_configuration_that_it_has_just_taken_over(registry: Registry) -> None:
    for lives_s, is_blamed in ((9.0, True), (11.0, False)):
        replica_id = started(registry)
        registry.replica_reconfiguring(replica_id, "c2")
        registry.replica_reconfigured(control_pb2.ReplicaSpec(replica_id=replica_id, config_version="c2"))
        registry.now_s += lives_s
        registry.replica_closed(replica_id, "crashed")
        assert bool(registry.seen.config_failures_of(KEY, "v2", "c2").count) == is_blamed
        registry.restart_failures(KEY, "v2")
    replica_id = started(registry)
    registry.replica_reconfiguring(replica_id, "c2")
    registry.replica_closed(replica_id, "crashed")
    assert registry.seen.config_failures_of(KEY, "v2", "c2").count == 1, "while it took it over"


def on_node(registry: Registry, node_id: str = "n2") -> str:
    starting = replica(ReplicaState.STARTING)
    registry.add_replica(starting)
    ready = control_pb2.ReplicaReady(replica_id=starting.replica_id, address="10.0.0.1:7000", node_id=node_id)
    registry.replica_ready(ready)
    return starting.replica_id


N2 = Node(node_id="n2")


def test_replicas_of_a_node_that_has_gone_are_lost_and_no_failures(registry: Registry) -> None:
    """Many replicas that die with their node must not slow down their replacement."""
    registry.see_nodes([NODE, N2])
    on_node(registry)
    registry.gateways.add(gateway(GatewayStatus.HEALTHY, "n2"))
    registry.see_nodes([NODE])
    assert (registry.seen.replicas, registry.seen.gateways) == ((), ())
    (departed,) = registry.seen.departed
    assert departed.is_lost
    assert departed.bundle_nodes == ("n2",)
    assert registry.seen.failures_of(KEY, "v2").count == 0


def test_a_node_that_the_list_does_not_have_yet_has_not_gone(registry: Registry) -> None:
    """Ray may place a replica on a node that has joined since the list was read."""
    registry.see_nodes([NODE])
    on_node(registry)
    registry.see_nodes([NODE])
    assert len(registry.seen.replicas) == 1


def test_replicas_of_a_node_that_is_being_drained_are_pending_migration(registry: Registry) -> None:
    """They serve, and stay when the drain is cancelled (item 192)."""
    on_node(registry)
    registry.see_nodes([NODE, replace(N2, ends_at_s=60.0)])
    (moving,) = registry.seen.replicas
    assert (moving.state, moving.node_ends_at_s, moving.is_serving) == (ReplicaState.PENDING_MIGRATION, 60.0, True)
    changes = registry.changes
    registry.see_nodes([NODE, replace(N2, ends_at_s=60.0)])
    assert registry.changes == changes
    registry.see_nodes([NODE, N2])
    assert registry.seen.replicas[0].state == ReplicaState.RUNNING


def test_a_replica_that_leaves_is_not_lost_and_is_soon_forgotten(registry: Registry) -> None:
    leaving, dying = on_node(registry), on_node(registry)
    registry.replica_stopping(leaving, 1.0, Reason.SCALE_DOWN)
    registry.replica_closed(leaving, "drained")
    registry.replica_closed(dying, "killed")
    assert [each.is_lost for each in registry.seen.departed] == [False, True]
    registry.now_s += settings().controller.departed_memory_s + 1.0
    assert registry.seen.departed == ()


def test_news_of_a_forgotten_replica_are_ignored(registry: Registry) -> None:
    registry.replica_placed("unknown", ("n1",))
    registry.replica_ready(control_pb2.ReplicaReady(replica_id="unknown"))
    registry.replica_checked("unknown", "slow")
    registry.replica_closed("unknown", "ended")
    assert registry.seen.replicas == ()
    assert registry.changes == 0


class CountedKey(DeploymentKey):
    """Counts how often keys are compared; those in a dict are not, as they are the same objects."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        CountedKey.compared += 1
        return super().__eq__(other)

    __hash__ = DeploymentKey.__hash__


def test_what_serves_is_not_counted_again_for_each_deployment(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the loss of many replicas each change of the desired state would take seconds."""
    monkeypatch.setattr(CountedKey, "compared", 0)
    keys = [CountedKey("app", f"D{number}") for number in range(200)]
    targets: dict[DeploymentKey, DeploymentTarget] = {key: replace(target(), key=key) for key in keys}
    for key in keys:
        registry.put_replica(replace(replica(), deployment=key))
        registry.put_replica(lost := replace(replica(), deployment=key))
        registry.replica_closed(lost.replica_id, "crashed")
    registry.expect({(key, "v2") for key in keys}, targets)
    registry.expect({(key, "v2") for key in keys}, targets)
    for each in registry.seen.replicas:
        for _ in range(settings().controller.health_failures_max):
            registry.replica_checked(each.replica_id, "slow")
    assert CountedKey.compared < 20 * len(keys)


def test_a_healthy_check_is_no_news(registry: Registry) -> None:
    replica_id = started(registry)
    before = registry.changes
    registry.replica_checked(replica_id, None)
    assert registry.changes == before


def test_a_replica_that_becomes_ready_on_a_draining_node_moves_off_it(registry: Registry) -> None:
    """A late start changes nothing about the drain (item 192)."""
    registry.see_nodes([NODE])
    starting = replica(ReplicaState.STARTING)
    registry.add_replica(starting)
    registry.see_nodes([replace(NODE, ends_at_s=100.0)])
    registry.replica_ready(control_pb2.ReplicaReady(replica_id=starting.replica_id, node_id="n1"))
    assert registry.seen.replicas[0].state == ReplicaState.PENDING_MIGRATION


def test_a_drain_that_is_called_off_while_a_replica_reconfigures(registry: Registry) -> None:
    serving = replica()
    registry.add_replica(serving)
    registry.replica_reconfiguring(serving.replica_id, "c2")
    registry.see_nodes([replace(NODE, ends_at_s=100.0)])
    registry.see_nodes([NODE])
    spec = control_pb2.ReplicaSpec(replica_id=serving.replica_id, config_version="c2")
    registry.replica_reconfigured(spec)
    (running,) = registry.seen.replicas
    assert (running.state, running.config_version) == (ReplicaState.RUNNING, "c2")


def test_a_placement_group_moves_when_any_of_its_nodes_is_drained(registry: Registry) -> None:
    """When the first of them ends."""
    starting = replica(ReplicaState.STARTING)
    registry.add_replica(starting)
    ready = control_pb2.ReplicaReady(
        replica_id=starting.replica_id, address="10.0.0.1:7000", bundle_node_ids=["n1", "n2", "n3"]
    )
    registry.replica_ready(ready)
    registry.see_nodes([NODE, Node(node_id="n2", ends_at_s=90.0), Node(node_id="n3", ends_at_s=30.0)])
    (moving,) = registry.seen.replicas
    assert (moving.state, moving.node_ends_at_s) == (ReplicaState.PENDING_MIGRATION, 30.0)


# ---- the disruption limit ------------------------------------------------------------------------------------------


def of_six(registry: Registry, max_unavailable_percent: float | None = None) -> list[str]:
    """A deployment of six replicas that serve."""
    wanted = target(6)
    wanted.spec.options.num_replicas = 6
    if max_unavailable_percent is not None:
        wanted.spec.options.max_unavailable_percent = max_unavailable_percent
    registry.expect({(KEY, "v2")}, {KEY: wanted})
    return [started(registry) for _ in range(6)]


def fails(registry: Registry, *replica_ids: str) -> int:
    """Their health checks fail often enough. The number of those that are to be replaced for that."""
    for replica_id in replica_ids:
        for _ in range(settings().controller.health_failures_max):
            registry.replica_checked(replica_id, "slow")
    return sum(bool(each.unhealthy) for each in registry.seen.replicas)


def test_a_third_is_replaced_for_its_health_at_a_time(registry: Registry) -> None:
    ids = of_six(registry)
    assert fails(registry, *ids) == 2
    started(registry)
    assert fails(registry, *ids) == 3


@pytest.mark.parametrize(("percent", "replaced"), [(0.0, 1), (20.0, 1), (50.0, 3), (100.0, 6)])
def test_the_limit_of_the_deployment_holds_for_health_checks_too(
    registry: Registry, percent: float, replaced: int
) -> None:
    """At least one, or a replica that hangs would never be replaced."""
    assert fails(registry, *of_six(registry, percent)) == replaced


def test_replicas_lost_with_their_nodes_or_by_themselves_count(registry: Registry) -> None:
    """Those that are left are likely to be slow because of the load of the others."""
    ids = of_six(registry)
    registry.replica_closed(ids[0], "killed by the kernel")
    registry.replica_closed(ids[1], "its node is gone", is_node_lost=True)
    assert fails(registry, *ids[2:]) == 0
    started(registry)
    assert fails(registry, *ids[2:]) == 1


def test_replicas_that_make_room_count(registry: Registry) -> None:
    ids = of_six(registry)
    for replica_id in ids[:2]:
        registry.replica_stopping(replica_id, DEFAULT_DRAIN, Reason.MAKE_ROOM)
        registry.replica_closed(replica_id, "ended")
    assert fails(registry, *ids[2:]) == 0


def test_replicas_that_others_have_replaced_do_not_count(registry: Registry) -> None:
    ids = of_six(registry)
    for replica_id in ids[:4]:
        started(registry)
        registry.replica_stopping(replica_id, DEFAULT_DRAIN, Reason.NODE_DRAIN)
        registry.replica_closed(replica_id, "ended")
    assert fails(registry, ids[4]) == 1


def test_replicas_that_are_missing_because_more_are_wanted_do_not_count(registry: Registry) -> None:
    ids = of_six(registry)
    for replica_id in ids[:3]:
        started(registry)
        registry.replica_stopping(replica_id, DEFAULT_DRAIN, Reason.UPDATE)
        registry.replica_closed(replica_id, "ended")
    wanted = target(12)
    wanted.spec.options.num_replicas = 12
    registry.expect({(KEY, "v2")}, {KEY: wanted})
    assert fails(registry, ids[4]) == 1
