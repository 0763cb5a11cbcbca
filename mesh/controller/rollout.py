"""Owns how a deployment gets from the replicas it has to those it shall have. Pure.

Theory of operation. Replicas are of the wanted version ("new") or of another one ("old"). A step asks three questions:

1. Which replicas serve nobody and are not wanted? They go at once: unhealthy ones, old ones that are not up yet.
2. How many new ones are missing? They start together; while old ones serve, only as many as the surge allows.
3. How many serving replicas are above the target? So many leave: old ones first, then new ones above the target.

So the number of serving replicas falls below the target only through failures. There is one exception: where new
replicas wait for resources that the old ones may hold, old ones make room, at most as many as the surge is wide.
A version whose constructors keep failing starts no more replicas; the old ones stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mesh.controller.desired import DeploymentTarget
from mesh.controller.observe import Failures, Replica
from mesh.status import ReplicaState

_SURGE_FRACTION = 0.2
_PLACEMENT_PATIENCE_S = 10.0
_RETRY_DELAY_BASE_S = 0.25
_RETRY_DELAY_MAX_S = 10.0


@dataclass(frozen=True, slots=True)
class Step:
    starts: int = 0
    stops: tuple[Replica, ...] = ()
    reconfigures: tuple[Replica, ...] = ()


def next_step(target: DeploymentTarget, replicas: Sequence[Replica], failures: Failures, now_s: float) -> Step:
    """What brings `replicas` (all of the deployment) closer to `target`."""
    staying = [replica for replica in replicas if not replica.is_leaving and not replica.unhealthy]
    broken = [replica for replica in replicas if not replica.is_leaving and replica.unhealthy]
    new = [replica for replica in staying if replica.version == target.version]
    old = [replica for replica in staying if replica.version != target.version and replica.is_serving]
    useless = [replica for replica in staying if replica.version != target.version and not replica.is_serving]
    excess = _excess(target, new, old, now_s)
    leaving = {replica.replica_id for replica in excess}
    old_staying = [replica for replica in old if replica.replica_id not in leaving]
    return Step(
        starts=0 if is_given_up(target, replicas, failures) else _starts(target, new, old_staying, failures, now_s),
        stops=(*broken, *useless, *excess),
        reconfigures=tuple(_outdated(target, new, leaving)),
    )


def is_given_up(target: DeploymentTarget, replicas: Sequence[Replica], failures: Failures) -> bool:
    """The version failed so often that no more replicas of it are started.

    Once one has come up, failures are taken for passing ones; but not while an old version serves, which a bad new one
    must not replace.
    """
    if failures.count < target.constructor_failures_max:
        return False
    return not failures.has_succeeded or has_old_serving(target, replicas)


def has_old_serving(target: DeploymentTarget, replicas: Sequence[Replica]) -> bool:
    return any(replica.version != target.version and replica.is_serving for replica in replicas)


def surge_max(target: DeploymentTarget) -> int:
    """Replicas that may run beyond the target while a version replaces another."""
    return max(1, math.ceil(target.num_replicas * _SURGE_FRACTION))


def waits_for_resources(replica: Replica, now_s: float) -> bool:
    """It has not been given a process for so long that there seems to be no room for it."""
    return not replica.is_placed and not replica.is_leaving and now_s - replica.created_s > _PLACEMENT_PATIENCE_S


def retry_delay_s(failures: int) -> float:
    """Pause before a replacement after this many failures in a row: the first one comes at once."""
    if failures <= 1:
        return 0.0
    return float(min(_RETRY_DELAY_BASE_S * 2.0 ** min(failures - 2, 30), _RETRY_DELAY_MAX_S))


def _starts(
    target: DeploymentTarget, new: Sequence[Replica], old: Sequence[Replica], failures: Failures, now_s: float
) -> int:
    missing = target.num_replicas - len(new)
    if old:
        missing = min(missing, target.num_replicas + surge_max(target) - len(new) - len(old))
    if missing <= 0:
        return 0
    # Before the first success every try counts towards giving up, so it is not drawn out.
    is_paused = failures.has_succeeded and now_s < failures.last_s + retry_delay_s(failures.count)
    return 0 if is_paused else missing


def _excess(
    target: DeploymentTarget, new: Sequence[Replica], old: Sequence[Replica], now_s: float
) -> tuple[Replica, ...]:
    serving = len(old) + sum(replica.is_serving for replica in new)
    spare = serving - target.num_replicas
    waiting = sum(waits_for_resources(replica, now_s) for replica in new)
    old_leaving = old[: max(0, spare, min(waiting, spare + surge_max(target)))]
    # Of new ones above the target those go first that serve nobody yet, then the newest.
    surplus = max(0, len(new) - target.num_replicas)
    by_age = sorted(new, key=lambda replica: -replica.created_s)
    idle = [replica for replica in by_age if not replica.is_serving][:surplus]
    busy_max = max(0, min(surplus - len(idle), spare - len(old_leaving)))
    return (*old_leaving, *idle, *[replica for replica in by_age if replica.is_serving][:busy_max])


def _outdated(target: DeploymentTarget, new: Sequence[Replica], leaving: set[str]) -> list[Replica]:
    """Running replicas of the wanted version with another configuration. One that is updating is left to finish."""
    return [
        replica
        for replica in new
        if replica.state == ReplicaState.RUNNING
        and replica.config_version != target.config_version
        and replica.replica_id not in leaving
    ]
