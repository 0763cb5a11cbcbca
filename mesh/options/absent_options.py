"""The advice for options and names of Ray Serve that the mesh does not have, and for unknown ones. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mesh.options import option_checks

ADVICE: Mapping[str, str] = {
    "backoff_multiplier": "calls that wait are sent as soon as a place is free",
    "deployment_actors": "start actors in the constructor, or bind another deployment",
    "external_scaler_enabled": "give each deployment that is scaled external_scaler in its autoscaling_config",
    "fallback_strategy": "use custom resources to choose nodes",
    "gang_scheduling_config": "use placement_group_bundles for what one replica needs together",
    "initial_backoff_s": "calls that wait are sent as soon as a place is free",
    "label_selector": "use custom resources or accelerator_type to choose nodes",
    "max_backoff_s": "calls that wait are sent as soon as a place is free",
    "max_concurrent_queries": "write max_ongoing_requests, the name that replaced it there",
    "placement_group_bundle_label_selector": "use custom resources in the bundles to choose nodes",
    "prometheus_metrics": "a policy function may ask Prometheus itself",
}
"""What to do instead, by option."""

_OF_HANDLES = frozenset(
    (
        "method_name", "stream", "use_new_handle_api", "request_serialization", "response_serialization",
        "_by_reference", "_prefer_local_routing", "_source",
    )
)  # fmt: skip
"""Options that only `DeploymentHandle.options` takes."""

ATTRIBUTES: Mapping[str, str] = {
    "build": "`mesh build` writes a configuration file from code",
    "get_deployment_actor": ADVICE["deployment_actors"],
    "get_deployment_actor_context": ADVICE["deployment_actors"],
    "get_trace_context": "`opentelemetry.trace.get_current_span()` is the span of the request, see docs/tracing.md",
    "llm": "load the model in a deployment of your own",
}
"""What to do instead, by name in `ray.serve`."""


def why_unknown(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an option that is not in `known`."""
    if name in ADVICE:
        return f"is an option of Ray Serve that the mesh does not have. Leave it out: {ADVICE[name]}."
    if name in _OF_HANDLES:
        return f"is an option of handles: write handle.options({name}=...)."
    known = list(known)
    return "is unknown." + (option_checks.did_you_mean(name, known) or f" There are: {', '.join(known)}.")


def why_no_attribute(name: str, known: Iterable[str]) -> str:
    """The error message about a name that is not among the `known` ones of the package."""
    start = f"module 'mesh' has no attribute {name!r}"
    if name in ATTRIBUTES:
        return f"{start}, which Ray Serve has. Instead: {ATTRIBUTES[name]}."
    return f"{start}.{option_checks.did_you_mean(name, known)}"


def check_known(option: str, given: Mapping[str, object], known: Iterable[str]) -> None:
    """Raises TypeError for the first key of `given` that is not in `known`; `option` is the name of the mapping."""
    known = list(known)
    for name in given:
        if name not in known:
            raise TypeError(f"{option}[{name!r}] {why_unknown(name, known)}")
