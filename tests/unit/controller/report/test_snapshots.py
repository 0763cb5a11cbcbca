"""mesh.controller.report.snapshots: the snapshots of callers and the routes of gateways."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.controller.desired.desired_state import Desired, read_desired
from mesh.controller.plan.cluster_picture import DepartedReplica, Failures, Replica
from mesh.controller.plan.cluster_resources import ClusterResources
from mesh.controller.report.canary_traffic import closed_canaries
from mesh.controller.report.deployment_status import next_verdict
from mesh.controller.report.snapshots import SnapshotMemory, build_routes, build_snapshots
from mesh.options.deployments.autoscaling_options import AutoscalingConfig
from mesh.routing.link_pool import CallingReplica
from mesh.routing.snapshot import DeploymentKey, read_snapshot
from mesh.settings import settings
from mesh.status import DeploymentStatus, ReplicaState
from mesh.v1 import control_pb2
from tests.unit.controller.builders import KEY, application, desired_of, observed, replica


def snapshot_of(*replicas: Replica) -> control_pb2.DeploymentSnapshot:
    return build_snapshots(desired_of(application(version="v2")), observed(*replicas), {})[KEY]


def test_only_serving_replicas_are_listed() -> None:
    """A replica leaves routing before it drains (item 153)."""
    running, updating = replica(), replica(ReplicaState.UPDATING)
    others = [replica(ReplicaState.STARTING), replica(ReplicaState.STOPPING), replica(unhealthy="no answer")]
    expected = {running.replica_id, updating.replica_id}
    assert {each.replica_id for each in snapshot_of(running, updating, *others).replicas} == expected


def test_callers_hear_which_replicas_died_and_which_have_left() -> None:
    """Calls on those that died are not waited for."""
    ends = {
        is_lost: DepartedReplica(replica_id=f"r-{is_lost}", deployment=KEY, at_s=0.0, is_lost=is_lost)
        for is_lost in (True, False)
    }
    seen = replace(observed(replica()), departed=tuple(ends.values()))
    snapshot = build_snapshots(desired_of(application(version="v2")), seen, {})[KEY]
    assert list(snapshot.lost_replica_ids) == ["r-True"]
    other = replace(ends[True], deployment=DeploymentKey("app", "Other"))
    assert not build_snapshots(desired_of(), replace(seen, replicas=(), departed=(other,)), {})


def test_old_and_new_versions_serve_together() -> None:
    assert len(snapshot_of(replica(version="v1"), replica(version="v2")).replicas) == 2


def test_an_unwanted_deployment_serves_until_it_stops() -> None:
    """Deployments that call it may not have finished yet (item 61)."""
    spec = application().deployments[0]
    last = replace(replica(), spec=spec)
    (snapshot,) = build_snapshots(desired_of(), observed(last), {}).values()
    assert [each.replica_id for each in snapshot.replicas] == [last.replica_id]
    assert snapshot.max_ongoing_requests == 5
    assert build_snapshots(desired_of(), observed(replica(ReplicaState.STOPPING)), {}) == {}


def test_limits_come_from_the_options() -> None:
    assert snapshot_of(replica()).max_ongoing_requests == 5


def test_a_failed_deployment_without_replicas_is_unavailable_with_the_reason() -> None:
    """Callers get DeploymentUnavailableError (item 142)."""
    desired = desired_of(application(version="v2"))
    failures = Failures(version="v2", count=6, message="ValueError: no model")
    verdict = next_verdict(None, desired.deployments[KEY], (), failures, ClusterResources(observed(), 0.0))
    assert "ValueError: no model" in build_snapshots(desired, observed(), {KEY: verdict})[KEY].unavailable
    served = build_snapshots(desired, observed(replica(version="v1")), {KEY: verdict})[KEY]
    assert served.unavailable == ""


def test_routes_carry_the_methods_of_the_ingress() -> None:
    app = application()
    app.deployments[0].grpc_methods.add(full_name="/shop.Cart/Add", streams_response=True)
    app.deployments.add(name="Child").grpc_methods.add(full_name="/shop.Stock/Get")
    app.descriptors_digest = "digest"
    (route,) = build_routes(desired_of(app)).routes
    assert route.descriptors_digest == "digest"
    assert [method.full_name for method in route.grpc_methods] == ["/shop.Cart/Add"]


def test_calls_wait_for_the_version_before_that_returns_after_a_failed_update() -> None:
    """Its replicas made room for the new version; once they start again, no call is refused for its failure."""
    state = control_pb2.DesiredState(applications=[application(version="v2")], predecessors=[application(version="v1")])
    desired = read_desired(state)
    failures = Failures(version="v2", count=6, message="ValueError: no model")
    verdict = next_verdict(None, desired.deployments[KEY], (), failures, ClusterResources(observed(), 0.0))

    def refusal_beside(*replicas: Replica) -> str:
        return build_snapshots(desired, observed(*replicas), {KEY: verdict})[KEY].unavailable

    assert refusal_beside(replica(ReplicaState.STARTING, version="v1")) == ""
    for hopeless in (replica(ReplicaState.STARTING, version="v2"), replica(ReplicaState.STOPPING, version="v1")):
        assert "no model" in refusal_beside(hopeless)
    assert "no model" in refusal_beside()


def test_routes_say_whether_the_ingress_takes_web_requests() -> None:
    app = application()
    app.deployments.add(name="Child", serves_web=True, docs_path="/child")
    assert not build_routes(desired_of(app)).routes[0].serves_web
    app.deployments[0].serves_web, app.deployments[0].docs_path = True, "/docs"
    (route,) = build_routes(desired_of(app)).routes
    assert (route.serves_web, route.docs_path) == (True, "/docs")


def test_snapshots_carry_the_report_interval_and_whether_replicas_start_on_demand() -> None:
    """Both come with the snapshot (items 227, 231)."""
    for min_replicas, starts_on_demand in ((0, True), (1, False)):
        rules = AutoscalingConfig(min_replicas=min_replicas, max_replicas=2, metrics_interval_s=3.0).to_message()
        snapshot = build_snapshots(desired_of(application(autoscaling=rules)), observed(), {})[KEY]
        assert (snapshot.load_interval_s, snapshot.starts_on_demand) == (3.0, starts_on_demand)
    interval_s = settings().controller.load_interval_s
    assert (snapshot_of(replica()).load_interval_s, snapshot_of(replica()).starts_on_demand) == (interval_s, False)


def test_a_version_that_is_given_up_fails_calls_immediately() -> None:
    """That holds also where autoscaling wanted the first replica and the deployment is not DEPLOY_FAILED (item 167)."""
    wanted = desired_of(application(version="v2", num_replicas=1))
    failures = Failures(version="v2", count=3, message="ValueError: no model")
    verdict = next_verdict(None, wanted.deployments[KEY], (), failures, ClusterResources(observed(), 0.0))
    unhealthy = replace(verdict, status=DeploymentStatus.UNHEALTHY)
    assert build_snapshots(wanted, observed(), {KEY: unhealthy})[KEY].unavailable.startswith("ValueError: no model")


def test_replicas_of_no_wanted_version_are_not_listed_where_enough_others_serve() -> None:
    """Those of a canary that has just ended, until they stop."""
    wanted, ended = [replica(version="v2"), replica(version="v2")], replica(version="v3")
    assert {each.replica_id for each in snapshot_of(*wanted, ended).replicas} == {each.replica_id for each in wanted}
    assert len(snapshot_of(wanted[0], ended).replicas) == 2


def test_a_canary_that_is_closed_gets_no_requests_by_whatever_rule() -> None:
    """Callers know its replicas already, so that those that serve for it find each other."""
    beside, canary = application(version="v1"), application(version="v2")
    canary.traffic.CopyFrom(control_pb2.TrafficRule(percent=100.0, header="x-canary"))
    desired = read_desired(control_pb2.DesiredState(applications=[beside], canaries=[canary]))
    seen = observed(replica(version="v1"), replace(replica(version="v2"), ready_at_s=10.0))
    assert closed_canaries(desired, observed(replica(version="v1")), 1e9) == {"app"}
    delay_s = settings().controller.canary_open_delay_s
    assert closed_canaries(desired, seen, 10.0 + delay_s / 2) == {"app"}
    assert not closed_canaries(desired, seen, 10.0 + delay_s)
    closed = build_snapshots(desired, seen, {}, {"app"})[KEY]
    assert {each.version for each in closed.replicas} == {"v1", "v2"}
    assert (closed.canary_version, closed.traffic, closed.HasField("traffic")) == (
        "v2",
        control_pb2.TrafficRule(),
        True,
    )
    (route,) = build_routes(desired, seen, {"app"}).routes
    assert (route.traffic, route.HasField("traffic")) == (control_pb2.TrafficRule(), True)
    assert build_routes(desired, seen).routes[0].traffic == canary.traffic


def test_replicas_know_from_a_snapshot_of_another_deployment_whether_they_are_of_the_canary() -> None:
    """Those of a deployment that both versions share are of neither."""
    beside, canary = application(version="v1"), application(version="v2")
    canary.traffic.CopyFrom(control_pb2.TrafficRule(percent=10.0))
    for app in (beside, canary):
        app.deployments.add(name="Shared", version="s1").options.num_replicas = 1
    desired = read_desired(control_pb2.DesiredState(applications=[beside], canaries=[canary]))
    message = build_snapshots(desired, observed(replica(version="v1"), replica(version="v2")), {})
    for key in (KEY, DeploymentKey("app", "Shared")):
        snapshot = read_snapshot(message[key])
        assert snapshot is not None
        assert snapshot.traffic is not None
        tracks = {each: snapshot.traffic.track_of(CallingReplica("app", "Model", each)) for each in ("v1", "v2")}
        assert tracks == {"v1": "|-app|", "v2": "|+app|"}
        assert snapshot.traffic.track_of(CallingReplica("app", "Shared", "s1")) == ""


_SHOP, _STOCK = DeploymentKey("shop", "Model"), DeploymentKey("stock", "Model")
_STATES = [
    desired_of(application("shop", "v2"), application("stock", "v2")),
    desired_of(application("shop", "v2", 5), application("stock", "v2")),
    desired_of(application("shop", "v2")),
]
_CANARY = application("shop", "v3")
_CANARY.traffic.percent = 10.0
_STATES.append(read_desired(control_pb2.DesiredState(applications=[application("shop", "v2")], canaries=[_CANARY])))
_REPLICAS = [
    replace(replica(state, version), deployment=key)
    for key in (_SHOP, _STOCK)
    for version in ("v2", "v3")
    for state in (ReplicaState.RUNNING, ReplicaState.STARTING)
]
_LOST = [
    DepartedReplica(replica_id="gone", deployment=key, at_s=0.0, is_lost=is_lost)
    for key, is_lost in ((_SHOP, True), (_SHOP, False), (_STOCK, True))
]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(_STATES),
            st.lists(st.sampled_from(_REPLICAS), unique_by=lambda each: each.replica_id),
            st.lists(st.sampled_from(_LOST), max_size=2),
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_snapshots_that_are_remembered_are_what_would_be_built(turns: list[tuple[Any, ...]]) -> None:
    """Whatever has changed since the last turn, and though the publisher numbers them."""
    memory = SnapshotMemory()
    failed = Failures(version="v2", count=20, message="ValueError: no model")
    for number, (desired, replicas, departed, is_failed) in enumerate(turns):
        seen = replace(observed(*replicas), departed=tuple(departed))
        failures = failed if is_failed else Failures()
        verdicts = {
            key: next_verdict(None, target, (), failures, ClusterResources(seen, 0.0))
            for key, target in desired.deployments.items()
        }
        built = build_snapshots(desired, seen, verdicts, memory=memory)
        for snapshot in built.values():
            snapshot.version = 0
        assert built == build_snapshots(desired, seen, verdicts)
        for snapshot in built.values():
            snapshot.version = number


def test_snapshots_of_what_has_not_changed_are_not_built_again() -> None:
    memory, desired, seen = SnapshotMemory(), _STATES[0], observed(*_REPLICAS)
    first = build_snapshots(desired, seen, {}, memory=memory)
    assert all(first[key] is each for key, each in build_snapshots(desired, seen, {}, memory=memory).items())
    fewer = build_snapshots(desired, observed(*_REPLICAS[1:]), {}, memory=memory)
    assert [fewer[key] is first[key] for key in (_SHOP, _STOCK)] == [False, True]


def test_the_replicas_of_all_are_not_searched_for_each_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """At each publication while a file of thousands of applications is updated."""
    names = [f"app {number}" for number in range(100)]
    desired = Desired(
        applications={name: application(name, "v2") for name in names},
        predecessors={name: application(name, "v1") for name in names},
    )
    replicas = [replace(replica(), deployment=DeploymentKey(name, "Model")) for name in names]
    compared: list[object] = []
    monkeypatch.setattr(DeploymentKey, "__eq__", lambda one, other: compared.append(one) or tuple.__eq__(one, other))
    assert len(build_routes(desired, observed(*replicas)).routes) == len(names)
    assert len(compared) < 20 * len(names)
