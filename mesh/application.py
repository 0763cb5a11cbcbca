"""Owns the way from a bound `Application` to the `ApplicationSpec` the controller stores. Pure: no cluster needed."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

from mesh import user_code
from mesh.deployment import Application
from mesh.exceptions import MeshException
from mesh.servicers import typed_methods
from mesh.user_code import UserCode
from mesh.v1 import control_pb2

logger = logging.getLogger("mesh")

MakeHandle = Callable[[str, str], object]
"""(deployment name, app name) -> what stands for a nested Application in its caller's constructor."""


def build(
    application: Application,
    *,
    name: str,
    route_prefix: str | None,
    version: str,
    make_handle: MakeHandle,
    servicer_functions: Sequence[Callable[..., Any]] = (),
) -> control_pb2.ApplicationSpec:
    """The whole graph below `application`, which is the ingress.

    `version` goes to every deployment that was not given one. Raises TypeError where bound arguments cannot be pickled.
    """
    checked_name(name)
    graph = _Graph(name, version, make_handle, application, tuple(servicer_functions))
    ingress = graph.add(application)
    return control_pb2.ApplicationSpec(
        name=name, route_prefix=checked_route_prefix(route_prefix), ingress=ingress, deployments=graph.specs
    )


def checked_name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise MeshException("Application name must a non-empty string.")
    return name


def checked_route_prefix(route_prefix: str | None) -> str:
    """As the controller stores it: empty means not exposed over HTTP."""
    if route_prefix is None:
        return ""
    if not route_prefix.startswith("/"):
        raise ValueError(f"route_prefix must start with '/', got {route_prefix!r}. Use None for no HTTP route.")
    if route_prefix != "/" and route_prefix.endswith("/"):
        raise ValueError(f"route_prefix must not end with '/' unless it is '/', got {route_prefix!r}.")
    if "{" in route_prefix or "}" in route_prefix:
        raise ValueError(f"route_prefix must not contain wildcards, got {route_prefix!r}.")
    return route_prefix


class _Graph:
    """Visits each Application once, the called before their callers: the order in which equal names are numbered."""

    def __init__(
        self,
        app_name: str,
        version: str,
        make_handle: MakeHandle,
        ingress: Application,
        servicer_functions: tuple[Callable[..., Any], ...],
    ) -> None:
        self.specs: list[control_pb2.DeploymentSpec] = []
        self._app_name = app_name
        self._version = version
        self._make_handle = make_handle
        self._ingress = ingress
        self._servicer_functions = servicer_functions
        # Keyed by identity: the same object is one deployment, two equal ones are two.
        self._names: dict[int, str] = {}
        self._open: set[int] = set()

    def add(self, application: Application) -> str:
        """Name of the deployment, unique in the application."""
        key = id(application)
        if key in self._names:
            return self._names[key]
        if key in self._open:
            raise ValueError(f"{application!r} is bound to itself. Deployments must not form a cycle.")
        self._open.add(key)
        callees: set[str] = set()
        code = user_code.pack(self._code(application), functools.partial(self._replace, callees))
        name = self._unique_name(application.deployment.name)
        self._names[key] = name
        self.specs.append(self._spec(application, name, code, callees))
        return name

    def _replace(self, callees: set[str], value: object) -> object:
        """The handle in the place of an Application, which becomes one of the `callees` of who is being packed."""
        if not isinstance(value, Application):
            return value
        name = self.add(value)
        callees.add(name)
        return self._make_handle(name, self._app_name)

    def _unique_name(self, wanted: str) -> str:
        taken = set(self._names.values())
        if wanted not in taken:
            return wanted
        number = 1
        while f"{wanted}_{number}" in taken:
            number += 1
        name = f"{wanted}_{number}"
        logger.warning(
            "application %r has several deployments named %r; one of them becomes %r. "
            "Name them with .options(name=...), or bind once and share the result.",
            self._app_name, wanted, name,
        )  # fmt: skip
        return name

    def _code(self, application: Application) -> UserCode:
        return UserCode(
            application.deployment.func_or_class,
            application.args,
            application.kwargs,
            self._servicer_functions if application is self._ingress else (),
        )

    def _spec(self, application: Application, name: str, code: bytes, callees: set[str]) -> control_pb2.DeploymentSpec:
        deployment = application.deployment
        return control_pb2.DeploymentSpec(
            name=name,
            version=deployment.version or self._version,
            options=deployment.config.to_message(),
            code=code,
            grpc_methods=self._grpc_methods(application),
            callees=sorted(callees),
        )

    def _grpc_methods(self, application: Application) -> list[control_pb2.GrpcMethod]:
        if application is not self._ingress:
            return []
        methods = typed_methods(application.deployment.func_or_class, self._servicer_functions)
        return [
            control_pb2.GrpcMethod(
                full_name=method.full_name,
                streams_request=method.streams_request,
                streams_response=method.streams_response,
            )
            for method in methods.values()
        ]
