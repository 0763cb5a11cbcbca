"""The status of deployments and applications (items 194–198): a table, and the texts for users. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from mesh.controller.desired.desired_state import DeploymentTarget
from mesh.controller.plan.cluster_picture import Failures, Replica
from mesh.controller.plan.cluster_resources import ClusterResources
from mesh.controller.plan.planner import is_settled
from mesh.controller.plan.rollout import is_config_rejected, is_given_up
from mesh.controller.report.shortage_text import late_starts, room_shortage
from mesh.settings import settings
from mesh.status import ApplicationStatus, DeploymentStatus, DeploymentStatusTrigger, ReplicaState


class Fact(Enum):
    """What the replicas of a deployment show. Exactly one holds."""

    UPDATE_WANTED = auto()
    UPSCALE_WANTED = auto()
    DOWNSCALE_WANTED = auto()
    AUTO_UPSCALE_WANTED = auto()
    AUTO_DOWNSCALE_WANTED = auto()
    REACHED = auto()
    LEAVING = auto()
    """As wanted, except for replicas that are still stopping."""
    GIVEN_UP = auto()
    CONFIG_REJECTED = auto()
    """A replica refused the wanted configuration, so no other one takes it over."""
    START_FAILED = auto()
    """Too few replicas, and one failed since the deployment came into its status."""
    SURPLUS = auto()
    """Enough replicas serve as wanted, and others are about to stop."""
    REPLICA_MISSING = auto()
    """Too few replicas, without a failure of the wanted version."""


_Verdict = tuple[DeploymentStatus, DeploymentStatusTrigger]
_S, _T = DeploymentStatus, DeploymentStatusTrigger

_WANTED: dict[Fact, _Verdict] = {
    Fact.UPDATE_WANTED: (_S.UPDATING, _T.CONFIG_UPDATE_STARTED),
    Fact.UPSCALE_WANTED: (_S.UPSCALING, _T.CONFIG_UPDATE_STARTED),
    Fact.DOWNSCALE_WANTED: (_S.DOWNSCALING, _T.CONFIG_UPDATE_STARTED),
}
_AUTO_WANTED: dict[Fact, _Verdict] = {
    Fact.AUTO_UPSCALE_WANTED: (_S.UPSCALING, _T.AUTOSCALING),
    Fact.AUTO_DOWNSCALE_WANTED: (_S.DOWNSCALING, _T.AUTOSCALING),
}
_SCALABLE = (_S.HEALTHY, _S.UPSCALING, _S.DOWNSCALING)
"""Statuses that autoscaling changes. In the others it neither completes an update nor repairs anything."""

_COMPLETED: dict[DeploymentStatus, _Verdict] = {
    _S.UPDATING: (_S.HEALTHY, _T.CONFIG_UPDATE_COMPLETED),
    _S.UPSCALING: (_S.HEALTHY, _T.UPSCALE_COMPLETED),
    _S.DOWNSCALING: (_S.HEALTHY, _T.DOWNSCALE_COMPLETED),
    _S.DEPLOY_FAILED: (_S.HEALTHY, _T.CONFIG_UPDATE_COMPLETED),
    _S.UNHEALTHY: (_S.HEALTHY, _T.UNSPECIFIED),
}

_SETTLED = tuple(status for status in _S if status not in (_S.UPDATING, _S.DEPLOY_FAILED))
"""Statuses that a change of the number alone replaces: it neither completes an update nor takes back its failure."""

# A pair that is not in the table changes nothing.
RULES: dict[tuple[DeploymentStatus, Fact], _Verdict] = {
    **{(status, Fact.UPDATE_WANTED): _WANTED[Fact.UPDATE_WANTED] for status in _S},
    **{(status, fact): _WANTED[fact] for status in _SETTLED for fact in (Fact.UPSCALE_WANTED, Fact.DOWNSCALE_WANTED)},
    **{(status, fact): verdict for status in _SCALABLE for fact, verdict in _AUTO_WANTED.items()},
    **{(status, Fact.REACHED): verdict for status, verdict in _COMPLETED.items()},
    # Only a scale-down is complete when the last replica has stopped.
    **{(status, Fact.LEAVING): verdict for status, verdict in _COMPLETED.items() if status != _S.DOWNSCALING},
    (_S.UPDATING, Fact.GIVEN_UP): (_S.DEPLOY_FAILED, _T.REPLICA_STARTUP_FAILED),
    (_S.UPDATING, Fact.CONFIG_REJECTED): (_S.DEPLOY_FAILED, _T.REPLICA_STARTUP_FAILED),
    (_S.UPSCALING, Fact.GIVEN_UP): (_S.UNHEALTHY, _T.REPLICA_STARTUP_FAILED),
    (_S.HEALTHY, Fact.GIVEN_UP): (_S.UNHEALTHY, _T.REPLICA_STARTUP_FAILED),
    (_S.UPSCALING, Fact.START_FAILED): (_S.UNHEALTHY, _T.REPLICA_STARTUP_FAILED),
    (_S.DOWNSCALING, Fact.START_FAILED): (_S.UNHEALTHY, _T.HEALTH_CHECK_FAILED),
    (_S.HEALTHY, Fact.START_FAILED): (_S.UNHEALTHY, _T.HEALTH_CHECK_FAILED),
    (_S.HEALTHY, Fact.REPLICA_MISSING): (_S.UNHEALTHY, _T.HEALTH_CHECK_FAILED),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The status of a deployment and the target it was given for."""

    target: DeploymentTarget | None
    status: DeploymentStatus
    trigger: DeploymentStatusTrigger
    message: str = ""
    shortage: str = ""
    """Not empty: some of its replicas wait for room, and what the cluster has."""
    is_given_up: bool = False
    """No more replicas are started until it is deployed again."""
    since_at_s: float = 0.0
    """When it came into its status."""


def next_verdict(
    previous: Verdict | None,
    target: DeploymentTarget,
    replicas: Sequence[Replica],
    failures: Failures,
    resources: ClusterResources,
) -> Verdict:
    """The verdict about a wanted deployment, given the previous one. `resources`: what the cluster has."""
    if previous is not None and _is_at_rest(previous, target, replicas, failures):
        return previous
    if previous is None or previous.target is None:
        status, trigger = _WANTED[Fact.UPDATE_WANTED]
    else:
        status, trigger = _advance(previous.status, previous.trigger, _wanted_change(previous.target, target))
    since_at_s = previous.since_at_s if previous is not None and previous.status == status else resources.now_s
    fact = _fact(target, replicas, failures, resources, since_at_s)
    before, (status, trigger) = status, _advance(status, trigger, fact)
    is_at_rest = status == DeploymentStatus.HEALTHY and not any(replica.is_migrating for replica in replicas)
    shortage = "" if is_at_rest else room_shortage(target, replicas, resources)
    waits = "" if is_at_rest else shortage or late_starts(target, replicas, resources)
    return Verdict(
        target,
        status,
        trigger,
        _message(status, target, replicas, failures, resources, waits),
        shortage,
        is_given_up=is_given_up(target, replicas, failures),
        since_at_s=since_at_s if status == before else resources.now_s,
    )


def first_verdict(target: DeploymentTarget, now_s: float) -> Verdict:
    """The verdict about a deployment that was just deployed."""
    status, trigger = _WANTED[Fact.UPDATE_WANTED]
    return Verdict(target, status, trigger, since_at_s=now_s)


def deleted_verdict(replicas: Sequence[Replica]) -> Verdict:
    """The verdict about a deployment that is no longer wanted."""
    serving = sum(replica.is_serving for replica in replicas)
    message = f"{_counted(len(replicas) - serving, 'is stopping', 'are stopping')}."
    if serving:
        message += f" {_counted(serving, 'serves', 'serve')} until the callers have stopped."
    return Verdict(None, DeploymentStatus.UPDATING, DeploymentStatusTrigger.DELETING, message)


def retained_verdict(target: DeploymentTarget, replicas: Sequence[Replica], now_s: float) -> Verdict:
    """The verdict about a deployment that only the version before of its application has."""
    serving = sum(replica.is_serving for replica in replicas)
    message = (
        f"{_counted(serving, 'serves', 'serve')} until the new version of the application, which has no such one, can."
    )
    return Verdict(
        target, DeploymentStatus.UPDATING, DeploymentStatusTrigger.CONFIG_UPDATE_STARTED, message, since_at_s=now_s
    )


def canary_verdict(target: DeploymentTarget, replicas: Sequence[Replica], now_s: float) -> Verdict:
    """The verdict about a deployment that only a canary has."""
    serving = sum(replica.is_serving for replica in replicas)
    status = DeploymentStatus.HEALTHY if serving >= target.num_replicas else DeploymentStatus.UPDATING
    trigger = DeploymentStatusTrigger.CONFIG_UPDATE_STARTED
    return Verdict(target, status, trigger, "Only the canary has it.", since_at_s=now_s)


def canary_message(target: DeploymentTarget, replicas: Sequence[Replica], failures: Failures) -> str:
    """What is wrong with the replicas of a canary; empty: nothing."""
    serving = sum(replica.is_serving for replica in replicas)
    if serving >= target.num_replicas:
        return ""
    if not failures.count:
        return _unready(replicas)
    raised = failures.message.partition("\n")[0]
    until = ", and is not tried again: `mesh rollback` ends it" if is_given_up(target, replicas, failures) else ""
    return f"{_counted(failures.count, 'failed', 'failed')}{until}. {raised}".rstrip()


def faulty_verdict(verdict: Verdict, fault: str) -> Verdict:
    """The verdict about a deployment while the controller itself fails at it. `fault`: how, in words."""
    message = f"{fault}\n{verdict.message}".rstrip()
    return replace(
        verdict, status=DeploymentStatus.UNHEALTHY, trigger=DeploymentStatusTrigger.INTERNAL_ERROR, message=message
    )


def application_status(deployments: Iterable[DeploymentStatus]) -> ApplicationStatus:
    """The worst-ranked deployment decides. Scaling alone leaves an application running."""
    present = set(deployments)
    if DeploymentStatus.UNHEALTHY in present:
        return ApplicationStatus.UNHEALTHY
    if DeploymentStatus.DEPLOY_FAILED in present:
        return ApplicationStatus.DEPLOY_FAILED
    if DeploymentStatus.UPDATING in present:
        return ApplicationStatus.DEPLOYING
    return ApplicationStatus.RUNNING


def _is_at_rest(previous: Verdict, target: DeploymentTarget, replicas: Sequence[Replica], failures: Failures) -> bool:
    """It was as wanted, and is: the verdict would be the same again. Of thousands of deployments nearly all."""
    was_at_rest = previous.status is DeploymentStatus.HEALTHY and not previous.message and not previous.is_given_up
    is_as_judged = was_at_rest and previous.target is target and not failures.count
    return (
        is_as_judged
        and bool(replicas)
        and is_settled(target, replicas)
        and not any(replica.health_failures for replica in replicas)
    )


def _advance(status: DeploymentStatus, trigger: DeploymentStatusTrigger, fact: Fact | None) -> _Verdict:
    return (status, trigger) if fact is None else RULES.get((status, fact), (status, trigger))


def _wanted_change(before: DeploymentTarget, after: DeploymentTarget) -> Fact | None:
    if (before.version, before.config_version) != (after.version, after.config_version):
        return Fact.UPDATE_WANTED
    if before.num_replicas == after.num_replicas:
        return None
    is_up = before.num_replicas < after.num_replicas
    # If the rules are unchanged, only autoscaling changes the number; a redeployment with other rules may change both.
    if after.scaling is not None and before.scaling == after.scaling:
        return Fact.AUTO_UPSCALE_WANTED if is_up else Fact.AUTO_DOWNSCALE_WANTED
    return Fact.UPSCALE_WANTED if is_up else Fact.DOWNSCALE_WANTED


def _fact(
    target: DeploymentTarget,
    replicas: Sequence[Replica],
    failures: Failures,
    resources: ClusterResources,
    since_at_s: float,
) -> Fact:
    if _has_reached(target, replicas):
        return Fact.LEAVING if any(replica.is_leaving for replica in replicas) else Fact.REACHED
    if is_given_up(target, replicas, failures):
        return Fact.GIVEN_UP
    if is_config_rejected(target, resources.observed):
        return Fact.CONFIG_REJECTED
    if _has_surplus(target, replicas):
        return Fact.SURPLUS
    return Fact.START_FAILED if failures.count and failures.last_at_s >= since_at_s else Fact.REPLICA_MISSING


def _has_reached(target: DeploymentTarget, replicas: Sequence[Replica]) -> bool:
    """Exactly the wanted number serves with the wanted code and configuration. Stopping replicas do not count.

    While replicas move off a node there may be more.
    """
    serving = [replica for replica in replicas if replica.is_serving and replica.version == target.version]
    if len(serving) < target.num_replicas:
        return False
    staying = [replica for replica in replicas if not replica.is_leaving]
    if any(replica.is_migrating for replica in staying):
        staying_put = [replica for replica in staying if not replica.is_migrating]
        is_one_version = all(replica.version == target.version for replica in staying)
        return is_one_version and len(staying_put) <= target.num_replicas <= len(serving)
    return len(serving) == len(staying) == target.num_replicas and all(
        replica.config_version == target.config_version for replica in serving
    )


def _has_surplus(target: DeploymentTarget, replicas: Sequence[Replica]) -> bool:
    """A canary has ended, or a drain was called off while another replica was starting."""
    if sum(not each.is_leaving for each in replicas) <= target.num_replicas:
        return False
    wanted = target.version, target.config_version
    right = sum(each.is_serving and (each.version, each.config_version) == wanted for each in replicas)
    return right >= target.num_replicas


def _long_starts(replicas: Sequence[Replica], now_s: float) -> str:
    """A start has no time limit, because a model may take long to load. A constructor that hangs must be visible."""
    starting = [each for each in replicas if each.is_placed and each.state == ReplicaState.STARTING]
    longest_s = max((now_s - max(each.placed_at_s, each.created_at_s) for each in starting), default=0.0)
    if longest_s < settings().controller.start_patience_s:
        return ""
    count = len(starting)
    who = "1 replica has been starting" if count == 1 else f"{count} replicas are starting, the longest"
    return f"{who} for {longest_s:.0f} s: its constructor has not returned."


def _rejection(target: DeploymentTarget, replicas: Sequence[Replica]) -> str:
    ours = [each for each in replicas if each.is_serving and each.version == target.version]
    changed = sum(each.config_version == target.config_version for each in ours)
    return (
        f"The new user_config failed, and no other replica gets it: {_counted(changed, 'has it', 'have it')}, "
        f"{_counted(len(ours) - changed, 'serves', 'serve')} with the one before. Correct it and deploy it again."
    )


def _held_back(target: DeploymentTarget, replicas: Sequence[Replica]) -> str:
    """Those that are not replaced yet, because too many fail at once."""
    most = settings().controller.health_failures_max
    failing = sum(each.health_failures >= most and each.is_serving for each in replicas)
    if not failing:
        return ""
    at_once = target.pace.unhealthy_max
    return (
        f"{_counted(failing, 'fails its', 'fail their')} health checks and serve on: {at_once} may be away at a time."
    )


def _unready(replicas: Sequence[Replica]) -> str:
    unready = [replica for replica in replicas if replica.not_ready and replica.is_up]
    if not unready:
        return ""
    return f"{_counted(len(unready), 'takes', 'take')} no calls now: {unready[0].not_ready}."


def _counted(count: int, does: str, do: str) -> str:
    return f"1 replica {does}" if count == 1 else f"{count} replicas {do}"


def _message(
    status: DeploymentStatus,
    target: DeploymentTarget,
    replicas: Sequence[Replica],
    failures: Failures,
    resources: ClusterResources,
    waits: str,
) -> str:
    if status == DeploymentStatus.HEALTHY:
        moving = sum(replica.is_migrating for replica in replicas)
        moves = f"{_counted(moving, 'moves', 'move')} off nodes that are being drained." if moving else ""
        notes = (moves, waits, _held_back(target, replicas))
        return " ".join(filter(None, notes))
    serving = sum(replica.is_serving and replica.version == target.version for replica in replicas)
    others = sum(replica.is_serving for replica in replicas) - serving
    state = "run the new version" if others else "are running"
    parts = [f"{serving} of {target.num_replicas} replicas {state}."]
    if is_given_up(target, replicas, failures):
        how = "came up and failed" if failures.has_succeeded else "failed to start"
        times = "once" if failures.count == 1 else f"{failures.count} times"
        parts = [
            f"Deployment {target.key.name!r} of application {target.key.app!r} {how} {times}"
            " and is not tried again: correct it and deploy it again."
        ]
    elif is_config_rejected(target, resources.observed):
        failures = resources.observed.config_failures_of(target.key, target.version, target.config_version)
        parts = [_rejection(target, replicas)]
    elif target.is_held:
        parts.append(f"The rollout stands still: `mesh resume {target.key.app}` lets it go on.")
    if others:
        parts.append(
            f"{_counted(others, 'of the version before keeps serving', 'of the version before keep serving')}."
        )
    parts.append(_held_back(target, replicas))
    parts.append(_unready(replicas))
    parts.append(waits)
    parts.append(_long_starts(replicas, resources.now_s))
    # The last exception comes first, because users look for it. Its traceback goes to the end.
    raised, _, traceback = failures.message.partition("\n")
    if raised:
        parts.insert(0, f"{raised.rstrip('.')}.")
    return "\n".join(filter(None, (" ".join(filter(None, parts)), traceback)))
