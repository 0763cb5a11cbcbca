"""The autoscaler: its memory of each deployment between load reports, policy results and decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mesh.controller.desired.autoscaling_targets import ScalingRules, load_expiry_s, load_interval_s
from mesh.controller.desired.controller_faults import Problems, confined
from mesh.controller.desired.desired_state import DeploymentTarget, Desired
from mesh.controller.plan.cluster_picture import Replica
from mesh.controller.scaling.reported_loads import ReportedLoads
from mesh.controller.scaling.scaling_report import explain, scaling_status
from mesh.controller.scaling.scaling_rule import Decision, Load, Observation, ScalingState, decide
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2

_PERIOD_MIN_S = 0.05
"""Least pause between two decisions, whatever deployments say."""


@dataclass(slots=True)
class _Scaled:
    """One deployment."""

    rules: ScalingRules
    state: ScalingState = field(default_factory=ScalingState)
    decision: Decision | None = None
    decided_at_s: float | None = None
    """When the target changed last."""
    running: int = 0
    policy_replicas: float | None = None
    policy_problem: str = ""

    @property
    def target(self) -> int:
        return self.decision.target if self.decision is not None else self.state.target


class Autoscaler:
    """Load reports and policy results go in, targets come out. On the control loop's event loop."""

    def __init__(self, clock: Callable[[], float], wake: Callable[[], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._loads = ReportedLoads()
        self._scaled: dict[DeploymentKey, _Scaled] = {}
        self._expiries_s: dict[DeploymentKey, float] | None = None
        """How long a load of each wanted deployment counts; None in a controller that has just started."""
        self.problems: Problems = {}
        """What went wrong in the last decision: these deployments keep their targets."""

    def __repr__(self) -> str:
        targets = {str(key): scaled.target for key, scaled in self._scaled.items()}
        return f"<Autoscaler, targets: {targets}, problems: {len(self.problems)}>"

    def use(self, desired: Desired) -> None:
        """Scale these deployments by these rules from now on."""
        scaled: dict[DeploymentKey, _Scaled] = {}
        for key, target in desired.deployments.items():
            if target.scaling is not None:
                scaled[key] = self._with_rules(key, target, target.scaling)
        self._scaled = scaled
        self._expiries_s = {
            key: load_expiry_s(load_interval_s(target.spec.options)) for key, target in desired.deployments.items()
        }

    def report_load(self, process_id: str, stream: object, loads: Iterable[control_pb2.DeploymentLoad]) -> None:
        """Store the loads that a process reported."""
        for load in loads:
            key = DeploymentKey(load.deployment.app, load.deployment.name)
            if self._expiries_s is None or key not in self._expiries_s:
                continue
            self._loads.report(process_id, stream, load, self._clock())
            scaled = self._scaled.get(key)
            if scaled is not None and scaled.target == 0 and self._loads.load(key).total:
                self._wake()  # a call waits for the first replica

    def forget_stream(self, stream: object) -> None:
        """Drop the loads of a Sync stream that has ended."""
        self._loads.forget(stream)

    def decide(self, desired: Desired, replicas: Mapping[DeploymentKey, Sequence[Replica]]) -> dict[DeploymentKey, int]:
        """The new targets of the deployments whose target has to change."""
        now_s = self._clock()
        self._loads.keep({key: now_s - expiry_s for key, expiry_s in (self._expiries_s or {}).items()})
        targets: dict[DeploymentKey, int] = {}
        self.problems = {}
        for key, scaled in self._scaled.items():
            with confined(key, self.problems):
                before = desired.deployments[key].num_replicas
                scaled.running = sum(replica.is_serving for replica in replicas.get(key, ()))
                after = self._decide(key, scaled, before, now_s)
                if after != before:
                    targets[key] = after
        return targets

    def explain(self, key: DeploymentKey) -> str:
        """The last decision about a deployment in one sentence; empty before the first."""
        scaled = self._scaled.get(key)
        return explain(scaled.rules, scaled.decision, self._clock()) if scaled and scaled.decision else ""

    def period_s(self, at_most_s: float) -> float:
        """How soon the next decision is due."""
        shortest_s = min((scaled.rules.metrics_interval_s for scaled in self._scaled.values()), default=at_most_s)
        return min(at_most_s, max(_PERIOD_MIN_S, shortest_s))

    def loads(self) -> dict[DeploymentKey, Load]:
        """The load of every wanted deployment, also of those that do not autoscale."""
        return {key: self._loads.load(key) for key in self._expiries_s or ()}

    def statuses(self) -> dict[DeploymentKey, control_pb2.AutoscalingStatus]:
        now_s = self._clock()
        return {
            key: scaling_status(
                scaled.rules, scaled.decision, self._loads.load(key).total, scaled.policy_problem, now_s
            )
            for key, scaled in self._scaled.items()
        }

    def _decide(self, key: DeploymentKey, scaled: _Scaled, target: int, now_s: float) -> int:
        observation = Observation(
            target=target,
            running=scaled.running,
            load=self._loads.load(key),
            policy_replicas=scaled.policy_replicas,
        )
        scaled.decision = decide(scaled.rules, scaled.state, observation, now_s)
        scaled.state = scaled.decision.state
        if scaled.decision.target != target:
            scaled.decided_at_s = now_s
        return scaled.decision.target

    # ---- Policies ----------------------------------------------------------------------------------------------------

    def policy_request(self, key: DeploymentKey, options: control_pb2.AutoscalingOptions) -> control_pb2.PolicyQuestion:
        """The question for the policy of a deployment that autoscales."""
        now_s, scaled, load = self._clock(), self._scaled[key], self._loads.load(key)
        window = scaled.state.window
        question = control_pb2.PolicyQuestion(
            deployment={"app": key.app, "name": key.name},
            running_replicas=scaled.running,
            target_replicas=scaled.target,
            queued_requests=load.queued,
            ongoing_requests=load.ongoing,
            average_requests=window.aggregate("mean", now_s),
            max_requests=window.aggregate("max", now_s),
            min_requests=window.aggregate("min", now_s),
            options=options,
            replica_stats=[control_pb2.ReplicaStats(values=dict(stats)) for stats in self._loads.stats(key)],
        )
        if scaled.decided_at_s is not None:
            question.since_last_decision_s = now_s - scaled.decided_at_s
        return question

    def policy_result(self, key: DeploymentKey, replicas: float) -> None:
        """Take over the number of replicas that a policy wants."""
        if scaled := self._scaled.get(key):
            is_new = scaled.policy_replicas != replicas
            scaled.policy_replicas = replicas
            if is_new:
                self._wake()

    def policy_problem(self, key: DeploymentKey, problem: str) -> None:
        """What is wrong with a policy; empty: nothing. Its last result stays."""
        if scaled := self._scaled.get(key):
            scaled.policy_problem = problem

    def _with_rules(self, key: DeploymentKey, target: DeploymentTarget, rules: ScalingRules) -> _Scaled:
        scaled = self._scaled.get(key)
        if scaled is None:
            # Callers and replicas of an existing deployment still have to report their load.
            is_new = self._expiries_s is not None and key not in self._expiries_s
            paused_until_at_s = float("-inf") if is_new else self._clock() + rules.expiry_s
            return _Scaled(rules, ScalingState(target=target.num_replicas, paused_until_at_s=paused_until_at_s))
        if scaled.rules.policy != rules.policy:
            scaled.policy_replicas, scaled.policy_problem = None, ""
        scaled.rules = rules
        return scaled
