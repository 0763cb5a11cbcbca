"""The route table: which deployment serves a gRPC method. Immutable, made from what the controller publishes. Pure.

Refusals are values, not exceptions: the listener turns them into a status.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2

# google.rpc.Code
NOT_FOUND = 5
UNIMPLEMENTED = 12
UNAVAILABLE = 14

_NAMES_LISTED_MAX = 20
"""Names that a refusal lists; more would not fit into status details."""

_ECHO_MAX_CHARS = 100
"""A name that a client sent is cut to this length in messages."""

_NEAR_SEARCH_METHODS_MAX = 500
"""Methods that are compared in a search for near matches; the search is slow, and any client can trigger it."""


@dataclass(frozen=True, slots=True)
class Route:
    """One method of a user's gRPC service in one application."""

    full_name: str
    """ "/package.Service/Method" """
    deployment: DeploymentKey
    streams_request: bool
    streams_response: bool

    @property
    def service(self) -> str:
        return service_of(self.full_name)


@dataclass(frozen=True, slots=True)
class RoutedApplication:
    """One application and the methods of its ingress."""

    name: str
    route_prefix: str
    ingress: DeploymentKey
    methods: Mapping[str, Route]
    """By full name."""

    @property
    def services(self) -> list[str]:
        return sorted({method.service for method in self.methods.values()})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call is refused. `application` is the deployed one that the client meant, empty if there is none."""

    code: int
    message: str
    application: str = ""


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Routes:
    """All routes of one version of the table."""

    version: int
    applications: Mapping[str, RoutedApplication]

    def find(self, application: str | None, full_name: str) -> Route | Refusal:
        """The route of method `full_name` of the named application; None means the only one that is deployed."""
        chosen = self._choose(application)
        if isinstance(chosen, Refusal):
            return chosen
        method = chosen.methods.get(full_name)
        return _unknown_method(chosen, full_name) if method is None else method

    @property
    def services(self) -> list[str]:
        """Full names of all gRPC services of all applications."""
        return sorted({service for application in self.applications.values() for service in application.services})

    def _choose(self, application: str | None) -> RoutedApplication | Refusal:
        applications = self.applications
        if application is not None:
            return applications.get(application) or self._unknown_application(application)
        if len(applications) == 1:
            return next(iter(applications.values()))
        if not applications:
            return Refusal(NOT_FOUND, "No application is deployed. Deploy one with mesh.run().")
        return Refusal(
            NOT_FOUND,
            "Application metadata not set. Several applications are deployed; "
            f"send metadata 'application' with one of: {_listed(applications)}.",
        )

    def _unknown_application(self, application: str) -> Refusal:
        there_are = f"There are: {_listed(self.applications)}." if self.applications else "None is deployed."
        return Refusal(
            NOT_FOUND,
            f"No application is called {_echoed(application)}, which metadata 'application' names. {there_are}",
        )


NO_ROUTES = Routes(0, MappingProxyType({}))


def read_routes(table: control_pb2.RouteTable) -> Routes:
    """The route table from the message that the controller published."""
    return Routes(table.version, MappingProxyType({route.app: _read_application(route) for route in table.routes}))


def service_of(full_name: str) -> str:
    """ "package.Service" of "/package.Service/Method"; empty when the name has no such form."""
    return full_name[1:].rpartition("/")[0]


def _read_application(route: control_pb2.Route) -> RoutedApplication:
    ingress = DeploymentKey(route.app, route.ingress)
    methods = {
        method.full_name: Route(method.full_name, ingress, method.streams_request, method.streams_response)
        for method in route.grpc_methods
    }
    return RoutedApplication(route.app, route.route_prefix, ingress, MappingProxyType(methods))


def _unknown_method(application: RoutedApplication, full_name: str) -> Refusal:
    code = UNIMPLEMENTED
    start = f"Application '{application.name}' has no method {_echoed(full_name)}."
    if not application.methods:
        advice = "It serves no gRPC methods: let its ingress inherit a generated servicer."
        return Refusal(code, f"{start} {advice}", application.name)
    service = service_of(full_name)
    siblings = [name for name, method in application.methods.items() if method.service == service]
    near = _near(full_name, siblings or application.methods)
    guess = f" Did you mean {near}?" if near else ""
    known = (
        f"Methods of {service}: {_listed(siblings)}." if siblings else f"Its services: {_listed(application.services)}."
    )
    return Refusal(code, f"{start}{guess} {known}", application.name)


def _near(full_name: str, candidates: Iterable[str]) -> str:
    among = list(candidates)[:_NEAR_SEARCH_METHODS_MAX]
    longest = max(map(len, among))
    if len(full_name) > 2 * longest:
        return ""
    return " or ".join(get_close_matches(full_name, among, n=2, cutoff=0.75))


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = len(ordered) - _NAMES_LISTED_MAX
    return ", ".join(ordered[:_NAMES_LISTED_MAX]) + (f" and {more} more" if more > 0 else "")


def _echoed(name: str) -> str:
    return repr(name if len(name) <= _ECHO_MAX_CHARS else name[:_ECHO_MAX_CHARS] + "…")
