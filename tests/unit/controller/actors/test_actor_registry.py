"""mesh.controller.actors.actor_registry: the book of replicas and gateways."""

from dataclasses import replace

import pytest

from mesh.controller.actors.actor_registry import HEALTH_FAILURES_MAX, VACANCY_S, ActorRegistry
from mesh.controller.plan.cluster_picture import Node, Observed
from mesh.status import GatewayStatus, ReplicaState
from mesh.v1 import control_pb2
from tests.unit.controller.builders import KEY, NODE, gateway, replica


class Book(ActorRegistry):
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
def book() -> Book:
    return Book()


def started(book: Book) -> str:
    starting = replica(ReplicaState.STARTING)
    book.add_replica(starting)
    ready = control_pb2.ReplicaReady(replica_id=starting.replica_id, address="10.0.0.1:7000", pid=42)
    book.replica_ready(ready, "c1")
    return starting.replica_id


def test_a_replica_that_is_ready_serves(book: Book) -> None:
    started(book)
    (running,) = book.seen.replicas
    assert (running.state, running.address, running.pid) == (ReplicaState.RUNNING, "10.0.0.1:7000", 42)
    assert running.is_serving


def test_three_failed_checks_in_a_row_make_a_replica_unhealthy(book: Book) -> None:
    """A success in between resets the count (item 150)."""
    replica_id = started(book)
    for failure in ("slow", "slow", None, "slow", "slow"):
        book.replica_checked(replica_id, failure)
    assert book.seen.replicas[0].is_serving
    book.replica_checked(replica_id, "slow")
    assert not book.seen.replicas[0].is_serving
    assert f"failed {HEALTH_FAILURES_MAX} health checks in a row: slow" in book.seen.replicas[0].unhealthy


def test_a_death_counts_as_a_failure_and_is_explained(book: Book) -> None:
    book.replica_closed(started(book), "killed by the kernel")
    assert not book.seen.replicas
    failures = book.seen.failures_of(KEY, "v2")
    assert (failures.count, failures.message, failures.has_succeeded) == (1, "killed by the kernel", True)


def test_the_end_of_a_stopping_replica_is_no_failure(book: Book) -> None:
    replica_id = started(book)
    book.replica_stopping(replica_id, 20.0)
    book.replica_closed(replica_id, "ended")
    assert book.seen.failures_of(KEY, "v2").count == 0


def test_a_replica_that_lived_long_starts_the_count_afresh(book: Book) -> None:
    for _ in range(4):
        book.replica_closed(started(book), "crashed")
    assert book.seen.failures_of(KEY, "v2").count == 4
    replica_id = started(book)
    book.now_s += 60.0
    book.replica_closed(replica_id, "crashed")
    assert book.seen.failures_of(KEY, "v2").count == 1


def test_failures_of_another_version_do_not_count(book: Book) -> None:
    book.replica_closed(started(book), "crashed")
    assert book.seen.failures_of(KEY, "v3").count == 0


def test_a_reconfiguration_that_fails_takes_the_replica_out(book: Book) -> None:
    """It counts as a failed start of the version (item 154)."""
    replica_id = started(book)
    book.replica_reconfiguring(replica_id)
    assert book.seen.replicas[0].state == ReplicaState.UPDATING
    book.replica_broken(replica_id, "bad config")
    assert not book.seen.replicas[0].is_serving
    assert book.seen.failures_of(KEY, "v2").count == 1


def on_node(book: Book, node_id: str = "n2") -> str:
    starting = replica(ReplicaState.STARTING)
    book.add_replica(starting)
    ready = control_pb2.ReplicaReady(replica_id=starting.replica_id, address="10.0.0.1:7000", node_id=node_id)
    book.replica_ready(ready, "c1")
    return starting.replica_id


N2 = Node(node_id="n2")


def test_replicas_of_a_node_that_has_gone_are_lost_and_nobody_is_to_blame(book: Book) -> None:
    """Many replicas that die with their node must not slow down their replacement."""
    book.see_nodes([NODE, N2])
    on_node(book)
    book.add_gateway(gateway(GatewayStatus.HEALTHY, "n2"))
    book.see_nodes([NODE])
    assert (book.seen.replicas, book.seen.gateways) == ((), ())
    (vacancy,) = book.seen.vacancies
    assert vacancy.is_lost
    assert vacancy.bundle_nodes == ("n2",)
    assert book.seen.failures_of(KEY, "v2").count == 0


def test_a_node_that_the_list_does_not_have_yet_has_not_gone(book: Book) -> None:
    """Ray may place a replica on a node that has joined since the list was read."""
    book.see_nodes([NODE])
    on_node(book)
    book.see_nodes([NODE])
    assert len(book.seen.replicas) == 1


def test_replicas_of_a_node_that_is_being_drained_are_pending_migration(book: Book) -> None:
    """They serve, and stay when the drain is cancelled (item 192)."""
    on_node(book)
    book.see_nodes([NODE, replace(N2, ends_s=60.0)])
    (moving,) = book.seen.replicas
    assert (moving.state, moving.node_ends_s, moving.is_serving) == (ReplicaState.PENDING_MIGRATION, 60.0, True)
    changes = book.changes
    book.see_nodes([NODE, replace(N2, ends_s=60.0)])
    assert book.changes == changes
    book.see_nodes([NODE, N2])
    assert book.seen.replicas[0].state == ReplicaState.RUNNING


def test_a_replica_that_leaves_is_not_lost_and_is_soon_forgotten(book: Book) -> None:
    leaving, dying = on_node(book), on_node(book)
    book.replica_stopping(leaving, 1.0)
    book.replica_closed(leaving, "drained")
    book.replica_closed(dying, "killed")
    assert [each.is_lost for each in book.seen.vacancies] == [False, True]
    book.now_s += VACANCY_S + 1.0
    assert book.seen.vacancies == ()


def test_news_of_a_forgotten_replica_are_ignored(book: Book) -> None:
    book.replica_placed("nobody", ("n1",))
    book.replica_ready(control_pb2.ReplicaReady(replica_id="nobody"), "c1")
    book.replica_checked("nobody", "slow")
    book.replica_closed("nobody", "ended")
    assert book.seen.replicas == ()
    assert book.changes == 0


def test_a_healthy_check_is_no_news(book: Book) -> None:
    replica_id = started(book)
    before = book.changes
    book.replica_checked(replica_id, None)
    assert book.changes == before


def test_a_replica_that_becomes_ready_on_a_draining_node_moves_off_it(book: Book) -> None:
    """A late start changes nothing about the drain (item 192)."""
    book.see_nodes([NODE])
    starting = replica(ReplicaState.STARTING)
    book.add_replica(starting)
    book.see_nodes([replace(NODE, ends_s=100.0)])
    book.replica_ready(control_pb2.ReplicaReady(replica_id=starting.replica_id, node_id="n1"), "c1")
    assert book.seen.replicas[0].state == ReplicaState.PENDING_MIGRATION


def test_a_drain_that_is_called_off_while_a_replica_reconfigures(book: Book) -> None:
    serving = replica()
    book.add_replica(serving)
    book.replica_reconfiguring(serving.replica_id)
    book.see_nodes([replace(NODE, ends_s=100.0)])
    book.see_nodes([NODE])
    book.replica_reconfigured(serving.replica_id, "c2", 5.0)
    (running,) = book.seen.replicas
    assert (running.state, running.config_version) == (ReplicaState.RUNNING, "c2")


def test_failures_of_a_node_that_is_gone_are_forgotten(book: Book) -> None:
    """Nodes come and go without end."""
    book.see_nodes([NODE])
    book.add_gateway(gateway(GatewayStatus.STARTING))
    book.gateway_broken(gateway().gateway_id, "port taken")
    book.see_nodes([])
    assert not book.seen.gateways
    assert not book.seen.gateway_failures


def test_a_gateway_that_starts_forgets_its_failures(book: Book) -> None:
    starting = gateway(GatewayStatus.STARTING)
    book.add_gateway(starting)
    book.gateway_broken(starting.gateway_id, "port taken")
    assert book.seen.gateway_failures["n1"].count == 1
    book.gateway_closed(starting.gateway_id, "killed")
    assert book.seen.gateway_failures["n1"].count == 1
    book.add_gateway(starting)
    book.gateway_ready(control_pb2.GatewayReady(gateway_id=starting.gateway_id, grpc_address="10.0.0.1:9000"))
    assert book.seen.gateways[0].state == GatewayStatus.HEALTHY
    assert not book.seen.gateway_failures
