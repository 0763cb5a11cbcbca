"""What a change of the desired state changes, in lines for users. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from mesh.controller.desired.changes.canaries import canary_of, traffic_text
from mesh.options.deployments.option_effects import EFFECTS, Effect
from mesh.v1 import control_pb2

_OPTION_NAMES = {
    "actor": "ray_actor_options",
    "autoscaling": "autoscaling_config",
    "user_config_json": "user_config",
}
"""What users call options that are stored under another name."""


def changes_by_application(before: control_pb2.DesiredState, after: control_pb2.DesiredState) -> dict[str, list[str]]:
    """The lines about each application of both states; none about one that is as it was.

    Who deploys it and when makes no difference. The version of a deployment stands for its code.
    """
    old, new = ({app.name: app for app in state.applications} for state in (before, after))
    return {name: list(_changes(name, old.get(name), new.get(name), before, after)) for name in sorted(old | new)}


def _changes(
    name: str,
    old: control_pb2.ApplicationSpec | None,
    new: control_pb2.ApplicationSpec | None,
    before: control_pb2.DesiredState,
    after: control_pb2.DesiredState,
) -> Iterator[str]:
    if old is None or new is None:
        yield f"{name}: {'new' if old is None else 'deleted'}"
        return
    if _is_promotion(old, new, canary_of(before, name)) and canary_of(after, name) is None:
        yield f"{name}: canary promoted"
    else:
        yield from _canary_changes(canary_of(before, name), canary_of(after, name))
    for field in ("route_prefix", "ingress"):
        if getattr(old, field) != getattr(new, field):
            yield f"{name}: {field}: {getattr(old, field)!r} -> {getattr(new, field)!r}"
    if old.descriptors_digest != new.descriptors_digest:
        yield f"{name}: gRPC descriptors ({Effect.NONE})"
    if _capacity(before) != _capacity(after):
        yield f"{name}: target_capacity: {_capacity(before):g} % -> {_capacity(after):g} %"
    olds, news = ({each.name: each for each in app.deployments} for app in (old, new))
    for deployment in sorted(olds | news):
        where = f"{name}/{deployment}"
        if deployment in olds and deployment in news:
            yield from (f"{where}: {change}" for change in _deployment_changes(olds[deployment], news[deployment]))
        else:
            yield f"{where}: {'new' if deployment in news else 'deleted'}"


def _is_promotion(
    old: control_pb2.ApplicationSpec, new: control_pb2.ApplicationSpec, canary: control_pb2.ApplicationSpec | None
) -> bool:
    """The canary's versions are those of the application from now on, and were not before."""
    return canary is not None and _versions(new) == _versions(canary) != _versions(old)


def _versions(app: control_pb2.ApplicationSpec) -> list[str]:
    return [each.version for each in app.deployments]


def _canary_changes(old: control_pb2.ApplicationSpec | None, new: control_pb2.ApplicationSpec | None) -> Iterator[str]:
    if new is None:
        if old is not None:
            yield f"{old.name}: canary ended"
    elif old is None:
        yield f"{new.name}: canary for {traffic_text(new.traffic)}"
    elif _versions(old) != _versions(new):
        yield f"{new.name}: another canary for {traffic_text(new.traffic)}"
    elif old.traffic != new.traffic:
        yield f"{new.name}: canary for {traffic_text(old.traffic)} -> {traffic_text(new.traffic)}"


def _capacity(state: control_pb2.DesiredState) -> float:
    return state.target_capacity if state.HasField("target_capacity") else 100.0


def _deployment_changes(old: control_pb2.DeploymentSpec, new: control_pb2.DeploymentSpec) -> Iterator[str]:
    if _code_version(old) != _code_version(new):
        yield f"code or bound arguments ({Effect.REPLACE})"
    if list(old.grpc_methods) != list(new.grpc_methods) and _methods(old) != _methods(new):
        yield f"gRPC methods ({Effect.NONE})"
    if list(old.callees) != list(new.callees):
        yield f"called deployments ({Effect.NONE})"
    if old.is_paused != new.is_paused:
        yield f"rollouts {'stand still' if new.is_paused else 'go on'}"
    for name, effect in EFFECTS.items():
        values = getattr(old.options, name), getattr(new.options, name)
        if values[0] != values[1]:
            yield f"{_OPTION_NAMES.get(name, name)}{_shown(name, *values)} ({effect})"


def _methods(spec: control_pb2.DeploymentSpec) -> list[control_pb2.GrpcMethod]:
    """Without their places among those of other applications."""
    methods = []
    for each in spec.grpc_methods:
        method = control_pb2.GrpcMethod()
        method.CopyFrom(each)
        method.serving_order = 0
        methods.append(method)
    return methods


def _code_version(spec: control_pb2.DeploymentSpec) -> str:
    """Without the digest of the options, which have lines of their own."""
    return spec.version.rpartition("-")[0]


def _shown(name: str, old: object, new: object) -> str:
    """Numbers and names. Other values are long, and may hold secrets."""
    if name == "user_config_json" or not isinstance(old, bool | int | float | str):
        return ""
    return f": {_text(old)} -> {_text(new)}"


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"
