"""Owns which deployment serves a gRPC method: a pure, immutable table made from what the controller publishes.

Refusals are values, not exceptions: the listener turns them into a status without unwinding anything.
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
"""How much of a name that a stranger sent is repeated to him."""

_NEAR_SEARCH_METHODS_MAX = 500
"""Near matches are looked for among this many methods: the search is slow and strangers can ask for it."""


@dataclass(frozen=True, slots=True)
class Method:
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
class Application:
    name: str
    route_prefix: str
    ingress: DeploymentKey
    methods: Mapping[str, Method]
    """By full name."""

    @property
    def services(self) -> list[str]:
        return sorted({method.service for method in self.methods.values()})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call goes nowhere. `application` is the one it would have gone to, empty if there is none."""

    code: int
    message: str
    application: str = ""


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Routes:
    version: int
    applications: Mapping[str, Application]

    def find(self, application: str | None, full_name: str) -> Method | Refusal:
        """The method called `full_name` of the named application; None stands for the only one there is."""
        chosen = self._choose(application)
        if isinstance(chosen, Refusal):
            return chosen
        method = chosen.methods.get(full_name)
        return _unknown_method(chosen, full_name) if method is None else method

    @property
    def services(self) -> list[str]:
        """Full names of all gRPC services of all applications."""
        return sorted({service for application in self.applications.values() for service in application.services})

    def _choose(self, application: str | None) -> Application | Refusal:
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
    """The table as the controller published it."""
    return Routes(table.version, MappingProxyType({route.app: _read_application(route) for route in table.routes}))


def service_of(full_name: str) -> str:
    """ "package.Service" of "/package.Service/Method"; empty when the name has no such form."""
    return full_name[1:].rpartition("/")[0]


def _read_application(route: control_pb2.Route) -> Application:
    ingress = DeploymentKey(route.app, route.ingress)
    methods = {
        method.full_name: Method(method.full_name, ingress, method.streams_request, method.streams_response)
        for method in route.grpc_methods
    }
    return Application(route.app, route.route_prefix, ingress, MappingProxyType(methods))


def _unknown_method(application: Application, full_name: str) -> Refusal:
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
