"""A configuration file made from code: what the code sets as values, the rest as comments. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any

import yaml

from mesh.config import DeploymentConfig
from mesh.declarative.file_schema import DEPLOYMENT_OPTIONS
from mesh.deployment import Deployment
from mesh.options.deployments.autoscaling_options import AutoscalingConfig
from mesh.options.deployments.autoscaling_policy import AutoscalingPolicy
from mesh.options.logging_options import LoggingConfig

_DEFAULTS: Mapping[str, Any] = {each.name: getattr(DeploymentConfig(), each.name) for each in fields(DeploymentConfig)}

_HEAD = """\
# A configuration of the mesh: `mesh deploy {file}` applies it, `mesh run {file}` serves it until Ctrl-C.
# Values here override those in the code. Lines that are commented out show defaults.

# proxy_location: EveryNode  # or HeadOnly, Disabled
# http_options:
#   host: localhost
#   port: 8000
# grpc_options:
#   port: 9000

applications:
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltApplication:
    import_path: str
    name: str
    route_prefix: str
    deployments: Mapping[str, Deployment]
    is_builder: bool
    args: Mapping[str, Any]


def render(applications: list[BuiltApplication], file: str | None) -> str:
    """The text of a file that deploys `applications` with the options in their code."""
    lines = (line for each in applications for line in _application(each))
    return _HEAD.format(file=file or "FILE") + "\n".join(lines) + "\n"


def _application(built: BuiltApplication) -> Iterator[str]:
    yield from _as_item(
        {"name": built.name, "route_prefix": built.route_prefix, "import_path": built.import_path}, indent=2
    )
    if built.args:
        yield from _indented({"args": built.args}, 4)
    elif built.is_builder:
        yield "    # args: {}  # for the function that builds the application"
    yield "    # runtime_env: {}"
    yield "    deployments:"
    for name, deployment in built.deployments.items():
        yield from _deployment(name, deployment)


def _deployment(name: str, deployment: Deployment) -> Iterator[str]:
    set_here = _set_in_code(deployment)
    yield from _as_item({"name": name, **set_here}, indent=6)
    decided = {*set_here, *(["num_replicas"] if "autoscaling_config" in set_here else [])}
    for option in DEPLOYMENT_OPTIONS:
        if option in _DEFAULTS and option not in decided:
            yield f"        # {_dump({option: _DEFAULTS[option]}, flow=True)}"


def _set_in_code(deployment: Deployment) -> dict[str, Any]:
    given = deployment.user_configured_option_names
    values = {name: getattr(deployment.config, name) for name in DEPLOYMENT_OPTIONS if name in given & _DEFAULTS.keys()}
    if deployment.config.autoscaling_config is not None:
        # Also for num_replicas="auto", which leaves no other trace.
        values["autoscaling_config"] = deployment.config.autoscaling_config
        values.pop("num_replicas", None)
    return values


def _as_item(values: Mapping[str, Any], indent: int) -> Iterator[str]:
    first, *rest = _indented(values, indent + 2)
    yield f"{' ' * indent}- {first.lstrip()}"
    yield from rest


def _indented(values: Mapping[str, Any], indent: int) -> Iterator[str]:
    return (f"{' ' * indent}{line}" for line in _dump(values, flow=False).splitlines())


def _dump(values: Mapping[str, Any], *, flow: bool) -> str:
    """`flow`: the value on the line of its key."""
    text = yaml.safe_dump(_plain(values), sort_keys=False, default_flow_style=flow, width=1000).strip()
    return text.removeprefix("{").removesuffix("}") if flow else text


def _default_of(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return {key: _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case AutoscalingConfig() | AutoscalingPolicy() | LoggingConfig():
            given = ((each.name, getattr(value, each.name), each) for each in fields(value))
            return {name: _plain(each) for name, each, field in given if each != _default_of(field)}
    return value
