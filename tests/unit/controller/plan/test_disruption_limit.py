"""The disruption limit: whatever replicas are replaced for, no more are taken away at once than may be.

What is lost already counts. Ray's drains with an end are the exception: their nodes end anyway.
"""

import math
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.controller.desired.resource_request import ResourceRequest
from mesh.controller.plan.actions import KillReplica, Reason, StopReplica
from mesh.controller.plan.cluster_picture import Node, Observed, Replica
from mesh.controller.plan.planner import plan
from mesh.options.deployments.rollout_policy import UpdatePace, pace_of
from mesh.status import ReplicaState
from mesh.v1 import control_pb2
from tests.unit.controller.builders import desired, replica, target

NOW_S = 1000.0
ONE_CPU = ResourceRequest(((("CPU", 1.0),),))
STATES = st.sampled_from([ReplicaState.RUNNING] * 6 + [ReplicaState.STARTING, ReplicaState.STOPPING])
PERCENT = st.none() | st.sampled_from([0.0, 10.0, 34.0, 50.0, 100.0])


@dataclass(frozen=True)
class Case:
    seen: Observed
    wanted: int
    pace: UpdatePace
    spec: control_pb2.DeploymentSpec
    before: int

    @property
    def serving(self) -> int:
        return sum(each.is_serving for each in self.seen.replicas)


@st.composite
def nodes(draw: st.DrawFn, number: int) -> Node:
    cpus = float(draw(st.integers(0, 6)))
    node = Node(node_id=f"n{number}", is_head=number == 0, total={"CPU": 6.0}, available={"CPU": cpus})
    match draw(st.sampled_from(["ready", "ready", "cordoned", "drained"])):
        case "cordoned":
            return replace(node, is_cordoned=True)
        case "drained":
            return replace(node, is_cordoned=True, is_emptied=True, ends_at_s=math.inf)
        case _:
            return node


@st.composite
def cases(draw: st.DrawFn) -> Case:
    cluster = [draw(nodes(number)) for number in range(draw(st.integers(1, 4)))]
    replicas = [draw(replicas_on(cluster)) for _ in range(draw(st.integers(0, 10)))]
    options = control_pb2.DeploymentOptions(
        max_surge_percent=draw(PERCENT), max_unavailable_percent=draw(PERCENT), num_replicas=draw(st.integers(1, 10))
    )
    pace = pace_of(options, options.num_replicas)
    spec = control_pb2.DeploymentSpec(options=options, is_paused=draw(st.booleans()))
    before = draw(st.integers(0, options.num_replicas))
    return Case(Observed(replicas=tuple(replicas), nodes=tuple(cluster)), options.num_replicas, pace, spec, before)


@st.composite
def replicas_on(draw: st.DrawFn, cluster: list[Node]) -> Replica:
    node, state = draw(st.sampled_from(cluster)), draw(STATES)
    is_moving = node.is_emptied and state == ReplicaState.RUNNING
    return replace(
        replica(ReplicaState.PENDING_MIGRATION if is_moving else state, draw(st.sampled_from(["v0", "v1", "v2"]))),
        bundle_nodes=(node.node_id,),
        node_ends_at_s=node.ends_at_s,
        is_placed=state != ReplicaState.STARTING or draw(st.booleans()),
        not_ready=draw(st.sampled_from(["", "", "", "warming up"])),
        ready_at_s=draw(st.sampled_from([0.0, NOW_S - 1.0])),
    )


@settings(max_examples=400)
@given(cases())
def test_no_more_are_taken_away_than_the_limit_allows(case: Case) -> None:
    """By updates, pauses, canaries that ended, preemption and drains, alone and together."""
    before = replace(target(case.before, "v1"), request=ONE_CPU) if case.before else None
    aim = replace(target(case.wanted), request=ONE_CPU, min_ready_s=10.0, spec=case.spec, predecessor=before)
    made = plan(desired(aim), case.seen, NOW_S)
    assert not made.problems
    ends = [each for each in made.actions if isinstance(each, StopReplica | KillReplica)]
    serving = {each.replica_id for each in case.seen.replicas if each.is_serving}
    stopped = [each for each in ends if each.replica_id in serving]
    limit = 0 if aim.is_held else case.pace.unavailable_max
    if any(each.reason == Reason.MAKE_ROOM for each in stopped):
        limit = max(limit, case.pace.preempted_max)
    if stopped:
        assert case.serving - len(stopped) >= case.wanted - limit, stopped


@settings(max_examples=400)
@given(cases())
def test_a_drain_alone_takes_nothing_away(case: Case) -> None:
    """Of one version there are always as many as are wanted, if there were, whatever `max_unavailable_percent` is."""
    same = replace(case.seen, replicas=tuple(replace(each, version="v2") for each in case.seen.replicas))
    made = plan(desired(replace(target(case.wanted), request=ONE_CPU, spec=case.spec)), same, NOW_S)
    serving = {each.replica_id for each in same.replicas if each.is_serving}
    stopped = {each.replica_id for each in made.actions if isinstance(each, StopReplica | KillReplica)} & serving
    assert not stopped or len(serving - stopped) >= case.wanted
