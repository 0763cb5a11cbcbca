"""Stop order: callers leave before those they call, and every replica leaves in the end."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mesh.controller.plan.actions import KillReplica, Reason, StopReplica
from mesh.controller.plan.cluster_picture import Observed, Replica
from mesh.controller.plan.planner import plan
from mesh.controller.plan.stop_order import still_called
from mesh.routing.snapshot import DeploymentKey
from mesh.status import ReplicaState
from mesh.v1 import control_pb2
from tests.unit.controller.builders import desired, gateway, observed, replica, target

NOW_S = 1000.0


def serving(name: str, *callees: str, version: str = "v1") -> Replica:
    spec = control_pb2.DeploymentSpec(name=name, version=version, callees=callees)
    return replace(replica(version=version), deployment=DeploymentKey("app", name), spec=spec)


def leaving(each: Replica, since_at_s: float = NOW_S) -> Replica:
    return replace(each, state=ReplicaState.STOPPING, since_at_s=since_at_s)


def stopped(*replicas: Replica, wanted: Iterable[str] = (), now_s: float = NOW_S) -> set[str]:
    """Names of the deployments that stop."""
    targets = [replace(target(1, "v1"), key=DeploymentKey("app", name)) for name in wanted]
    actions = plan(desired(*targets), observed(*replicas), now_s).actions
    ids = {action.replica_id for action in actions if isinstance(action, StopReplica)}
    return {each.deployment.name for each in replicas if each.replica_id in ids}


def test_callers_stop_before_those_they_call() -> None:
    a, b, c = serving("A", "B"), serving("B", "C"), serving("C")
    assert stopped(c, b, a) == {"A"}
    assert stopped(c, b, leaving(a)) == set()
    assert stopped(c, b) == {"B"}
    assert stopped(c) == {"C"}


def test_a_deployment_waits_for_all_its_callers() -> None:
    a, b, shared = serving("A", "Shared"), serving("B", "Shared"), serving("Shared")
    assert stopped(shared, leaving(a), b) == {"B"}
    assert stopped(shared, leaving(a), leaving(b)) == set()


def test_a_caller_that_is_overdue_is_not_waited_for() -> None:
    a, b = leaving(serving("A", "B")), serving("B")
    assert stopped(a, b, now_s=NOW_S + a.drain.timeout_s + a.drain.margin_s) == set()
    assert stopped(a, b, now_s=NOW_S + a.drain.timeout_s + a.drain.margin_s + 0.1) == {"B"}


def test_deployments_that_call_each_other_stop_together_and_after_their_callers() -> None:
    a, b, c = serving("A", "B"), serving("B", "C"), serving("C", "B")
    assert stopped(a, b, c) == {"A"}
    assert stopped(b, c) == {"B", "C"}


def test_a_replica_without_callers_does_not_wait() -> None:
    starting = replace(serving("B"), state=ReplicaState.STARTING, is_placed=False)
    actions = plan(desired(), observed(serving("A", "B"), starting), NOW_S).actions
    assert KillReplica(starting.replica_id, Reason.DELETED) in actions


def test_an_old_version_keeps_those_it_calls_until_it_has_gone() -> None:
    """The new version of A calls no other; what the old one calls is not wanted any more, but needed."""
    old, new, b = serving("A", "B", version="v0"), serving("A", version="v1"), serving("B")
    assert stopped(old, b, wanted=["A"]) == set()
    assert stopped(leaving(old), new, b, wanted=["A"]) == set()
    assert stopped(new, b, wanted=["A"]) == {"B"}


def test_applications_do_not_wait_for_each_other() -> None:
    other = replace(serving("B"), deployment=DeploymentKey("other", "B"))
    assert stopped(serving("A", "B"), other) == {"A", "B"}


def test_a_shutdown_starts_with_the_gateways() -> None:
    a, b = serving("A", "B"), serving("B")
    ending = desired(is_shutting_down=True, grpc_port=9000)
    assert not [
        action
        for action in plan(ending, observed(a, b, gateways=(gateway(),)), NOW_S).actions
        if isinstance(action, StopReplica)
    ]
    assert plan(ending, observed(a, b), NOW_S).actions == (StopReplica(a.replica_id, Reason.SHUTDOWN),)


NAMES = "ABCDEF"
graphs = st.dictionaries(st.sampled_from(NAMES), st.sets(st.sampled_from(NAMES)), min_size=1)
acyclic_graphs = st.dictionaries(st.sampled_from(NAMES), st.sets(st.sampled_from(NAMES))).map(
    lambda graph: {name: {callee for callee in callees if callee > name} for name, callees in graph.items()}
)


def of_graph(graph: Mapping[str, Iterable[str]]) -> list[Replica]:
    return [serving(name, *sorted(callees)) for name, callees in graph.items() for _ in range(2)]


def stages(replicas: Sequence[Replica]) -> list[set[str]]:
    """What stops in each step of a delete, when everything that stops has gone by the next."""
    steps: list[set[str]] = []
    while replicas:
        steps.append(stopped(*replicas))
        assert steps[-1], "nothing would ever stop"
        replicas = [each for each in replicas if each.deployment.name not in steps[-1]]
    return steps


@given(graphs)
def test_every_deployment_stops_in_the_end_whatever_the_calls(graph: dict[str, set[str]]) -> None:
    assert set().union(*stages(of_graph(graph))) == set(graph)


@given(acyclic_graphs)
def test_no_deployment_stops_before_its_callers(graph: dict[str, set[str]]) -> None:
    stage_of = {name: number for number, names in enumerate(stages(of_graph(graph))) for name in names}
    for caller, callees in graph.items():
        assert all(stage_of[caller] < stage_of[callee] for callee in callees & graph.keys())


@given(graphs)
def test_only_what_has_callers_waits(graph: dict[str, set[str]]) -> None:
    groups = Observed(replicas=tuple(of_graph(graph))).by_deployment()
    called = {callee for callees in graph.values() for callee in callees}
    assert {key.name for key in still_called(groups, groups, NOW_S)} <= called
