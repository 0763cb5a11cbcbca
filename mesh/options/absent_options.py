"""The advice for options of Ray Serve that the mesh does not have, and the check for unknown options. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mesh.options import option_checks

ADVICE: Mapping[str, str] = {
    "autoscaling_policy": "give each deployment a policy in its autoscaling_config",
    "backpressure_config": "a full queue always answers RESOURCE_EXHAUSTED",
    "controller_options": "set environment variables before Ray starts",
    "deployment_actors": "start actors in the constructor, or bind another deployment",
    "enable_reflection": "there is no reflection yet; clients need the .proto",
    "external_scaler_enabled": "deploy with another num_replicas, which restarts no replica",
    "fallback_strategy": "use custom resources to choose nodes",
    "gang_scheduling_config": "use placement_group_bundles for what one replica needs together",
    "label_selector": "use custom resources or accelerator_type to choose nodes",
    "max_surge_percent": "updates always start new replicas first if resources are free",
    "placement_group_bundle_label_selector": "use custom resources in the bundles to choose nodes",
    "prometheus_metrics": "a policy function may ask Prometheus itself",
    "request_router_config": "the choice of replicas cannot be replaced yet",
    "rolling_update_percentage": "updates always start new replicas first if resources are free",
    "tracing_config": "traceparent and tracestate are passed on; export spans in your own code",
}
"""What to do instead, by option."""


def why_unknown(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an option that is not in `known`."""
    if name in ADVICE:
        return f"is an option of Ray Serve that the mesh does not have. Leave it out: {ADVICE[name]}."
    known = list(known)
    return "is unknown." + (option_checks.did_you_mean(name, known) or f" There are: {', '.join(known)}.")


def check_known(option: str, given: Mapping[str, object], known: Iterable[str]) -> None:
    """Raises TypeError for the first key of `given` that is not in `known`; `option` is the name of the mapping."""
    known = list(known)
    for name in given:
        if name not in known:
            raise TypeError(f"{option}[{name!r}] {why_unknown(name, known)}")
