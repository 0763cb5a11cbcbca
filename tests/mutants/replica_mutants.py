"""Mutants of how replicas leave and are checked: drains and disruptions."""

from __future__ import annotations

from tests.mutants.mutant import CALLS, PICTURE, PLANNER, REGISTRY, Mutant

DRAINS = (
    Mutant(
        name="forgets that a replica that died served",
        file=REGISTRY,
        old="        self._serving[replica.deployment] -= replica.is_serving\n",
        new="",
        tests=("unit/controller/actors/registry/test_actor_registry.py",),
    ),
    Mutant(
        name="kills replicas instead of draining them",
        file=PLANNER,
        old="is_immediate = replica.state == ReplicaState.STARTING or replica.drain.is_immediate",
        new="is_immediate = True",
        tests=("unit/controller/plan/test_planner.py",),
    ),
    Mutant(
        name="drains before callers have heard of it",
        file=CALLS,
        old="        await self._before_drain()\n",
        new="",
        tests=("sim/test_listeners.py",),
    ),
    Mutant(
        name="drains the next gateway of the same name",
        file="actors/gateway_keeper.py",
        old="lambda: self._registry.find(gateway_id) is not None)\n",
        new="lambda: True)\n",
        tests=("sim/test_gateway_drains.py",),
    ),
    Mutant(
        name="tells callers of replicas that leave",
        file=PICTURE,
        old="return self.state in SERVING and not self.unhealthy",
        new="return (self.state in SERVING or self.is_leaving) and not self.unhealthy",
        tests=("unit/controller/report/test_snapshots.py", "unit/controller/plan/test_rollout.py"),
    ),
    Mutant(
        name="tells callers of unhealthy replicas",
        file=PICTURE,
        old="return self.state in SERVING and not self.unhealthy",
        new="return self.state in SERVING",
        tests=("unit/controller/report/test_snapshots.py", "unit/controller/plan/test_rollout.py"),
    ),
    Mutant(
        name="tells callers of replicas that are not ready",
        file=PICTURE,
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
        file=PLANNER,
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

DISRUPTIONS = (
    Mutant(
        name="ends a replica at its first failed health check",
        file=REGISTRY,
        old="        is_due = failure is not None and count >= settings().controller.health_failures_max\n",
        new="        is_due = failure is not None\n",
        tests=("unit/controller/actors/registry/test_actor_registry.py",),
    ),
    Mutant(
        name="never ends a replica that fails its health checks",
        file=REGISTRY,
        old="        is_due = failure is not None and count >= settings().controller.health_failures_max\n",
        new="        is_due = False\n",
        tests=("unit/controller/actors/registry/test_actor_registry.py",),
    ),
    Mutant(
        name="replaces all replicas whose health checks fail at once",
        file="actors/registry/disruptions.py",
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
        file=CALLS,
        old='if not is_needed():\n                    raise ActorDiedError("it has ended") from error\n',
        new="raise ActorCallError(str(error)) from error\n",
        tests=("sim/test_user_config.py",),
    ),
    Mutant(
        name="shows what was wrong with a policy that works again",
        file="scaling/policy_keeper.py",
        old='            self._report(policy, "")\n',
        new="",
        tests=("sim/test_application_policy.py",),
    ),
    Mutant(
        name="has twenty seconds between its turns",
        file="control_loop.py",
        old="                async with asyncio.timeout(self.autoscaler.period_s(at_most_s=period_s)):\n",
        new="                async with asyncio.timeout(20.0):\n",
        tests=("sim/test_autoscaling.py",),
    ),
)
