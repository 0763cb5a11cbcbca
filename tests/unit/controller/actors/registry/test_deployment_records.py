"""mesh.controller.actors.registry.deployment_records: which ends of replicas are deaths, and what is kept of them."""

from dataclasses import replace

import pytest

from mesh.controller.actors.registry.deployment_records import DeploymentRecords
from mesh.controller.plan.actions import Reason
from mesh.controller.plan.cluster_picture import DEATHS_MAX, Death, Replica
from mesh.status import ReplicaState
from tests.unit.controller.builders import KEY, replica


class Records(DeploymentRecords):
    """Records with a clock to turn."""

    def __init__(self) -> None:
        self.now_s = 0.0
        super().__init__(lambda: self.now_s)

    @property
    def deaths(self) -> tuple[Death, ...]:
        return self.tallies[KEY].deaths if KEY in self.tallies else ()


@pytest.fixture
def records() -> Records:
    return Records()


def stopping(reason: Reason, unhealthy: str = "") -> Replica:
    return replace(replica(ReplicaState.STOPPING), stop_reasons=(reason,), unhealthy=unhealthy)


def test_a_death_has_its_time_its_replica_and_its_reason(records: Records) -> None:
    records.now_s = 5.0
    dead = replica()
    records.record_end(dead, "killed by the kernel\n  and more")
    assert records.deaths == (
        Death(replica_id=dead.replica_id, version=dead.version, node_id="n1", at_s=5.0, reason="killed by the kernel"),
    )


def test_a_replica_that_was_stopped_for_its_failure_has_died(records: Records) -> None:
    records.record_end(stopping(Reason.UNHEALTHY, "3 health checks failed\n  File"), "ended")
    (death,) = records.deaths
    assert death.reason == f"{Reason.UNHEALTHY} (3 health checks failed)"


def test_a_planned_stop_is_no_death(records: Records) -> None:
    records.record_end(stopping(Reason.UPDATE), "ended")
    assert records.deaths == ()
    assert records.last_ended[KEY].endswith(f": {Reason.UPDATE}")


def test_the_last_deaths_are_kept_newest_first(records: Records) -> None:
    for number in range(2 * DEATHS_MAX):
        records.now_s = float(number)
        records.record_end(replica(), f"death {number}")
    assert [death.reason for death in records.deaths] == ["death 9", "death 8", "death 7", "death 6", "death 5"]
    records.keep(set())
    assert records.deaths == ()


def test_a_reason_of_any_length_is_cut(records: Records) -> None:
    records.record_end(replica(), "x" * 100_000)
    assert len(records.deaths[0].reason) == 500
    assert len(records.last_ended[KEY]) < 600
