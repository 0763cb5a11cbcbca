"""What replicas have shown that is not stored yet: a version has run, or has proven itself. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mesh.controller.desired.changes.generations import Proofs
from mesh.controller.desired.desired_state import DeploymentTarget, Desired
from mesh.controller.plan.cluster_picture import Observed, Replica
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings

_Groups = Mapping[DeploymentKey, Sequence[Replica]]


def new_proofs(desired: Desired, observed: Observed, now_s: float, unix_now_s: float) -> Proofs:
    """`now_s` is monotonic; `unix_now_s` is compared with the times of deploys."""
    open_targets = [target for target in desired.deployments.values() if not target.is_proven]
    open_canaries = [target for target in desired.canaries.values() if not target.is_proven]
    if not open_targets and not open_canaries and not desired.predecessors:
        return Proofs()
    groups = observed.by_deployment()
    proven: dict[DeploymentKey, tuple[str, str]] = {}
    for target in open_targets:
        # Without a predecessor nothing would be stopped too early.
        min_ready_s = target.min_ready_s if target.key.app in desired.predecessors else 0.0
        if _is_proven(target, groups, _enough(target, desired), now_s - min_ready_s):
            proven[target.key] = target.version, target.config_version
    return Proofs(
        ran=_first_runs(open_targets, groups),
        proven=proven,
        succeeded=frozenset(_succeeded(desired, groups, now_s, unix_now_s)),
        canaries_ran=_first_runs(open_canaries, groups),
        canaries_proven={
            target.key: (target.version, target.config_version)
            for target in open_canaries
            # One whose application has no replicas has none either, and shows nothing.
            if _is_proven(target, groups, max(1, target.num_replicas), now_s - target.min_ready_s)
        },
    )


def _first_runs(targets: Iterable[DeploymentTarget], groups: _Groups) -> dict[DeploymentKey, str]:
    return {target.key: target.version for target in targets if not target.has_run and _serving(target, groups)}


def _succeeded(desired: Desired, groups: _Groups, now_s: float, unix_now_s: float) -> Iterator[str]:
    """Those of which every deployment is proven since some time, so that callers have heard of the new routes.

    Nor are they deployed just now: what was proven before does not show how long they have been routed so.
    """
    retire_delay_s = settings().controller.retire_delay_s
    by_app: dict[str, list[DeploymentTarget]] = defaultdict(list)
    for key, target in desired.deployments.items():
        by_app[key.app].append(target)
    for app in desired.predecessors:
        age_s = unix_now_s - desired.applications[app].last_deployed_time_s
        # A clock that was set back does not hold anything up.
        if not 0.0 <= age_s < retire_delay_s and all(
            target.is_proven and _has_served(target, groups, now_s - target.min_ready_s - retire_delay_s)
            for target in by_app[app]
        ):
            yield app


def _has_served(target: DeploymentTarget, groups: _Groups, since_at_s: float) -> bool:
    return target.num_replicas == 0 or any(each.ready_at_s <= since_at_s for each in _serving(target, groups))


def _serving(target: DeploymentTarget, groups: _Groups) -> list[Replica]:
    return [each for each in groups.get(target.key, ()) if each.is_serving and each.version == target.version]


def _enough(target: DeploymentTarget, desired: Desired) -> int:
    """Replicas that prove the version. One without calls now, that has no replica for that, has to run once.

    Unless its calls would come only when it is proven, because they go to another ingress until then.
    """
    has_to_run = target.has_other_version_before and desired.is_succeeded(target.key.app)
    return target.num_replicas or int(has_to_run)


def _is_proven(target: DeploymentTarget, groups: _Groups, enough: int, since_at_s: float) -> bool:
    """Enough of its replicas have served with the wanted configuration at least since then."""
    good = sum(
        each.config_version == target.config_version and max(each.ready_at_s, each.reconfigured_at_s) <= since_at_s
        for each in _serving(target, groups)
    )
    return good >= enough
