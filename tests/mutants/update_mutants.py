"""Mutants of updates: rollouts, versions that are kept, and canaries."""

from __future__ import annotations

from tests.mutants.mutant import CHANGE, GENERATIONS, KEEPER, ROLLOUT, Mutant

ROLLOUTS = (
    Mutant(
        name="never gives a version up",
        file=ROLLOUT,
        old="        failures_max = min(target.update_failures_max, target.constructor_failures_max)\n"
        "        return failures.has_hung or failures.count >= failures_max\n",
        new="        return False\n",
        tests=("unit/controller/plan/test_rollout.py", "sim/test_late_crashes.py"),
    ),
    Mutant(
        name="gives up a version that ran",
        file=ROLLOUT,
        old="    return is_failed and not _has_run(target, failures)\n",
        new="    return is_failed\n",
        tests=("unit/controller/plan/test_rollout.py", "sim/test_generations.py"),
    ),
    Mutant(
        name="starts again without a pause",
        file=ROLLOUT,
        old="    return _RETRY.pause_s(failures - 1)\n",
        new="    return 0.0\n",
        tests=("unit/controller/plan/test_rollout.py",),
    ),
    Mutant(
        name="starts no replica before an old one stops",
        file=ROLLOUT,
        old="    spare += _may_be_away(target, stands_still=stands_still) if has_update else 0\n",
        new="    spare += 1 if has_update else 0\n",
        tests=("unit/controller/plan/test_rollout.py", "sim/test_controller.py"),
    ),
    Mutant(
        name="starts all replicas of an update at once",
        file=ROLLOUT,
        old="        most = target.num_replicas + _surge_max(target, old, target.version, placement)\n        missing",
        new="        most = 2 * target.num_replicas\n        missing",
        tests=("unit/controller/plan/test_rollout.py", "sim/test_rollout_policy.py"),
    ),
    Mutant(
        name="stops one old replica too many",
        file=ROLLOUT,
        old="    replaced = others[: max(0, spare - len(due) - len(preempted))]\n",
        new="    replaced = others[: max(0, spare + 1 - len(due) - len(preempted))]\n",
        tests=("unit/controller/plan/test_rollout.py",),
    ),
    Mutant(
        name="lets a version that just came up replace the one before",
        file=ROLLOUT,
        old="    return sum(now_s - replica.ready_at_s >= target.min_ready_s for replica in new_serving)\n",
        new="    return len(new_serving)\n",
        tests=("sim/test_late_crashes.py",),
    ),
    Mutant(
        name="reconfigures no replica",
        file=ROLLOUT,
        old="    return harmless + risky[: max(0, target.pace.at_once - updating)]\n",
        new="    return []\n",
        tests=("unit/controller/plan/test_rollout.py", "sim/test_user_config.py"),
    ),
    Mutant(
        name="reconfigures all replicas at once",
        file=ROLLOUT,
        old="    return harmless + risky[: max(0, target.pace.at_once - updating)]\n",
        new="    return harmless + risky\n",
        tests=("sim/test_user_config.py",),
    ),
    Mutant(
        name="gives a configuration that was refused to other replicas",
        file=ROLLOUT,
        old="    if target.is_held or is_config_rejected(target, placement.resources.observed):\n        return []\n",
        new="    if target.is_held:\n        return []\n",
        tests=("sim/test_user_config.py",),
    ),
    Mutant(
        name="ends a replica that refuses its configuration",
        file=KEEPER,
        old="            self._registry.config_rejected(spec.replica_id, spec.config_version, str(error))\n",
        new="            self._registry.replica_broken(spec.replica_id, str(error))\n",
        tests=("sim/test_user_config.py",),
    ),
    Mutant(
        name="changes a paused rollout",
        file="desired/desired_state.py",
        old="return self.spec.is_paused and self.predecessor is not None",
        new="return False",
        tests=("sim/test_rollout_policy.py",),
    ),
    Mutant(
        name="waits without limit for constructors that hang",
        file="plan/progress.py",
        old="        if now_s - max(began_at_s, replica.held_at_s) > deadline_s:\n",
        new="        if False:\n",
        tests=("sim/test_progress.py",),
    ),
    Mutant(
        name="waits without limit for replicas that are never ready",
        file="plan/progress.py",
        old="    return replica.unready_at_s if replica.is_up else None\n",
        new="    return None\n",
        tests=("sim/test_readiness.py", "sim/test_canary_failures.py"),
    ),
)

GENERATIONS = (
    Mutant(
        name="forgets that a version ran when it is deployed again",
        file=GENERATIONS,
        old="            spec.has_run |= known.has_run\n",
        new="",
        tests=("unit/controller/desired/changes/test_generations.py", "sim/test_generations.py"),
    ),
    Mutant(
        name="does not store that a version ran",
        file=GENERATIONS,
        old="            spec.has_run |= ran.get(key) == spec.version\n",
        new="",
        tests=("unit/controller/desired/changes/test_generations.py", "sim/test_generations.py"),
    ),
    Mutant(
        name="drops the version before at each deploy",
        file=CHANGE,
        old="        if predecessor is not None:\n",
        new="        if False:\n",
        tests=("unit/controller/desired/changes/test_generations.py", "sim/test_generations.py"),
    ),
    Mutant(
        name="replaces no replica of the version before",
        file=ROLLOUT,
        old="    if before is None or not target.has_other_version_before:\n        return 0\n",
        new="    if True:\n        return 0\n",
        tests=("sim/test_generations.py",),
    ),
    Mutant(
        name="sends calls to an ingress that does not serve yet",
        file="report/snapshots.py",
        old="        elif not is_proven(wanted):\n",
        new="        elif False:\n",
        tests=("sim/test_generations.py",),
    ),
    Mutant(
        name="stops what an update drops before callers know",
        file="plan/proofs.py",
        old="        if not 0.0 <= age_s < retire_delay_s and all(\n",
        new="        if all(\n",
        tests=("sim/test_canary_failures.py",),
    ),
    Mutant(
        name="forgets the version that a rollback goes back to",
        file=GENERATIONS,
        old="        remember(changed, before)\n",
        new="        pass\n",
        tests=("sim/test_rollback.py", "unit/controller/desired/changes/test_generations.py"),
    ),
    Mutant(
        name="does not undo an update that failed",
        file="plan/failed_updates.py",
        old="        if target.spec.options.rollback_on_failure and target.key.app in desired.predecessors\n",
        new="        if False\n",
        tests=("sim/test_rollout_policy.py",),
    ),
    Mutant(
        name="undoes updates that did not ask for it",
        file="plan/failed_updates.py",
        old="        if target.spec.options.rollback_on_failure and target.key.app in desired.predecessors\n",
        new="        if target.key.app in desired.predecessors\n",
        tests=("sim/test_user_config.py", "sim/test_controller.py"),
    ),
)

CANARIES = (
    Mutant(
        name="counts the replicas of a canary as those of its application",
        file="desired/desired_state.py",
        old="return [each for each in replicas if each.version != self.canaries[key].version]",
        new="return replicas",
        tests=("unit/controller/desired/changes/test_canary_deploys.py",),
    ),
    Mutant(
        name="gives a canary twice as many replicas as its share",
        file="desired/desired_state.py",
        old="num_replicas=replicas, scaling=None, is_canary=True",
        new="num_replicas=2 * replicas, scaling=None, is_canary=True",
        tests=("sim/test_canaries.py",),
    ),
    Mutant(
        name="tries a canary that fails again and again",
        file=ROLLOUT,
        old="    is_on_trial = target.is_canary and not target.is_proven\n",
        new="    is_on_trial = False\n",
        tests=("sim/test_canary_failures.py",),
    ),
    Mutant(
        name="gives up a canary that has proven itself",
        file=ROLLOUT,
        old="    is_on_trial = target.is_canary and not target.is_proven\n",
        new="    is_on_trial = target.is_canary\n",
        tests=("sim/test_canary_failures.py",),
    ),
    Mutant(
        name="keeps a canary that failed",
        file="plan/failed_updates.py",
        old="targets = [target for target in desired.canaries.values() if target.spec.options.rollback_on_failure]",
        new="targets: list[DeploymentTarget] = []",
        tests=("sim/test_canary_failures.py",),
    ),
    Mutant(
        name="undoes the promotion of a canary because of old failures",
        file="control_loop.py",
        old="            if key in before.deployments and before.deployments[key].version != target.version:\n",
        new="            if False:\n",
        tests=("sim/test_canary_failures.py",),
    ),
    Mutant(
        name="ends a canary when its application is deployed",
        file="desired/changes/canaries.py",
        old="    canaries = [*kept, *(_prepared(changed, app) for app in added)]\n",
        new="    canaries = [_prepared(changed, app) for app in added]\n",
        tests=("sim/test_canaries.py",),
    ),
    Mutant(
        name="gives a canary no share of the requests",
        file="report/canary_traffic.py",
        old="        snapshot.traffic.CopyFrom(rule)\n",
        new="",
        tests=("sim/test_canaries.py",),
    ),
    Mutant(
        name="opens a canary before all of its deployments serve",
        file="report/canary_traffic.py",
        old="            closed.add(key.app)\n",
        new="            pass\n",
        tests=("sim/test_one_version_a_request.py",),
    ),
)
