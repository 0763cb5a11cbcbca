"""The rollout: from the replicas a deployment has to those it is to have. Pure.

Theory of operation. Replicas are of the wanted version ("new") or of another one ("old"). A step asks three questions:

1. Which replicas do not serve and are not wanted? They stop first: unhealthy ones, old ones that are not up yet.
2. How many new ones are missing? They start together; while old ones serve, only as many as the surge allows.
3. How many serving replicas are above the target? They stop: old ones first, then new ones above the target.

So the number of serving replicas falls below the target only through failures, and by as many as
`max_unavailable_percent` allows. There is one exception: where new replicas find no room unless old ones stop, old ones
are preempted, at most as many as the surge allows, unless the deployment has a limit of its own.
A new replica counts as one that an old one may stop for when it has served for `min_ready_s`. A version that keeps
failing while old ones serve, in its constructor or soon after, starts no more replicas; the old ones stay.

Until the wanted version is proven, the version before is kept, code included: of its replicas that die others are
started, so that those that serve stay as many as before. With the same version before, new replicas start with the
configuration before, and take over the wanted one like the others.

Running replicas take over another configuration in place. One with another `user_config` may be refused by user code,
so only as many replicas as the surge allows take it over at a time, and after the first failure no other one does: the
replica that refuses it and all the others serve on with the one before.

Replicas of neither the wanted version nor the one before, for example of a canary that ended, stop first. Where the
rollout stands still, the version before comes back in their place.

A rollout that is paused starts no new replica, stops no old one for a new one and reconfigures none, until it is
resumed. It still scales: the version before starts what is missing, and stops what is above the target.

A replica whose node is being drained counts as old (item 192): it serves until a new one does on another node. Where
Ray drains the node, all replacements start together. If none serves in time, it drains anyway, early enough to finish
before the node ends. Where an operator drains it, the node stays until all have moved: at most as many replacements as
the surge allows start at a time, but at least one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mesh.controller.desired.desired_state import DeploymentTarget
from mesh.controller.plan.actions import Reason
from mesh.controller.plan.backoff import Backoff
from mesh.controller.plan.cluster_picture import Failures, Observed, Replica
from mesh.controller.plan.replica_placement import DeploymentPlacement, Shortage
from mesh.status import ReplicaState
from mesh.v1 import control_pb2

_RETRY = Backoff(first_s=0.25, max_s=10.0)


@dataclass(frozen=True, slots=True)
class Step:
    starts: int = 0
    start_reason: Reason = Reason.SCALE_UP
    reasoned_stops: tuple[tuple[Replica, Reason], ...] = ()
    reconfigures: tuple[Replica, ...] = ()

    @property
    def preempted(self) -> tuple[Replica, ...]:
        return tuple(replica for replica, reason in self.reasoned_stops if reason is Reason.MAKE_ROOM)

    @property
    def stops(self) -> tuple[Replica, ...]:
        return tuple(replica for replica, _ in self.reasoned_stops)


def next_step(
    target: DeploymentTarget,
    replicas: Sequence[Replica],
    failures: Failures,
    shortage: Shortage,
    placement: DeploymentPlacement,
    returning_starts: int = 0,
) -> Step:
    """What brings `replicas` (all of the deployment) closer to `target`.

    For example, an update of 10 replicas with a surge of 2 while the cluster has room: start 2 of the new version
    (10 old serve), when they serve stop 2 old ones (8 + 2) and start 2 more, and so on until 0 + 10.
    `returning_starts`: replicas of the version before that this turn starts.
    """
    broken = [replica for replica in replicas if not replica.is_leaving and replica.unhealthy]
    new, others = _new_and_others(target, replicas, placement)
    old = [replica for replica in others if replica.is_serving]
    silent = [replica for replica in others if _is_silent(replica)]
    returning = [replica for replica in others if _is_returning(target, replica, placement)]
    gave_up = is_given_up(target, replicas, failures)
    stands_still = gave_up or target.is_held
    missing_before = _missing_before(target, new, [*old, *silent], placement, stands_still=stands_still)
    surplus = returning[max(0, missing_before) :]
    kept = {replica.replica_id for replica in returning} - {replica.replica_id for replica in surplus}
    useless = [replica for replica in others if _is_useless(replica) and replica.replica_id not in kept]
    excess = _excess(target, new, old, shortage, placement, stands_still=stands_still)
    leaving = {replica.replica_id for replica, _ in excess}
    old_staying = [replica for replica in (*old, *silent) if replica.replica_id not in leaving]
    starts = 0
    if not gave_up and not (target.is_held and target.has_other_version_before):
        starts = _starts(target, new, old_staying, len(kept) + returning_starts, failures, placement)
    return Step(
        starts=starts,
        start_reason=_start_reason(target, broken, others, placement) if starts else Reason.SCALE_UP,
        reasoned_stops=(
            *((replica, _fault(replica)) for replica in broken),
            *((replica, _stop_reason(target, replica, placement)) for replica in useless),
            *excess,
        ),
        reconfigures=tuple(_outdated(target, new, leaving, placement)),
    )


def missing_predecessors(
    target: DeploymentTarget, replicas: Sequence[Replica], placement: DeploymentPlacement, *, is_given_up: bool = False
) -> int:
    """How many replicas of the version before are to be started, so that it keeps its number."""
    before = target.predecessor
    if before is None or not target.has_other_version_before:
        return 0
    if _is_paused(placement.resources.observed.failures_of(before.key, before.version), placement):
        return 0
    new, others = _new_and_others(target, replicas, placement)
    old = [replica for replica in others if replica.is_serving or _is_silent(replica)]
    returning = sum(_is_returning(target, replica, placement) for replica in others)
    stands_still = is_given_up or target.is_held
    surge_max = _surge_max(target, old, placement) if stands_still else target.pace.surge_max
    room = target.num_replicas + surge_max - len(new) - len(old) - returning
    return max(0, min(_missing_before(target, new, old, placement, stands_still=stands_still) - returning, room))


def is_given_up(target: DeploymentTarget, replicas: Sequence[Replica], failures: Failures) -> bool:
    """The version failed so often that no more replicas of it are started. One that hangs needs to do so only once.

    Once a replica has come up, later failures are taken for passing ones, with two exceptions: while an old version
    serves, because a bad new one must not replace it, and for a canary that has not proven itself beside one. A version
    that proved itself before is not new: it comes back after an outage, also where a failed update has left replicas
    that serve.
    """
    is_on_trial = target.is_canary and not target.is_proven
    is_beside_others = target.has_other_version_before or has_old_serving(target, replicas)
    if is_on_trial or (is_beside_others and not target.was_proven):
        failures_max = min(target.update_failures_max, target.constructor_failures_max)
        return failures.has_hung or failures.count >= failures_max
    is_failed = failures.has_hung or failures.count >= target.constructor_failures_max
    return is_failed and not _has_run(target, failures)


def _has_run(target: DeploymentTarget, failures: Failures) -> bool:
    return target.has_run or failures.has_succeeded


def is_config_rejected(target: DeploymentTarget, observed: Observed) -> bool:
    """A replica did not take over the wanted configuration, or did not outlive it: no other one tries."""
    return observed.config_failures_of(target.key, target.version, target.config_version).count > 0


def has_old_serving(target: DeploymentTarget, replicas: Sequence[Replica]) -> bool:
    return any(replica.version != target.version and replica.is_serving for replica in replicas)


def retry_delay_s(failures: int) -> float:
    """Pause before a replacement after this many failures in a row: none after the first."""
    return _RETRY.pause_s(failures - 1)


def _starts(
    target: DeploymentTarget,
    new: Sequence[Replica],
    old: Sequence[Replica],
    returning: int,
    failures: Failures,
    placement: DeploymentPlacement,
) -> int:
    missing = target.num_replicas - len(new)
    if old or returning:
        # Replicas on a node that ends do not count: they have to be replaced as fast as there is room. One that an
        # operator drains waits until they are.
        has_time = placement.resources.may_move_slowly
        updating = sum(replica.node_ends_at_s is None or has_time(replica) for replica in old)
        same = [replica for replica in old if replica.version == target.version]
        most = target.num_replicas + _surge_max(target, same, placement)
        missing = min(missing, most - len(new) - updating - returning)
    if missing <= 0:
        return 0
    # No back-off before the first success: it would only delay giving up.
    return 0 if _has_run(target, failures) and _is_paused(failures, placement) else missing


def _surge_max(target: DeploymentTarget, replaced: Sequence[Replica], placement: DeploymentPlacement) -> int:
    """At least one while some of `replaced` are to move, also where updates start none before they stop one."""
    moves = any(placement.resources.may_move_slowly(each) for each in replaced)
    return max(target.pace.surge_max, int(moves))


def _is_paused(failures: Failures, placement: DeploymentPlacement) -> bool:
    return placement.resources.now_s < failures.last_at_s + retry_delay_s(failures.count)


def _may_be_away(target: DeploymentTarget, *, stands_still: bool) -> int:
    """How many the rollout may take away before others serve."""
    return 0 if stands_still else target.pace.unavailable_max


def _missing_before(
    target: DeploymentTarget,
    new: Sequence[Replica],
    old: Sequence[Replica],
    placement: DeploymentPlacement,
    *,
    stands_still: bool,
) -> int:
    """Of the version before: its number, less those that serve and stay, less new ones that have replaced it.

    Strays count as long as new ones come in their place.
    """
    if target.predecessor is None:
        return 0
    now_s = placement.resources.now_s
    replaced = sum(each.is_serving and now_s - each.ready_at_s >= target.min_ready_s for each in new)
    staying = sum(each.node_ends_at_s is None and not (stands_still and _is_stray(target, each)) for each in old)
    return target.predecessor.num_replicas - replaced - staying - _may_be_away(target, stands_still=stands_still)


def _new_and_others(
    target: DeploymentTarget, replicas: Sequence[Replica], placement: DeploymentPlacement
) -> tuple[list[Replica], list[Replica]]:
    """Of those that stay: the ones that count towards the target, and the ones to be replaced."""
    new: list[Replica] = []
    others: list[Replica] = []
    for replica in replicas:
        if not replica.is_leaving and not replica.unhealthy:
            counts = replica.stays_as(target.version) and not placement.has_to_start_again(replica)
            (new if counts else others).append(replica)
    return new, others


def _is_stray(target: DeploymentTarget, replica: Replica) -> bool:
    """It is neither of the wanted version nor of the one before: of a canary that ended, or of an update in between."""
    before = target.predecessor
    return before is not None and replica.version not in (target.version, before.version)


def _fault(replica: Replica) -> Reason:
    return Reason.START_FAILED if replica.state == ReplicaState.STARTING else Reason.UNHEALTHY


def _is_useless(replica: Replica) -> bool:
    """No caller is served by it."""
    return not replica.is_serving and not _is_silent(replica)


def _is_silent(replica: Replica) -> bool:
    """It has not answered a new controller yet, and may serve: none starts in its place."""
    return replica.state == ReplicaState.RECOVERING


def _is_returning(target: DeploymentTarget, replica: Replica, placement: DeploymentPlacement) -> bool:
    """It comes up as a replacement of one of the version before."""
    before = target.predecessor
    if before is None or replica.is_serving or _is_silent(replica) or before.version == target.version:
        return False
    return replica.stays_as(before.version) and not placement.resources.waits_with_old_cordons(replica)


def _excess(
    target: DeploymentTarget,
    new: Sequence[Replica],
    old: Sequence[Replica],
    shortage: Shortage,
    placement: DeploymentPlacement,
    *,
    stands_still: bool,
) -> tuple[tuple[Replica, Reason], ...]:
    """Replicas that are too many, and why each stops: old ones for new ones, and new ones above the target."""
    new_serving = [replica for replica in new if replica.is_serving]
    has_update = any(replica.version != target.version for replica in old)
    spare = len(old) + _replacing(target, new_serving, old, placement.resources.now_s) - target.num_replicas
    spare += _may_be_away(target, stands_still=stands_still) if has_update else 0
    old_leaving = _old_leaving(target, old, spare, shortage, placement) if old else []
    # Of new ones above the target, those that do not serve yet stop first.
    surplus = max(0, len(new) - target.num_replicas)
    idle = placement.by_stop_preference(each for each in new if not each.is_serving)[:surplus] if surplus else []
    busy_max = max(0, min(surplus - len(idle), spare - len(old_leaving)))
    busy = placement.by_stop_preference(new_serving)[:busy_max] if busy_max else []
    return (*old_leaving, *((replica, Reason.SCALE_DOWN) for replica in (*idle, *busy)))


def _replacing(target: DeploymentTarget, new_serving: Sequence[Replica], old: Sequence[Replica], now_s: float) -> int:
    """How many of the new ones count as serving while old ones may stop for them."""
    if all(replica.version == target.version for replica in old):
        return len(new_serving)
    return sum(now_s - replica.ready_at_s >= target.min_ready_s for replica in new_serving)


def _old_leaving(
    target: DeploymentTarget,
    old: Sequence[Replica],
    spare: int,
    shortage: Shortage,
    placement: DeploymentPlacement,
) -> list[tuple[Replica, Reason]]:
    """As many as there are to spare; more where their node ends soon, or where they are preempted."""
    # Those on nodes that end stop first, in the order of their ends; those that are not due yet after the strays.
    by_end = sorted(placement.by_stop_preference(old), key=_drains_by_s)
    due = [replica for replica in by_end if _drains_by_s(replica) <= placement.resources.now_s]
    rest = sorted(by_end[len(due) :], key=lambda each: not _is_stray(target, each))
    if target.is_held and target.has_other_version_before:
        moving = [each for each in rest if each.node_ends_at_s is not None][: max(0, spare - len(due))]
        staying = [each for each in rest if each.node_ends_at_s is None]
        strays = sum(_is_stray(target, each) for each in staying)
        # None stops for a new one that serves, only above the number that was asked for.
        leaving = max(0, min(strays, spare - len(due) - len(moving)), len(staying) - target.num_replicas)
        stopping = (*due, *moving, *staying[:leaving])
        return [(replica, _stop_reason(target, replica, placement)) for replica in stopping]
    # What may be away is spare already.
    most = spare + max(0, target.pace.preempted_max - target.pace.unavailable_max) - len(due)
    preempted = placement.replicas_to_preempt(rest, most, shortage.unschedulable)
    preempted_ids = {replica.replica_id for replica in preempted}
    others = [replica for replica in rest if replica.replica_id not in preempted_ids]
    replaced = others[: max(0, spare - len(due) - len(preempted))]
    return [
        *((replica, _stop_reason(target, replica, placement)) for replica in due),
        *((replica, Reason.MAKE_ROOM) for replica in preempted),
        *((replica, _stop_reason(target, replica, placement)) for replica in replaced),
    ]


def _start_reason(
    target: DeploymentTarget, broken: Sequence[Replica], others: Sequence[Replica], placement: DeploymentPlacement
) -> Reason:
    """`others`: replicas that are replaced because of their version or node."""
    if others:
        reasons = {_stop_reason(target, replica, placement) for replica in others}
        return next(
            (each for each in (Reason.UPDATE, Reason.NODE_DRAIN, Reason.CORDON) if each in reasons), Reason.REPLACEMENT
        )
    departed = placement.resources.observed.departed
    has_failed = bool(broken) or any(each.is_lost and each.deployment == target.key for each in departed)
    return Reason.REPLACEMENT if has_failed else Reason.SCALE_UP


def _stop_reason(target: DeploymentTarget, replica: Replica, placement: DeploymentPlacement) -> Reason:
    """Why a replica that is not of the wanted version, or may not stay on its node, stops."""
    if replica.version != target.version:
        return Reason.UPDATE
    if replica.node_ends_at_s is not None:
        return Reason.NODE_DRAIN
    return Reason.CORDON if placement.resources.waits_with_old_cordons(replica) else Reason.UNSCHEDULABLE


def _drains_by_s(replica: Replica) -> float:
    """When it has to begin its drain so that its calls can end on its node."""
    return math.inf if replica.node_ends_at_s is None else replica.drain.begin_by(replica.node_ends_at_s)


def _outdated(
    target: DeploymentTarget, new: Sequence[Replica], leaving: set[str], placement: DeploymentPlacement
) -> list[Replica]:
    """Those of the wanted version that take over the wanted configuration now. One that is updating goes on."""
    if target.is_held or is_config_rejected(target, placement.resources.observed):
        return []
    outdated = [
        replica
        for replica in new
        if replica.state == ReplicaState.RUNNING
        and replica.config_version != target.config_version
        and replica.replica_id not in leaving
    ]
    if not outdated:
        return []
    wanted = _user_config(target.spec)
    risky = [replica for replica in outdated if _user_config(replica.spec) != wanted]
    harmless = [replica for replica in outdated if _user_config(replica.spec) == wanted]
    updating = sum(_is_trying(target, replica, placement.resources.now_s) for replica in new)
    return harmless + risky[: max(0, target.pace.at_once - updating)]


def _is_trying(target: DeploymentTarget, replica: Replica, now_s: float) -> bool:
    """It takes the wanted configuration over, or has not served long enough with it."""
    if replica.state == ReplicaState.UPDATING:
        return True
    has_it = replica.config_version == target.config_version
    return has_it and now_s - replica.reconfigured_at_s < target.min_ready_s


def _user_config(spec: control_pb2.DeploymentSpec) -> str | None:
    return spec.options.user_config_json if spec.options.HasField("user_config_json") else None
