"""mesh.controller.plan.rollout: surge first, never below the target, a failing version stops."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mesh.controller.desired.resource_request import ResourceRequest
from mesh.controller.plan.actions import Reason
from mesh.controller.plan.cluster_picture import NO_FAILURES, Failures, Node, Observed, Replica
from mesh.controller.plan.cluster_resources import ClusterResources
from mesh.controller.plan.replica_placement import DeploymentPlacement
from mesh.controller.plan.rollout import Step, is_given_up, missing_predecessors, next_step, retry_delay_s
from mesh.defaults.control_settings import ControllerSettings
from mesh.options.deployments.rollout_policy import pace_of
from mesh.status import ReplicaState
from mesh.v1 import control_pb2
from tests.unit.controller.builders import KEY, replica, target

ONE_CPU = ResourceRequest(((("CPU", 1.0),),))
RUNNING, STARTING, STOPPING = ReplicaState.RUNNING, ReplicaState.STARTING, ReplicaState.STOPPING
NOW_S = 1000.0
LIMITS = ControllerSettings()
PATIENCE_S, ENVIRONMENT_PATIENCE_S = LIMITS.unschedulable_after_s, LIMITS.environment_timeout_s


def step(
    wanted: int,
    *replicas: Replica,
    failures: Failures = NO_FAILURES,
    config_failures: Failures = NO_FAILURES,
    cpus: float = 1000.0,
    min_ready_s: float = 0.0,
    before: int = 0,
    is_held: bool = False,
) -> Step:
    """In a cluster of one node; every replica of the builders holds one CPU. `before`: replicas of v1 that are kept."""
    node = Node(node_id="n1", is_head=True, total={"CPU": cpus}, available={"CPU": cpus})
    observed = Observed(replicas=replicas, nodes=(node,), config_failures={(KEY, "v2"): config_failures})
    resources = ClusterResources(observed, NOW_S)
    placement = DeploymentPlacement(resources, ONE_CPU, replicas, "v2")
    shortage = placement.reserve_for_waiting()
    predecessor = target(before, "v1") if before else None
    spec = control_pb2.DeploymentSpec(is_paused=is_held)
    aim = replace(target(wanted), min_ready_s=min_ready_s, predecessor=predecessor, spec=spec)
    made = next_step(aim, replicas, failures, shortage, placement)
    assert made == next_step(aim, replicas, failures, shortage, placement), "planning has an effect"
    return made


def test_a_new_deployment_starts_all_its_replicas_together() -> None:
    assert step(5) == Step(starts=5)


def test_a_reached_target_needs_nothing() -> None:
    assert step(2, replica(), replica()) == Step()


def test_a_dead_replica_is_replaced() -> None:
    assert step(2, replica()).starts == 1


def test_a_starting_replica_counts_as_started() -> None:
    assert step(2, replica(), replica(STARTING)) == Step()


def test_a_leaving_replica_is_replaced_before_it_is_gone() -> None:
    assert step(2, replica(), replica(STOPPING)).starts == 1


def test_one_replica_is_replaced_by_starting_the_new_one_first() -> None:
    """A deployment with one replica has no gap (item 189, C17)."""
    old = replica(version="v1")
    assert step(1, old) == Step(starts=1, start_reason=Reason.UPDATE)
    assert step(1, old, replica(STARTING)) == Step()
    assert step(1, old, replica()) == Step(reasoned_stops=((old, Reason.UPDATE),))


def test_no_replica_leaves_while_the_environment_of_the_next_one_is_made() -> None:
    """It may take minutes, and Ray counts the room as taken meanwhile: that is not a shortage."""
    spec = control_pb2.DeploymentSpec(options={"actor": {"runtime_env_json": '{"pip": ["torch"]}'}})
    for age_s, leaves in ((PATIENCE_S + 1, False), (ENVIRONMENT_PATIENCE_S + 1, True)):
        old, new = replica(version="v1"), replica(STARTING, created_at_s=NOW_S - age_s)
        new = replace(new, is_placed=False, spec=spec)
        for cpus in (2.0, 1000.0):
            assert bool(step(1, old, new, cpus=cpus).stops) == leaves


def test_an_update_starts_a_fifth_beyond_the_target() -> None:
    """The surge is a fifth, rounded up (item 189)."""
    olds = [replica(version="v1") for _ in range(10)]
    assert step(10, *olds) == Step(starts=2, start_reason=Reason.UPDATE)


def test_old_replicas_that_do_not_serve_stop_first() -> None:
    starting, running = replica(STARTING, "v1"), replica(version="v1")
    assert step(1, starting, running).stops == (starting,)


def test_an_unhealthy_replica_is_stopped_and_replaced() -> None:
    """Stop and start happen in one step (item 150)."""
    broken = replica(unhealthy="no answer")
    assert step(2, replica(), broken) == Step(1, Reason.REPLACEMENT, ((broken, Reason.UNHEALTHY),))


def test_scaling_down_stops_those_that_do_not_serve_then_the_newest() -> None:
    """Replicas that start leave before those that serve (item 191)."""
    oldest, newest, starting = replica(created_at_s=1.0), replica(created_at_s=3.0), replica(STARTING, created_at_s=2.0)
    assert step(1, oldest, newest, starting).stops == (starting, newest)


def test_a_version_whose_constructors_keep_failing_is_given_up() -> None:
    """The limit is the smaller one of 20 and three per replica, without a success (item 148)."""
    assert step(2, failures=Failures(version="v2", count=5)).starts == 2
    assert step(2, failures=Failures(version="v2", count=6)).starts == 0


def test_a_version_that_has_come_up_once_is_tried_never_ending() -> None:
    """A success lifts the limit where no old version serves (item 148)."""
    failures = Failures(version="v2", count=60, has_succeeded=True)
    assert step(2, failures=failures).starts == 2
    assert step(2, replica(), failures=failures).starts == 1, "one that serves is of the same version"
    assert step(2, replica(STARTING, version="v1"), failures=failures).starts == 2, "an old one that never served"


def test_a_failing_version_leaves_the_old_one_serving() -> None:
    """During an update a success does not lift the limit (items 148, 190)."""
    olds = [replica(version="v1"), replica(version="v1")]
    assert step(2, *olds, failures=Failures(version="v2", count=6, has_succeeded=True)) == Step()


def test_a_new_replica_replaces_an_old_one_when_it_has_served_for_a_while() -> None:
    """A version that dies seconds after it came up must replace nothing (item 189)."""
    old = replica(version="v1")
    for served_s, leaves in ((9.0, False), (10.0, True)):
        new = replace(replica(), ready_at_s=NOW_S - served_s)
        assert bool(step(1, old, new, min_ready_s=10.0).stops) == leaves
    new, moving = replace(replica(), ready_at_s=NOW_S), replace(replica(), node_ends_at_s=NOW_S + 100.0)
    assert step(1, moving, new, min_ready_s=10.0).stops == (moving,), "no other version is replaced"


def test_an_update_is_given_up_after_fewer_failures_than_a_first_start() -> None:
    """Two more than the surge (item 190)."""
    olds = [replica(version="v1") for _ in range(10)]
    wanted = replace(target(10), update_failures_max=4)
    assert not is_given_up(wanted, olds, Failures(version="v2", count=3, has_succeeded=True))
    assert is_given_up(wanted, olds, Failures(version="v2", count=4, has_succeeded=True))
    assert not is_given_up(wanted, [], Failures(version="v2", count=4))


def test_a_user_config_counts_as_taken_over_when_its_replica_has_served_with_it_for_a_while() -> None:
    outdated = configured("1", "c0")
    for served_s, goes_on in ((9.0, False), (10.0, True)):
        changed = replace(configured("2", "c1"), reconfigured_at_s=NOW_S - served_s)
        assert bool(step(2, outdated, changed, min_ready_s=10.0).reconfigures) == goes_on


def returning(wanted: int, *replicas: Replica, before: int) -> int:
    """How many replicas of v1, of which `before` are kept, are started."""
    placement = DeploymentPlacement(ClusterResources(Observed(replicas=replicas), NOW_S), ONE_CPU, replicas, "v2")
    aim = replace(target(wanted), predecessor=target(before, "v1"))
    return missing_predecessors(aim, replicas, placement)


def test_the_version_before_keeps_its_number_until_the_new_one_is_proven() -> None:
    """One of its replicas died while the new version starts, loads or fails."""
    olds = [replica(version="v1") for _ in range(3)]
    coming_back = replica(STARTING, version="v1")
    assert returning(4, *olds, before=4) == 1
    assert returning(4, *olds, replica(STARTING), before=4) == 1
    assert returning(4, *olds, coming_back, before=4) == 0
    assert returning(4, *olds, replica(), before=4) == 0, "a new one serves instead"
    assert returning(4, *olds, before=2) == 0, "it never had more"
    assert returning(4, *olds[:1], replica(STARTING), replica(STARTING), before=4) == 2, "the surge is the limit"
    assert step(4, *olds, coming_back, before=4).stops == ()


def test_those_that_come_back_stop_when_new_ones_serve_instead() -> None:
    olds, back = [replica(version="v1") for _ in range(2)], [replica(STARTING, version="v1") for _ in range(2)]
    assert step(4, *olds, *back, before=4).stops == ()
    assert step(4, *olds, *back, replica(), before=4).stops == (back[1],)


def test_a_version_whose_last_old_replica_died_is_not_tried_again_either() -> None:
    """It failed while the version before served, which is kept."""
    failures = Failures(version="v2", count=20, has_succeeded=True)
    assert step(1, before=1, failures=failures).starts == 0
    assert returning(1, before=1) == 1


def test_a_version_that_has_run_is_never_given_up() -> None:
    """Its first replica came up in the life of an earlier controller."""
    wanted = replace(target(1), spec=control_pb2.DeploymentSpec(has_run=True))
    assert not is_given_up(wanted, [], Failures(version="v2", count=60))


def test_replacements_of_a_crashing_replica_slow_down() -> None:
    crashing = Failures(version="v2", count=5, last_at_s=NOW_S - 1.0, has_succeeded=True)
    assert step(1, failures=crashing).starts == 0
    assert step(1, failures=replace(crashing, last_at_s=NOW_S - 2.0)).starts == 1
    assert [retry_delay_s(count) for count in (0, 1, 2, 3, 50)] == [0.0, 0.0, 0.25, 0.5, 10.0]


def homeless() -> Replica:
    """Just started, and no node has room for it."""
    return replace(replica(STARTING, created_at_s=NOW_S), is_placed=False, bundle_nodes=())


def test_an_old_replica_makes_room_at_once_for_a_new_one_that_finds_none() -> None:
    """Without room the order is stop first (C17)."""
    old = replica(version="v1")
    assert step(1, old, homeless(), cpus=1).stops == (old,)
    assert step(1, old, homeless(), cpus=2).stops == ()


def test_no_replica_is_preempted_while_others_free_enough() -> None:
    """What is leaving makes room enough."""
    leaving, old = replica(STOPPING, version="v1"), replica(version="v1")
    assert step(1, leaving, old, homeless(), cpus=2).stops == ()


def test_no_replica_is_preempted_without_effect() -> None:
    old = replace(replica(version="v1"), bundles=((("GPU", 1.0),),))
    assert step(1, old, homeless(), cpus=0).stops == ()


def test_an_old_replica_makes_room_when_the_accounts_are_wrong() -> None:
    """Others may use more of the cluster than Ray has reported."""
    old = replica(version="v1")
    waiting = replace(replica(STARTING, created_at_s=NOW_S - PATIENCE_S - 1.0), is_placed=False)
    assert step(1, old, waiting, cpus=1000).stops == (old,)
    assert step(1, old, replace(waiting, created_at_s=NOW_S - PATIENCE_S + 1.0), cpus=1000).stops == ()


def test_room_is_made_for_no_more_than_the_surge() -> None:
    olds = [replica(version="v1"), replica(version="v1")]
    waiting = [homeless(), homeless()]
    assert len(step(3, *olds, *waiting, cpus=2).stops) == 0
    assert len(step(2, *olds, *waiting, cpus=2).stops) == 1


def test_those_whose_time_is_over_count_towards_the_surge() -> None:
    """They stop in any case, so no other is preempted."""
    overdue = replace(replica(version="v1"), node_ends_at_s=NOW_S + 1.0)
    olds = [overdue, replica(version="v1"), replica(version="v1")]
    assert step(3, *olds, homeless(), homeless(), cpus=3).stops == (overdue,)


def test_those_on_a_node_that_ends_soonest_leave_first() -> None:
    """The order is that of the deadlines (item 192)."""
    old = replica(version="v1")
    late, soon = (
        replace(replica(ReplicaState.PENDING_MIGRATION), node_ends_at_s=NOW_S + after_s) for after_s in (90.0, 60.0)
    )
    assert step(2, old, late, soon, replica()).stops == (soon, late)


def test_replacements_on_other_nodes_do_not_wait_for_each_other() -> None:
    """A node's end does not wait, so the surge does not limit them (item 192)."""
    moving = [replace(replica(ReplicaState.PENDING_MIGRATION), node_ends_at_s=NOW_S + 60.0) for _ in range(10)]
    assert step(10, *moving).starts == 10


def test_another_configuration_is_taken_over_in_place() -> None:
    """No process is replaced for it (item 187)."""
    outdated = replace(replica(), config_version="c0")
    updating = replace(replica(ReplicaState.UPDATING), config_version="c0")
    assert step(2, outdated, updating) == Step(reconfigures=(outdated,))


def configured(user_config: str, config_version: str, state: ReplicaState = RUNNING) -> Replica:
    spec = control_pb2.DeploymentSpec(options={"user_config_json": user_config})
    return replace(replica(state), config_version=config_version, spec=spec)


def test_a_user_config_is_taken_over_by_as_many_at_a_time_as_the_surge_allows() -> None:
    """User code may refuse it (item 187)."""
    updating = configured("1", "c0", ReplicaState.UPDATING)
    outdated = [configured("1", "c0") for _ in range(9)]
    assert len(step(10, *outdated, updating).reconfigures) == 1
    assert len(step(10, *outdated, configured("2", "c1")).reconfigures) == 2
    harmless = [replace(each, spec=control_pb2.DeploymentSpec()) for each in outdated]
    assert len(step(10, *harmless, updating).reconfigures) == 9, "the same user_config with other options"


def test_a_user_config_that_failed_reaches_no_other_replica() -> None:
    outdated = [configured("1", "c0") for _ in range(10)]
    assert step(10, *outdated, config_failures=Failures(version="c1", count=1)) == Step()
    assert len(step(10, *outdated, config_failures=Failures(version="c0", count=1)).reconfigures) == 2


replicas_strategy = st.lists(
    st.builds(
        replica,
        st.sampled_from([RUNNING, STARTING, STOPPING, ReplicaState.UPDATING]),
        st.sampled_from(["v1", "v2"]),
        created_at_s=st.floats(NOW_S - 5.0, NOW_S),
        unhealthy=st.sampled_from(["", "", "", "no answer"]),
    ),
    max_size=12,
)


@given(replicas=replicas_strategy, wanted=st.integers(1, 8))
def test_a_step_never_takes_the_serving_below_the_target(replicas: list[Replica], wanted: int) -> None:
    stops = set(step(wanted, *replicas).stops)
    before = [each for each in replicas if each.is_serving]
    after = [each for each in before if each not in stops]
    assert len(after) >= min(wanted, len(before))


@given(replicas=replicas_strategy, wanted=st.integers(1, 8))
def test_a_step_never_starts_beyond_the_surge(replicas: list[Replica], wanted: int) -> None:
    made = step(wanted, *replicas)
    starts = made.starts
    new = [each for each in replicas if each.version == "v2" and not each.is_leaving and not each.unhealthy]
    old = [each for each in replicas if each.version == "v1" and each.is_serving and each not in made.stops]
    assert starts == 0 or len(new) + starts <= wanted
    most = wanted + pace_of(control_pb2.DeploymentOptions(), wanted).surge_max
    assert starts == 0 or not old or len(new) + len(old) + starts <= most


@given(replicas=replicas_strategy, wanted=st.integers(1, 8))
def test_steps_converge_from_anywhere(replicas: list[Replica], wanted: int) -> None:
    for _ in range(40):
        made = step(wanted, *replicas)
        if made == Step() and all(each.state == RUNNING for each in replicas):
            break
        replicas = [_carried_out(each, made) for each in replicas if each.state != STOPPING]
        replicas += [replica(STARTING, created_at_s=NOW_S) for _ in range(made.starts)]
    assert [(each.version, each.state) for each in replicas] == [("v2", RUNNING)] * wanted


@given(replicas=replicas_strategy, wanted=st.integers(1, 8))
def test_a_step_that_is_under_way_is_not_taken_again(replicas: list[Replica], wanted: int) -> None:
    made = step(wanted, *replicas)
    under_way = [replace(each, state=STOPPING) if each in made.stops else each for each in replicas]
    under_way += [replica(STARTING, created_at_s=NOW_S) for _ in range(made.starts)]
    assert step(wanted, *under_way) == Step()


def _carried_out(each: Replica, made: Step) -> Replica:
    if each in made.stops:
        return replace(each, state=STOPPING)
    return replace(each, state=RUNNING, config_version="c1")


@given(
    replicas=st.lists(st.builds(replica, version=st.sampled_from(["v1", "v2", "v3"])), max_size=12),
    wanted=st.integers(1, 8),
    is_held=st.booleans(),
    has_failed=st.booleans(),
)
def test_strays_stop_first_and_never_take_the_serving_below_the_target(
    replicas: list[Replica], wanted: int, is_held: bool, has_failed: bool
) -> None:
    """v3 is neither wanted nor the version before."""
    failures = Failures(version="v2", count=20) if has_failed else NO_FAILURES
    stops = step(wanted, *replicas, failures=failures, before=wanted, is_held=is_held).stops
    staying = [each for each in replicas if each not in stops]
    assert len(staying) >= min(wanted, len(replicas))
    stray_stays = any(each.version == "v3" for each in staying)
    assert not (stray_stays and any(each.version == "v1" for each in stops))
    assert not (stray_stays and len(staying) > wanted and any(each.version == "v1" for each in staying))


def test_every_stop_has_its_reason() -> None:
    broken, starting = replica(unhealthy="no answer"), replica(STARTING, "v1")
    moving = replace(replica(), node_ends_at_s=NOW_S + 1.0)
    failed = replace(replica(STARTING), unhealthy="ValueError: no model")
    assert dict(step(1, broken, failed, moving, starting).reasoned_stops) == {
        broken: Reason.UNHEALTHY,
        failed: Reason.START_FAILED,
        moving: Reason.NODE_DRAIN,
        starting: Reason.UPDATE,
    }


def test_scaling_down_and_making_room_are_reasons_too() -> None:
    old = replica(version="v1")
    assert [reason for _, reason in step(1, replica(), replica()).reasoned_stops] == [Reason.SCALE_DOWN]
    assert step(1, old, homeless(), cpus=1).reasoned_stops == ((old, Reason.MAKE_ROOM),)
