"""mesh.controller.plan.replica_state: the life of a replica is a table (item 197)."""

import pytest

from mesh.controller.plan.replica_state import REPLICA_TRANSITIONS, SERVING, ReplicaEvent
from mesh.phases.transitions import WrongTransitionError, next_state
from mesh.status import ReplicaState


@pytest.mark.parametrize("state", [ReplicaState.STARTING, ReplicaState.RECOVERING, ReplicaState.UPDATING])
def test_a_replica_that_answers_runs(state: ReplicaState) -> None:
    assert next_state(REPLICA_TRANSITIONS, state, ReplicaEvent.READY) == ReplicaState.RUNNING


@pytest.mark.parametrize("state", sorted({state for state, _ in REPLICA_TRANSITIONS}))
def test_every_replica_can_be_stopped(state: ReplicaState) -> None:
    assert next_state(REPLICA_TRANSITIONS, state, ReplicaEvent.STOP) == ReplicaState.STOPPING


def test_a_replica_serves_while_it_is_reconfigured() -> None:
    """Requests run while `reconfigure` does (item 85)."""
    assert next_state(REPLICA_TRANSITIONS, ReplicaState.RUNNING, ReplicaEvent.RECONFIGURE) in SERVING


def test_an_answer_that_comes_late_does_not_bring_a_stopping_replica_back() -> None:
    assert next_state(REPLICA_TRANSITIONS, ReplicaState.STOPPING, ReplicaEvent.READY) == ReplicaState.STOPPING


def test_a_pair_outside_the_table_raises() -> None:
    with pytest.raises(WrongTransitionError, match="RECONFIGURE while STARTING"):
        next_state(REPLICA_TRANSITIONS, ReplicaState.STARTING, ReplicaEvent.RECONFIGURE)
