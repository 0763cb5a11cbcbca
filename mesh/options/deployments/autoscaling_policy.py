"""Custom autoscaling policies: their import path, and the context that they get."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mesh.options import option_checks
from mesh.options.keyword_advice import with_field_advice
from mesh.v1 import control_pb2

_UNREACHABLE = ("__main__", "__mp_main__")


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalingContext:
    """The input of a policy. Numbers of requests are sums over all callers.

    The properties have the names that they have in Ray Serve, for policies that were written for it.
    """

    app: str
    """Name of the application."""
    deployment: str
    """Name of the deployment."""
    running_replicas: int
    """Replicas that serve now."""
    target_replicas: int
    """The current target number of replicas."""
    min_replicas: int
    """The decision is clipped to these bounds."""
    max_replicas: int
    target_ongoing_requests: float
    """Requests that one replica is to have, running and queued."""
    queued_requests: float
    """Requests that wait for a replica, by the latest reports."""
    ongoing_requests: float
    """Requests that run on replicas, by the latest reports."""
    average_requests: float
    """Mean of queued and ongoing requests over the look-back period."""
    max_requests: float
    """Maximum in the look-back period."""
    min_requests: float
    """Minimum in the look-back period."""
    since_last_decision_s: float | None = None
    """Time since the target changed; None: it has not changed yet."""
    replica_stats: tuple[Mapping[str, float], ...] = ()
    """The latest result of `record_autoscaling_stats` of each replica."""
    policy_state: Mapping[str, Any] = field(default_factory=dict)
    """What the policy has returned behind its last number; empty at first, and when its process was restarted."""

    @property
    def total_requests(self) -> float:
        """Queued and ongoing ones, by the latest reports."""
        return self.queued_requests + self.ongoing_requests

    @property
    def app_name(self) -> str:
        return self.app

    @property
    def deployment_name(self) -> str:
        return self.deployment

    @property
    def current_num_replicas(self) -> int:
        return self.running_replicas

    @property
    def target_num_replicas(self) -> int:
        return self.target_replicas

    @property
    def capacity_adjusted_min_replicas(self) -> int:
        return self.min_replicas

    @property
    def capacity_adjusted_max_replicas(self) -> int:
        return self.max_replicas

    @property
    def total_num_requests(self) -> float:
        """Mean over the look-back period."""
        return self.average_requests

    @property
    def total_queued_requests(self) -> float:
        return self.queued_requests

    @property
    def total_running_requests(self) -> float:
        return self.ongoing_requests

    @property
    def aggregated_metrics(self) -> dict[str, dict[int, float]]:
        """`replica_stats` by the name of the number, then by that of the replica in `replica_stats`."""
        names = {name: None for stats in self.replica_stats for name in stats}
        return {
            name: {number: stats[name] for number, stats in enumerate(self.replica_stats) if name in stats}
            for name in names
        }


@with_field_advice
@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalingPolicy:
    """A custom function that decides the number of replicas: `policy(context, **policy_kwargs)`.

    It gets an `AutoscalingContext` and returns a number, which is rounded up and clipped to the bounds; the delays
    apply. Behind the number it may return a dict, which the next context has as `policy_state`. A class is called once
    with `policy_kwargs`, and its object with each context. A policy of an application gets a dict of contexts by
    deployment, and returns a dict of numbers. It runs in a separate process with the runtime environment of the
    deployment, or of the application's ingress.
    """

    policy_function: str | Callable[..., Any]
    """Import path "package.module:function", or a function that has such a path."""
    policy_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """JSON values."""
    timeout_s: float = 5.0
    """A policy that takes longer is stopped and restarted later."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy_function", import_path(self.policy_function))
        option_checks.number("timeout_s of the autoscaling policy", self.timeout_s, may_equal=False)
        self._kwargs_json()

    def to_message(self, *, is_of_application: bool = False) -> control_pb2.AutoscalingPolicy:
        return control_pb2.AutoscalingPolicy(
            function=str(self.policy_function),
            kwargs_json=self._kwargs_json(),
            timeout_s=self.timeout_s,
            is_of_application=is_of_application,
        )

    def _kwargs_json(self) -> str:
        try:
            return json.dumps(option_checks.mapping("policy_kwargs", self.policy_kwargs))
        except (TypeError, ValueError) as error:
            raise type(error)(f"policy_kwargs must be a dict of JSON values: {error}") from error


PolicyForm = AutoscalingPolicy | Mapping[str, Any] | Callable[..., Any] | str
"""All that `parse` takes."""

_FIELDS = frozenset(each.name for each in fields(AutoscalingPolicy))


def parse(policy: object) -> AutoscalingPolicy:
    """A policy from any of its forms. Raises TypeError or ValueError that says what is wrong."""
    if isinstance(policy, AutoscalingPolicy):
        return policy
    if isinstance(policy, Mapping):
        if "policy_function" not in policy:
            raise ValueError(
                'policy needs "policy_function": the import path of a function, "package.module:function".'
            )
        unknown = sorted(map(str, policy.keys() - _FIELDS))
        if unknown:
            raise TypeError(f"policy does not take {', '.join(unknown)}. It takes {', '.join(sorted(_FIELDS))}.")
        return AutoscalingPolicy(**policy)
    return AutoscalingPolicy(policy_function=policy)  # type: ignore[arg-type]


def import_path(function: object) -> str:
    """The path by which another process imports the function."""
    if isinstance(function, str):
        parts = function.split(":")
        if len(parts) != 2 or not all(parts):
            raise ValueError(f'policy must be an import path like "package.module:function", got {function!r}.')
        return function
    if not callable(function):
        raise TypeError(f'policy must be a function or its import path "package.module:function", got {function!r}.')
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    if not module or not name or module in _UNREACHABLE or "<" in name:
        raise ValueError(
            f"The policy {function!r} has no import path: another process must be able to import it. Define it at the"
            " top level of a module other than the main program."
        )
    return f"{module}:{name}"


def read_context(
    question: control_pb2.PolicyQuestion, policy_state: Mapping[str, Any] | None = None
) -> AutoscalingContext:
    options = question.options
    return AutoscalingContext(
        app=question.deployment.app,
        deployment=question.deployment.name,
        running_replicas=question.running_replicas,
        target_replicas=question.target_replicas,
        min_replicas=options.min_replicas,
        max_replicas=options.max_replicas,
        target_ongoing_requests=options.target_ongoing_requests,
        queued_requests=question.queued_requests,
        ongoing_requests=question.ongoing_requests,
        average_requests=question.average_requests,
        max_requests=question.max_requests,
        min_requests=question.min_requests,
        since_last_decision_s=question.since_last_decision_s if question.HasField("since_last_decision_s") else None,
        replica_stats=tuple(dict(stats.values) for stats in question.replica_stats),
        policy_state=policy_state or {},
    )
