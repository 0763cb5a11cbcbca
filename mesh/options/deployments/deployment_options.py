"""The options that `mesh.deployment` and `Deployment.options` take, by name and type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from mesh.options.absent_options import why_unknown
from mesh.options.deployments import actor_options
from mesh.options.deployments.autoscaling_options import AutoscalingConfig
from mesh.options.deployments.backpressure_options import BackpressureConfig
from mesh.options.deployments.request_router_options import RequestRouterConfig
from mesh.options.logging_options import LoggingConfig


class DeploymentOptions(TypedDict, total=False):
    """Every keyword of the decorator. `mesh.DeploymentConfig` gives defaults, units and meaning of each."""

    name: str
    version: str | None
    num_replicas: int | str | None
    route_prefix: str | None
    ray_actor_options: Mapping[str, Any] | None
    placement_group_bundles: list[dict[str, float]] | None
    placement_group_strategy: str | None
    max_replicas_per_node: int | None
    user_config: Any
    max_ongoing_requests: int
    max_queued_requests: int
    queue_timeout_s: float | None
    backpressure_config: BackpressureConfig | Mapping[str, Any] | None
    request_router_config: RequestRouterConfig | Mapping[str, Any] | None
    autoscaling_config: AutoscalingConfig | Mapping[str, Any] | None
    graceful_shutdown_wait_loop_s: float
    graceful_shutdown_timeout_s: float
    health_check_period_s: float
    health_check_timeout_s: float
    logging_config: LoggingConfig | Mapping[str, Any] | None
    max_constructor_retry_count: int
    min_ready_s: float | None
    progress_deadline_s: float | None
    max_surge_percent: float | None
    max_unavailable_percent: float | None
    rolling_update_percentage: float
    rollback_on_failure: bool
    isolate_user_loop: bool


OPTION_NAMES = tuple(DeploymentOptions.__annotations__)


def check_names(given: Iterable[str]) -> None:
    """Raises TypeError with advice for the first name that is not an option."""
    for name in given:
        if name in actor_options.KEYS:
            raise TypeError(f"{name} is one of ray_actor_options: write ray_actor_options={{{name!r}: ...}}.")
        if name not in OPTION_NAMES:
            raise TypeError(f"{name} {why_unknown(name, OPTION_NAMES)}")
