"""The route table: which deployment serves a gRPC method. Immutable, made from what the controller publishes. Pure.

Refusals are values, not exceptions: the listener turns them into a status.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

from gateway.requests.descriptors import NO_DESCRIPTORS, Descriptors
from mesh.routing.choice.traffic_split import TrafficRule
from mesh.routing.snapshot import DeploymentKey, read_rule
from mesh.rpc.status_codes import NOT_FOUND, UNIMPLEMENTED
from mesh.v1 import control_pb2

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
    is_idempotent: bool = False
    model_id_fields: tuple[int, ...] = ()
    """String fields of its request that name the multiplexed model."""
    order: int = 0
    """Its place among those of all applications: the lower, the earlier it was deployed. 0: the controller is of an
    earlier version, which does not say."""


@dataclass(frozen=True, slots=True)
class RoutedApplication:
    """One application and the methods of its ingress."""

    name: str
    route_prefix: str
    ingress: DeploymentKey
    methods: Mapping[str, Route]
    """By full name."""
    services: tuple[str, ...] = ()
    """Full names of the services of its methods, sorted."""
    descriptors: Descriptors = NO_DESCRIPTORS
    """Descriptors of its methods, as far as they have any."""
    serves_web: bool = False
    """Its ingress takes web requests."""
    docs_path: str = ""
    """Path of the documentation that its ASGI application serves, below the route prefix; empty if there is none."""
    model_id_paths: tuple[str, ...] = ()
    """Beginnings of paths below the route prefix that name the multiplexed model, where they have "{}"."""
    traffic: TrafficRule | None = None
    """Which requests its canary gets; None: it has no canary."""

    @property
    def order(self) -> int:
        """That of its method that was deployed first; 0 if it has none, or the controller does not say."""
        return min((each.order for each in self.methods.values()), default=0)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call is refused. `application` is the deployed one that the client meant, empty if there is none."""

    code: int
    message: str
    application: str = ""
    retry_after_s: float | None = None
    """When the same call may be accepted; None: that is not known."""


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Routes:
    """All routes of one version of the table."""

    version: int
    applications: Mapping[str, RoutedApplication]
    unnamed: Mapping[str, Route | Refusal]
    """By full name of the method: what a call gets that names no application."""
    reached: Mapping[str, tuple[str, ...]]
    """By service: the applications that its calls reach which name none, the first one first."""

    def find(self, application: str | None, full_name: str, *, advises: bool = True) -> Route | Refusal:
        """The route of method `full_name` of the named application; None means the first that was deployed with it.

        `advises`: of a method that is missing, the refusal names similar ones, which takes milliseconds to find.
        """
        if application is None:
            return self.unnamed.get(full_name) or self._unknown_anywhere(full_name, advises=advises)
        chosen = self.applications.get(application)
        if chosen is None:
            return _unknown_application(self.applications, application)
        return chosen.methods.get(full_name) or _unknown_method(chosen, full_name, advises=advises)

    @property
    def services(self) -> list[str]:
        """Full names of all gRPC services of all applications."""
        return sorted(self.reached)

    def _unknown_anywhere(self, full_name: str, *, advises: bool) -> Refusal:
        match list(self.applications.values()):
            case []:
                return Refusal(NOT_FOUND, "No application is deployed. Deploy one with mesh.run().")
            case [only]:
                return _unknown_method(only, full_name, advises=advises)
        advice = _instead_of(full_name, self.unnamed) if advises else ""
        return Refusal(UNIMPLEMENTED, f"No application has a method {echoed(full_name)}.{advice}")


NO_ROUTES = Routes(0, MappingProxyType({}), MappingProxyType({}), MappingProxyType({}))


def read_routes(table: control_pb2.RouteTable, before: Routes = NO_ROUTES) -> Routes:
    """The route table from the message that the controller published.

    Descriptors that have not changed are those of `before`, with the message classes that were made of them.
    """
    known = {each.descriptors.digest: each.descriptors for each in before.applications.values()}
    for each in table.descriptor_sets:
        if each.digest not in known:
            known[each.digest] = Descriptors(each.digest, each.serialised)
    applications = {
        route.app: _read_application(route, known.get(route.descriptors_digest, NO_DESCRIPTORS))
        for route in table.routes
    }
    servers = _servers(applications.values())
    unnamed = {full_name: _first(routes) for full_name, routes in servers.items()}
    return Routes(
        table.version, MappingProxyType(applications), MappingProxyType(unnamed), MappingProxyType(_reached(servers))
    )


def service_of(full_name: str) -> str:
    """ "package.Service" of "/package.Service/Method"; empty when the name has no such form."""
    return full_name[1:].rpartition("/")[0]


def _read_application(route: control_pb2.Route, descriptors: Descriptors) -> RoutedApplication:
    ingress = DeploymentKey(route.app, route.ingress)
    methods = {
        method.full_name: Route(
            method.full_name,
            ingress,
            method.streams_request,
            method.streams_response,
            method.is_idempotent,
            tuple(method.model_id_fields),
            method.serving_order,
        )
        for method in route.grpc_methods
    }
    return RoutedApplication(
        name=route.app,
        route_prefix=route.route_prefix,
        ingress=ingress,
        methods=MappingProxyType(methods),
        services=tuple(_services_of(methods)),
        descriptors=descriptors,
        serves_web=route.serves_web,
        docs_path=route.docs_path,
        model_id_paths=tuple(route.model_id_paths),
        traffic=read_rule(route.app, route.traffic) if route.HasField("traffic") else None,
    )


def _servers(applications: Iterable[RoutedApplication]) -> dict[str, list[Route]]:
    """By full name of the method: its routes, the first one first."""
    servers: dict[str, list[Route]] = {}
    for application in applications:
        for full_name, route in application.methods.items():
            servers.setdefault(full_name, []).append(route)
    for routes in servers.values():
        routes.sort(key=lambda route: route.order)
    return servers


def _first(routes: Sequence[Route]) -> Route | Refusal:
    """Where calls go that name no application: they stay where they went before another application was deployed."""
    return routes[0] if routes[0].order or len(routes) == 1 else _ambiguous(routes)


def _reached(servers: Mapping[str, Sequence[Route]]) -> dict[str, tuple[str, ...]]:
    reached: dict[str, set[tuple[int, str]]] = {}
    for full_name, routes in servers.items():
        chosen = routes if isinstance(_first(routes), Refusal) else routes[:1]
        reached.setdefault(service_of(full_name), set()).update((each.order, each.deployment.app) for each in chosen)
    return {service: tuple(dict.fromkeys(app for _, app in sorted(found))) for service, found in reached.items()}


def _ambiguous(routes: Sequence[Route]) -> Refusal:
    return Refusal(
        NOT_FOUND,
        f"Application metadata not set. Several applications serve {routes[0].full_name}; "
        f"send metadata 'application' with one of: {_listed(route.deployment.app for route in routes)}.",
    )


def _unknown_application(applications: Mapping[str, RoutedApplication], name: str) -> Refusal:
    there_are = f"There are: {_listed(applications)}." if applications else "None is deployed."
    return Refusal(
        NOT_FOUND, f"No application is called {echoed(name)}, which metadata 'application' names. {there_are}"
    )


def _unknown_method(application: RoutedApplication, full_name: str, *, advises: bool) -> Refusal:
    start = f"Application '{application.name}' has no method {echoed(full_name)}."
    advice = _instead_of(full_name, application.methods) if advises else ""
    return Refusal(UNIMPLEMENTED, f"{start}{advice}", application.name)


def _instead_of(full_name: str, methods: Collection[str]) -> str:
    """Advice that names what there is instead of a missing method."""
    if not methods:
        return " There are no gRPC methods: let the ingress inherit a generated servicer and write its methods."
    service = service_of(full_name)
    siblings = [name for name in methods if service_of(name) == service]
    near = _near(full_name, siblings or methods)
    guess = f" Did you mean {near}?" if near else ""
    known = (
        f"Methods of {service}: {_listed(siblings)}." if siblings else f"Services: {_listed(_services_of(methods))}."
    )
    return f"{guess} {known}"


def _services_of(methods: Iterable[str]) -> list[str]:
    return sorted({service_of(name) for name in methods})


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


def echoed(name: str) -> str:
    """A name that a client sent, as messages repeat it."""
    return repr(name if len(name) <= _ECHO_MAX_CHARS else name[:_ECHO_MAX_CHARS] + "…")
