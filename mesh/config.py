"""`DeploymentConfig`: the validated options of one deployment, beside the public records of `ray.serve.config`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mesh.options import logging_options, option_checks
from mesh.options.deployments import (
    actor_options,
    autoscaling_options,
    backpressure_options,
    health_checks,
    placement_options,
    request_router_options,
    rollout_policy,
)
from mesh.options.deployments.autoscaling_options import AggregationFunction, AutoscalingConfig
from mesh.options.deployments.autoscaling_policy import AutoscalingContext, AutoscalingPolicy
from mesh.options.deployments.backpressure_options import BackpressureConfig
from mesh.options.deployments.request_router_options import RequestRouterConfig
from mesh.options.gateway.controller_options import ControllerOptions
from mesh.options.gateway.grpc_options import gRPCOptions
from mesh.options.gateway.http_options import HTTPOptions
from mesh.options.gateway.proxy_location import DeploymentMode, ProxyLocation
from mesh.options.keyword_advice import with_field_advice
from mesh.options.logging_options import LoggingConfig
from mesh.v1 import control_pb2

__all__ = [
    "AggregationFunction",
    "AutoscalingConfig",
    "AutoscalingContext",
    "AutoscalingPolicy",
    "ControllerOptions",
    "DeploymentConfig",
    "DeploymentMode",
    "HTTPOptions",
    "ProxyLocation",
    "RequestRouterConfig",
    "gRPCOptions",
]

_MAX_UINT32 = 2**32 - 1
_MAX_INT32 = 2**31 - 1


@with_field_advice
@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentConfig:
    """The options of one deployment. Times are in seconds; numbers of replicas and requests are counts.

    Raises TypeError or ValueError naming the option when a value is wrong.
    """

    num_replicas: int = 1
    """Replicas to keep alive. None means 1."""
    max_ongoing_requests: int = 5
    """Requests one replica executes at a time."""
    max_queued_requests: int = -1
    """Requests that may wait in one caller; -1: no limit."""
    queue_timeout_s: float | None = None
    """Longest time that a request waits in its caller for a free place; None: no limit."""
    backpressure_config: BackpressureConfig | None = None
    """HTTP status and `Retry-After` of requests that these two limits refuse; None: what is usual."""
    request_router_config: RequestRouterConfig | None = None
    """The class that chooses replicas for calls; None: the usual rules."""
    user_config: Any = None
    """JSON value for `reconfigure`, which is called after construction and on each change; None: not called."""
    ray_actor_options: Mapping[str, Any] = field(default_factory=dict)
    """Resources and runtime environment of each replica."""
    graceful_shutdown_wait_loop_s: float = 2.0
    """Accepted for compatibility without effect: a stopping replica notices immediately that its requests ended."""
    graceful_shutdown_timeout_s: float = 20.0
    """Time for calls of a stopping replica to end; then they are cancelled, and 5 s later it is killed. 0: no time."""
    health_check_period_s: float = health_checks.DEFAULT_PERIOD_S
    """Time between two health checks of a replica; it is replaced after three failures in a row."""
    health_check_timeout_s: float = health_checks.DEFAULT_TIMEOUT_S
    """A health check that takes longer fails."""
    max_constructor_retry_count: int = 20
    """Failed starts after which a deployment that never ran becomes DEPLOY_FAILED."""
    min_ready_s: float | None = None
    """Time that a replica of a new version has to serve before it replaces one of the version before; None: 10 s."""
    progress_deadline_s: float | None = None
    """Time for a constructor, `reconfigure` or first yes of `check_ready`; more stops the rollout. None: any."""
    max_surge_percent: float | None = None
    """Replicas that an update may have beyond the target, in percent of it, rounded up; None: 20, at least one."""
    max_unavailable_percent: float | None = None
    """Replicas that an update may take away before others serve, in percent, rounded down. None: 0."""
    rollback_on_failure: bool = False
    """An update that fails is undone: the whole application goes back to the version before."""
    isolate_user_loop: bool = True
    """False runs async user code on the event loop of the I/O thread: faster, but it must never block."""
    autoscaling_config: AutoscalingConfig | None = None
    """Lets the number of replicas follow the load; excludes `num_replicas`."""
    max_replicas_per_node: int | None = None
    """Maximum number of replicas of this deployment on one node; None: no limit."""
    placement_group_bundles: Sequence[Mapping[str, float]] | None = None
    """Each replica gets a placement group of these bundles; its actor runs in the first."""
    placement_group_strategy: str | None = None
    """How a replica's bundles are spread over nodes; None means PACK."""
    logging_config: LoggingConfig | None = None
    """Format, level and place of the logs of each replica; None: those of the application, or of the mesh."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ray_actor_options", actor_options.checked(self.ray_actor_options))
        if self.num_replicas is None:
            object.__setattr__(self, "num_replicas", 1)
        self._check_counts()
        option_checks.number("graceful_shutdown_wait_loop_s", self.graceful_shutdown_wait_loop_s)
        option_checks.number("graceful_shutdown_timeout_s", self.graceful_shutdown_timeout_s)
        option_checks.number("health_check_period_s", self.health_check_period_s, may_equal=False)
        option_checks.number("health_check_timeout_s", self.health_check_timeout_s, may_equal=False)
        if self.min_ready_s is not None:
            option_checks.number("min_ready_s", self.min_ready_s)
        if self.progress_deadline_s is not None:
            option_checks.number("progress_deadline_s", self.progress_deadline_s, may_equal=False)
        rollout_policy.check(self.max_surge_percent, self.max_unavailable_percent)
        option_checks.flag("isolate_user_loop", self.isolate_user_loop)
        option_checks.flag("rollback_on_failure", self.rollback_on_failure)
        placement_options.check(
            self.placement_group_bundles,
            self.placement_group_strategy,
            self.max_replicas_per_node,
            self.ray_actor_options,
        )
        if self.backpressure_config is not None:
            object.__setattr__(self, "backpressure_config", backpressure_options.parse(self.backpressure_config))
        if self.request_router_config is not None:
            object.__setattr__(self, "request_router_config", request_router_options.parse(self.request_router_config))
        if self.logging_config is not None:
            object.__setattr__(self, "logging_config", logging_options.parse(self.logging_config))
        self._user_config_json()

    def to_message(self) -> control_pb2.DeploymentOptions:
        """The options as the controller stores them."""
        return control_pb2.DeploymentOptions(
            num_replicas=self.num_replicas,
            max_ongoing_requests=self.max_ongoing_requests,
            max_queued_requests=self.max_queued_requests,
            queue_timeout_s=self.queue_timeout_s or 0.0,
            backpressure=self.backpressure_config.to_message() if self.backpressure_config is not None else None,
            request_router=self.request_router_config.to_message() if self.request_router_config is not None else None,
            graceful_shutdown_wait_loop_s=self.graceful_shutdown_wait_loop_s,
            graceful_shutdown_timeout_s=self.graceful_shutdown_timeout_s,
            health_check_period_s=self.health_check_period_s,
            health_check_timeout_s=self.health_check_timeout_s,
            user_config_json=self._user_config_json(),
            isolate_user_loop=self.isolate_user_loop,
            actor=actor_options.to_message(self.ray_actor_options),
            max_constructor_retry_count=self.max_constructor_retry_count,
            autoscaling=self.autoscaling_config.to_message() if self.autoscaling_config is not None else None,
            max_replicas_per_node=self.max_replicas_per_node or 0,
            min_ready_s=self.min_ready_s,
            progress_deadline_s=self.progress_deadline_s,
            max_surge_percent=self.max_surge_percent,
            max_unavailable_percent=self.max_unavailable_percent,
            rollback_on_failure=self.rollback_on_failure,
            logging=self.logging_config.to_message() if self.logging_config is not None else None,
            **placement_options.to_fields(self.placement_group_bundles, self.placement_group_strategy),
        )

    def _check_counts(self) -> None:
        if self.num_replicas == 0 and self.autoscaling_config is None:
            raise ValueError("num_replicas is expected to larger than 0. Use mesh.delete() to stop an application.")
        option_checks.whole_number(
            "num_replicas", self.num_replicas, 0 if self.autoscaling_config else 1, option_checks.REPLICAS_MAX
        )
        if self.max_ongoing_requests is None:
            raise ValueError("max_ongoing_requests must be a positive integer, got None.")
        option_checks.whole_number("max_ongoing_requests", self.max_ongoing_requests, 1, _MAX_UINT32)
        option_checks.whole_number("max_queued_requests", self.max_queued_requests, -1, _MAX_INT32)
        if self.max_queued_requests == 0:
            raise ValueError("max_queued_requests must be -1 (no limit) or at least 1, got 0.")
        if self.queue_timeout_s is not None:
            option_checks.number("queue_timeout_s", self.queue_timeout_s, may_equal=False)
        option_checks.whole_number("max_constructor_retry_count", self.max_constructor_retry_count, 1, _MAX_UINT32)

    def _user_config_json(self) -> str | None:
        if self.user_config is None:
            return None
        try:
            return json.dumps(self.user_config)
        except (TypeError, ValueError) as error:
            raise ValueError(f"user_config must be JSON-serializable: {error}.") from error


def with_options(config: DeploymentConfig, given: Mapping[str, Any]) -> DeploymentConfig:
    """`config` with the given options, all checked."""
    return replace(config, **{**rollout_policy.under_its_name(given), **_scale(config, given)})


def _scale(config: DeploymentConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields `num_replicas` and `autoscaling_config`, of which only one may be given.

    A number that is None says nothing, and an `autoscaling_config` that is None ends autoscaling.
    """
    number = given.get("num_replicas")
    autoscaling = autoscaling_options.of(number, given.get("autoscaling_config"))
    if autoscaling is not None:
        return {"num_replicas": autoscaling.first_replicas, "autoscaling_config": autoscaling}
    if number is not None:
        return {"num_replicas": number, "autoscaling_config": None}
    if config.autoscaling_config is None or "autoscaling_config" not in given:
        return {"num_replicas": config.num_replicas, "autoscaling_config": config.autoscaling_config}
    return {"num_replicas": 1, "autoscaling_config": None}
