"""Faults that someone could put into the controller, each as one edit of its source, and the tests that see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SOURCE = Path("mesh/controller")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    name: str
    """What the controller does wrong with it."""
    file: str
    """Below mesh/controller."""
    old: str
    """Stands there exactly once."""
    new: str
    tests: tuple[str, ...]
    """Files below tests/ that see it. At least one of their tests fails."""

    def applied(self, source: str) -> str:
        """Raises LookupError where the text to be replaced does not stand there exactly once."""
        if (count := source.count(self.old)) != 1:
            raise LookupError(
                f"{self.name}: {self.file} has its text {count} times, not once. Adapt the mutant to the code of now,"
                f" or remove it with what it was about:\n{self.old}"
            )
        return source.replace(self.old, self.new)


_PLANNER, _ROLLOUT, _PICTURE = "plan/planner.py", "plan/rollout.py", "plan/cluster_picture.py"
_REGISTRY, _KEEPER, _CALLS = "actors/actor_registry.py", "actors/replica_keeper.py", "actors/actor_calls.py"
_STORE, _GENERATIONS, _CHANGE = "store/desired_store.py", "desired/generations.py", "desired/desired_change.py"

DRAINS = (
    Mutant(
        name="kills replicas instead of draining them",
        file=_PLANNER,
        old="is_immediate = replica.state == ReplicaState.STARTING or replica.drain.is_immediate",
        new="is_immediate = True",
        tests=("unit/controller/plan/test_planner.py",),
    ),
    Mutant(
        name="drains before callers have heard of it",
        file=_CALLS,
        old="        await self._before_drain()\n",
        new="",
        tests=("sim/test_listeners.py",),
    ),
    Mutant(
        name="tells callers of replicas that leave",
        file=_PICTURE,
        old="return self.state in SERVING and not self.unhealthy",
        new="return (self.state in SERVING or self.is_leaving) and not self.unhealthy",
        tests=("unit/controller/report/test_snapshots.py", "unit/controller/plan/test_rollout.py"),
    ),
    Mutant(
        name="tells callers of unhealthy replicas",
        file=_PICTURE,
        old="return self.state in SERVING and not self.unhealthy",
        new="return self.state in SERVING",
        tests=("unit/controller/report/test_snapshots.py", "unit/controller/plan/test_rollout.py"),
    ),
    Mutant(
        name="tells callers of replicas that are not ready",
        file=_PICTURE,
        old="return self.is_up and not self.not_ready",
        new="return self.is_up",
        tests=("sim/test_readiness.py",),
    ),
    Mutant(
        name="does not tell callers of replicas that died",
        file="report/snapshots.py",
        old="if departed.is_lost and departed.deployment in snapshots:",
        new="if False:",
        tests=("unit/controller/report/test_snapshots.py",),
    ),
    Mutant(
        name="publishes nothing",
        file="report/publisher.py",
        old="        self._snapshots.setdefault(key, SnapshotChanges()).take(snapshot)\n        self._mark(key)\n",
        new="        self._snapshots.setdefault(key, SnapshotChanges()).take(snapshot)\n",
        tests=("unit/controller/report/test_publisher.py",),
    ),
    Mutant(
        name="stops callees before their callers",
        file=_PLANNER,
        old="held = set(unwanted) if is_early else still_called(unwanted, groups, now_s)",
        new="held = set(unwanted) if is_early else set()",
        tests=("sim/test_stop_order.py",),
    ),
    Mutant(
        name="waits for drains that hang",
        file="plan/stop_order.py",
        old="return replica.is_leaving and replica.drain.is_overdue(replica.since_at_s, now_s)",
        new="return False",
        tests=("unit/controller/plan/test_planner.py", "sim/test_stop_order.py"),
    ),
)

ROLLOUTS = (
    Mutant(
        name="never gives a version up",
        file=_ROLLOUT,
        old="        failures_max = min(target.update_failures_max, target.constructor_failures_max)\n"
        "        return failures.has_hung or failures.count >= failures_max\n",
        new="        return False\n",
        tests=("unit/controller/plan/test_rollout.py", "sim/test_late_crashes.py"),
    ),
    Mutant(
        name="gives up a version that ran",
        file=_ROLLOUT,
        old="    return is_failed and not _has_run(target, failures)\n",
        new="    return is_failed\n",
        tests=("unit/controller/plan/test_rollout.py", "sim/test_generations.py"),
    ),
    Mutant(
        name="starts again without a pause",
        file=_ROLLOUT,
        old="    return _RETRY.pause_s(failures - 1)\n",
        new="    return 0.0\n",
        tests=("unit/controller/plan/test_rollout.py",),
    ),
    Mutant(
        name="starts no replica before an old one stops",
        file=_ROLLOUT,
        old="    spare += _may_be_away(target, stands_still=stands_still) if has_update else 0\n",
        new="    spare += 1 if has_update else 0\n",
        tests=("unit/controller/plan/test_rollout.py", "sim/test_controller.py"),
    ),
    Mutant(
        name="starts all replicas of an update at once",
        file=_ROLLOUT,
        old="        most = target.num_replicas + _surge_max(target, old, target.version, placement)\n        missing",
        new="        most = 2 * target.num_replicas\n        missing",
        tests=("unit/controller/plan/test_rollout.py", "sim/test_rollout_policy.py"),
    ),
    Mutant(
        name="stops one old replica too many",
        file=_ROLLOUT,
        old="    replaced = others[: max(0, spare - len(due) - len(preempted))]\n",
        new="    replaced = others[: max(0, spare + 1 - len(due) - len(preempted))]\n",
        tests=("unit/controller/plan/test_rollout.py",),
    ),
    Mutant(
        name="lets a version that just came up replace the one before",
        file=_ROLLOUT,
        old="    return sum(now_s - replica.ready_at_s >= target.min_ready_s for replica in new_serving)\n",
        new="    return len(new_serving)\n",
        tests=("sim/test_late_crashes.py",),
    ),
    Mutant(
        name="reconfigures no replica",
        file=_ROLLOUT,
        old="    return harmless + risky[: max(0, target.pace.at_once - updating)]\n",
        new="    return []\n",
        tests=("unit/controller/plan/test_rollout.py", "sim/test_user_config.py"),
    ),
    Mutant(
        name="reconfigures all replicas at once",
        file=_ROLLOUT,
        old="    return harmless + risky[: max(0, target.pace.at_once - updating)]\n",
        new="    return harmless + risky\n",
        tests=("sim/test_user_config.py",),
    ),
    Mutant(
        name="gives a configuration that was refused to other replicas",
        file=_ROLLOUT,
        old="    if target.is_held or is_config_rejected(target, placement.resources.observed):\n        return []\n",
        new="    if target.is_held:\n        return []\n",
        tests=("sim/test_user_config.py",),
    ),
    Mutant(
        name="ends a replica that refuses its configuration",
        file=_KEEPER,
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
        old="        if now_s - began_at_s > deadline_s:\n",
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
        file=_GENERATIONS,
        old="            spec.has_run |= known.has_run\n",
        new="",
        tests=("unit/controller/desired/test_generations.py", "sim/test_generations.py"),
    ),
    Mutant(
        name="does not store that a version ran",
        file=_GENERATIONS,
        old="            spec.has_run |= ran.get(key) == spec.version\n",
        new="",
        tests=("unit/controller/desired/test_generations.py", "sim/test_generations.py"),
    ),
    Mutant(
        name="drops the version before at each deploy",
        file=_CHANGE,
        old="        if predecessor is not None:\n",
        new="        if False:\n",
        tests=("unit/controller/desired/test_generations.py", "sim/test_generations.py"),
    ),
    Mutant(
        name="replaces no replica of the version before",
        file=_ROLLOUT,
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
        file=_GENERATIONS,
        old="        remember(changed, before)\n",
        new="        pass\n",
        tests=("sim/test_rollback.py", "unit/controller/desired/test_generations.py"),
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
        tests=("sim/test_canaries.py",),
    ),
    Mutant(
        name="tries a canary that fails again and again",
        file=_ROLLOUT,
        old="    is_on_trial = target.is_canary and not target.is_proven\n",
        new="    is_on_trial = False\n",
        tests=("sim/test_canary_failures.py",),
    ),
    Mutant(
        name="gives up a canary that has proven itself",
        file=_ROLLOUT,
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
        file="desired/canaries.py",
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

DISRUPTIONS = (
    Mutant(
        name="ends a replica at its first failed health check",
        file=_REGISTRY,
        old="        is_due = failure is not None and count >= settings().controller.health_failures_max\n",
        new="        is_due = failure is not None\n",
        tests=("unit/controller/actors/test_actor_registry.py",),
    ),
    Mutant(
        name="never ends a replica that fails its health checks",
        file=_REGISTRY,
        old="        is_due = failure is not None and count >= settings().controller.health_failures_max\n",
        new="        is_due = False\n",
        tests=("unit/controller/actors/test_actor_registry.py",),
    ),
    Mutant(
        name="replaces all replicas whose health checks fail at once",
        file="actors/disruptions.py",
        old="        return target is None or self._away(target, serving) < target.pace.unhealthy_max\n",
        new="        return True\n",
        tests=("sim/test_missing_answers.py",),
    ),
    Mutant(
        name="believes a list that lacks most nodes",
        file="actors/node_list.py",
        old="        wait_s = settings().controller.mass_loss_wait_s if is_mass else 0.0\n",
        new="        wait_s = 0.0\n",
        tests=("unit/controller/actors/test_node_list.py", "sim/test_missing_answers.py"),
    ),
    Mutant(
        name="believes one list that lacks a node",
        file="actors/node_list.py",
        old="if (since_at_s := self._missing_since_at_s[node.node_id]) == now_s or now_s - since_at_s < wait_s\n",
        new="if now_s - self._missing_since_at_s[node.node_id] < wait_s\n",
        tests=("unit/controller/actors/test_node_list.py", "sim/test_missing_answers.py"),
    ),
    Mutant(
        name="takes a lost message for a failure of the replica",
        file=_CALLS,
        old='if not is_needed():\n                    raise ActorDiedError("it has ended") from error\n',
        new="raise ActorCallError(str(error)) from error\n",
        tests=("sim/test_user_config.py",),
    ),
    Mutant(
        name="has twenty seconds between its turns",
        file="control_loop.py",
        old="                async with asyncio.timeout(self.autoscaler.period_s(at_most_s=period_s)):\n",
        new="                async with asyncio.timeout(20.0):\n",
        tests=("sim/test_autoscaling.py",),
    ),
)

RESTARTS = (
    Mutant(
        name="acts before it stores",
        file="desired/desired_keeper.py",
        old="        await run_blocking(Work.STORE, self._store.save, state)\n        self._may_differ",
        new="        self._take_over(state, desired, used_sets(state, descriptor_sets))\n"
        "        await run_blocking(Work.STORE, self._store.save, state)\n        self._may_differ",
        tests=("sim/test_controller_faults.py",),
    ),
    Mutant(
        name="kills the replicas of an earlier controller",
        file="actors/recovery.py",
        old='    if ready is not None and name.endswith(f"#{ready.replica_id}"):\n',
        new="    if ready is None:\n",
        tests=("sim/test_controller.py",),
    ),
    Mutant(
        name="kills replicas that are too busy to answer a new controller",
        file="actors/recovery.py",
        old="        if read is not None:\n            replicas.adopt_silent(read)\n        return\n",
        new='        await _kill(runtime, name, "silence")\n        return\n',
        tests=("sim/test_missing_answers.py",),
    ),
    Mutant(
        name="asks all replicas at once after its start",
        file="actors/recovery.py",
        old="        async with calls, asyncio.timeout(timeout_s):\n",
        new="        async with asyncio.timeout(timeout_s):\n",
        tests=("sim/test_missing_answers.py",),
    ),
    Mutant(
        name="forgets that a replica of an earlier controller drains",
        file=_KEEPER,
        old="            self._stop(ready.replica_id, Reason.ADOPTED)\n        elif",
        new="            pass\n        elif",
        tests=("sim/test_missing_answers.py",),
    ),
    Mutant(
        name="forgets that a gateway of an earlier controller drains",
        file="actors/gateway_keeper.py",
        old="        if ready.is_draining:\n            self._stop(ready.gateway_id, Reason.ADOPTED)\n        else:\n",
        new="        if True:\n",
        tests=("sim/test_missing_answers.py",),
    ),
    Mutant(
        name="leaves orphans alive",
        file="actors/orphans.py",
        old="        for name in sorted(unknown & self._suspects):\n",
        new="        for name in ():\n",
        tests=("sim/test_orphans.py",),
    ),
    Mutant(
        name="kills actors that it has just asked for",
        file="actors/orphans.py",
        old="        for name in sorted(unknown & self._suspects):\n",
        new="        for name in sorted(unknown):\n",
        tests=("sim/test_orphans.py",),
    ),
    Mutant(
        name="leaves code in the store",
        file=_STORE,
        old="                self._kv.delete(key)\n",
        new="                pass\n",
        tests=("unit/controller/store/test_desired_store.py",),
    ),
    Mutant(
        name="deletes the code of the version before",
        file=_STORE,
        old="(*state.applications, *state.predecessors, *state.proven_before, *state.canaries)",
        new="(*state.applications, *state.proven_before, *state.canaries)",
        tests=("unit/controller/store/test_desired_store.py", "sim/test_generations.py"),
    ),
    Mutant(
        name="stores although a newer controller has started",
        file=_STORE,
        old="        if self.epoch and newest > self.epoch:\n",
        new="        if False:\n",
        tests=("unit/controller/store/test_desired_store.py", "sim/test_fencing.py"),
    ),
    Mutant(
        name="applies a request twice",
        file="repeated_requests.py",
        old="        if request_id and request_id in state.applied_requests:\n            return state\n",
        new="",
        tests=("sim/test_fencing.py",),
    ),
    Mutant(
        name="takes a lost state for a new mesh",
        file="control_loop.py",
        old="            await self._refuse_lost_state()\n",
        new="            pass\n",
        tests=("sim/test_fencing.py",),
    ),
)

MUTANTS = (*DRAINS, *ROLLOUTS, *GENERATIONS, *CANARIES, *DISRUPTIONS, *RESTARTS)
