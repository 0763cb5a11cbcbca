"""mesh.controller.report.snapshot_changes: a reader of any version arrives at the newest one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.controller.report.snapshot_changes import SnapshotChanges
from mesh.routing.snapshot import Snapshot, read_snapshot
from mesh.v1 import control_pb2

replicas = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(["n1", "n2"]), max_size=8)
versions = st.lists(st.tuples(replicas, st.sampled_from(["", "why"]), st.booleans()), min_size=1, max_size=24)
"""Nodes by replica, a reason, and whether the reader looks."""


def snapshot(version: int, nodes: dict[str, str], unavailable: str = "") -> control_pb2.DeploymentSnapshot:
    message = control_pb2.DeploymentSnapshot(
        deployment={"app": "app", "name": "D"}, version=version, unavailable=unavailable, lost_replica_ids=["x", "y"]
    )
    for replica_id, node_id in sorted(nodes.items()):
        message.replicas.add(replica_id=replica_id, node_id=node_id)
    return message


def read(messages: list[control_pb2.DeploymentSnapshot], known: Snapshot | None) -> Snapshot | None:
    for message in messages:
        known = read_snapshot(message, known)
    return known


@given(versions)
def test_changes_in_order_give_the_newest_snapshot(made: list[tuple[dict[str, str], str, bool]]) -> None:
    """Whatever the reader has seen before; replicas may stand in another order."""
    changes, known = SnapshotChanges(), None
    for version, (nodes, unavailable, looks) in enumerate(made, start=7):
        changes.take(snapshot(version, nodes, unavailable))
        if looks:
            known = read(changes.since(known.version if known else 0), known)
            whole = read_snapshot(snapshot(version, nodes, unavailable))
            assert known is not None
            assert whole is not None
            assert set(known.replicas) == set(whole.replicas)
            assert len(known.replicas) == len(whole.replicas)
            assert (known.version, known.unavailable, known.lost) == (version, unavailable, frozenset("xy"))


def test_one_changed_replica_costs_one_replica() -> None:
    changes = SnapshotChanges()
    nodes = {f"r{number}": "n1" for number in range(100)}
    changes.take(snapshot(1, nodes))
    changes.take(snapshot(2, {**nodes, "r7": "n2"}))
    del nodes["r8"]
    changes.take(snapshot(3, {**nodes, "r7": "n2"}))
    first, second = changes.since(1)
    assert [each.replica_id for each in first.replicas] == ["r7"]
    assert (list(second.replicas), list(second.removed_replica_ids)) == ([], ["r8"])
    assert changes.since(2) == [second]
    assert changes.since(3) == []


@pytest.mark.parametrize("unknown", [0, 5])
def test_a_reader_of_another_version_gets_the_whole_snapshot(unknown: int) -> None:
    changes = SnapshotChanges()
    for version in (6, 7):
        changes.take(snapshot(version, {"a": "n1", "b": "n1", "c": f"n{version}"}))
    (whole,) = changes.since(unknown)
    assert len(whole.replicas) == 3


def test_a_change_of_most_replicas_is_a_whole_snapshot() -> None:
    changes = SnapshotChanges()
    changes.take(snapshot(1, {"a": "n1", "b": "n1"}))
    changes.take(snapshot(2, {"a": "n2", "b": "n2"}))
    (whole,) = changes.since(1)
    assert whole.changes_version == 0


def test_a_reader_that_is_far_behind_gets_the_whole_snapshot() -> None:
    changes = SnapshotChanges()
    for version in range(1, 40):
        changes.take(snapshot(version, {"a": "n1", "b": "n1", "c": f"n{version}"}))
    assert len(changes.since(38)) == 1
    assert changes.since(38)[0].changes_version == 38
    (whole,) = changes.since(3)
    assert whole.changes_version == 0


def test_a_change_of_what_is_not_known_is_dropped_and_of_another_version_is_an_error() -> None:
    changes = SnapshotChanges()
    for version in (1, 2):
        changes.take(snapshot(version, {"a": "n1", "b": "n1", "c": f"n{version}"}))
    (change,) = changes.since(1)
    assert read_snapshot(change, None) is None
    other = read_snapshot(snapshot(9, {}))
    with pytest.raises(ValueError, match="change of version 1 of app/D came after 9"):
        read_snapshot(change, other)
