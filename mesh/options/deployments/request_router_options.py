"""`RequestRouterConfig`: the class that chooses replicas for the calls of a deployment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mesh.options import option_checks
from mesh.options.keyword_advice import with_field_advice
from mesh.options.option_record import record_of
from mesh.v1 import control_pb2

_UNREACHABLE = {"__main__", "__mp_main__"}


@with_field_advice
@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRouterConfig:
    """Every process that calls the deployment imports the class, gateways too: they need its module."""

    request_router_class: Any = None
    """Import path "package.module:Class", or a class that has such a path, derived from
    `mesh.request_router.RequestRouter`; None: the usual rules."""
    request_router_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """JSON values for its `initialize_state`."""
    request_routing_stats_period_s: float = 10.0
    """How often each replica calls the `record_routing_stats` of its class; its results are in `routing_stats` of
    the candidates."""
    request_routing_stats_timeout_s: float = 30.0
    """How long one call of it may take."""

    def __post_init__(self) -> None:
        if self.request_router_class is not None:
            object.__setattr__(self, "request_router_class", _import_path(self.request_router_class))
        elif self.request_router_kwargs:
            raise ValueError("request_router_kwargs are for a request_router_class: name that too, or leave them out.")
        self._kwargs_json()
        for name in ("request_routing_stats_period_s", "request_routing_stats_timeout_s"):
            option_checks.number(name, getattr(self, name), may_equal=False)

    def to_message(self) -> control_pb2.RequestRouter:
        return control_pb2.RequestRouter(
            import_path=self.request_router_class or "",
            kwargs_json=self._kwargs_json(),
            stats_period_s=self.request_routing_stats_period_s,
            stats_timeout_s=self.request_routing_stats_timeout_s,
        )

    def _kwargs_json(self) -> str:
        try:
            return json.dumps(option_checks.mapping("request_router_kwargs", self.request_router_kwargs))
        except (TypeError, ValueError) as error:
            raise type(error)(f"request_router_kwargs must be a dict of JSON values: {error}") from error


def parse(value: RequestRouterConfig | Mapping[str, Any]) -> RequestRouterConfig:
    """Raises TypeError or ValueError naming the key that is wrong."""
    return record_of(RequestRouterConfig, "request_router_config", value)


def _import_path(value: object) -> str:
    """The path by which other processes import the class."""
    if isinstance(value, str):
        module, separator, name = value.partition(":") if ":" in value else value.rpartition(".")
        if not separator or not all((*module.split("."), *name.split("."))):
            raise ValueError(f'request_router_class must be an import path like "package.module:Class", got {value!r}.')
        return f"{module}:{name}"
    if not isinstance(value, type):
        raise TypeError(f"request_router_class must be a class or its import path, got {value!r}.")
    if not callable(getattr(value, "choose_replicas", None)):
        raise TypeError(
            f"{value.__qualname__} has no choose_replicas: derive it from mesh.request_router.RequestRouter."
        )
    if value.__module__ in _UNREACHABLE or "<" in value.__qualname__:
        raise ValueError(
            f"The request router {value.__qualname__} has no import path: other processes must be able to import it. "
            "Define it at the top level of a module other than the main program."
        )
    return f"{value.__module__}:{value.__qualname__}"
