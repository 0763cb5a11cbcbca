"""Owns writing a configuration file from code: what the code sets as values, the rest as comments. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import yaml

from mesh.config import DeploymentConfig
from mesh.declarative.schema import DEPLOYMENT_OPTIONS
from mesh.deployment import Deployment

_DEFAULTS: Mapping[str, Any] = {each.name: getattr(DeploymentConfig(), each.name) for each in fields(DeploymentConfig)}

_HEAD = """\
# A configuration of the mesh: `mesh deploy {file}` applies it, `mesh run {file}` serves it until Ctrl-C.
# Values here win over those in the code. Lines that are commented out show defaults.

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


def render(applications: list[BuiltApplication], file: str) -> str:
    """The text of a file that deploys `applications` as their code says."""
    lines = (line for each in applications for line in _application(each))
    return _HEAD.format(file=file) + "\n".join(lines) + "\n"


def _application(built: BuiltApplication) -> Iterator[str]:
    yield from _as_item(
        {"name": built.name, "route_prefix": built.route_prefix, "import_path": built.import_path}, indent=2
    )
    if built.is_builder:
        yield "    # args: {}  # for the function that builds the application"
    yield "    # runtime_env: {}"
    yield "    deployments:"
    for name, deployment in built.deployments.items():
        yield from _deployment(name, deployment)


def _deployment(name: str, deployment: Deployment) -> Iterator[str]:
    given = deployment.user_configured_option_names
    set_here = {
        option: getattr(deployment.config, option)
        for option in DEPLOYMENT_OPTIONS
        if option in given & _DEFAULTS.keys()
    }
    yield from _as_item({"name": name, **set_here}, indent=6)
    for option in DEPLOYMENT_OPTIONS:
        if option in _DEFAULTS and option not in set_here:
            yield f"        # {_dump({option: _DEFAULTS[option]}, flow=True)}"


def _as_item(values: Mapping[str, Any], indent: int) -> Iterator[str]:
    first, *rest = _dump(values, flow=False).splitlines()
    yield f"{' ' * indent}- {first}"
    yield from (f"{' ' * indent}  {line}" for line in rest)


def _dump(values: Mapping[str, Any], *, flow: bool) -> str:
    """`flow`: the value on the line of its key."""
    text = yaml.safe_dump(_plain(values), sort_keys=False, default_flow_style=flow, width=1000).strip()
    return text.removeprefix("{").removesuffix("}") if flow else text


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return {key: _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
    return value
