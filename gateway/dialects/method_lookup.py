"""What serves a method, looked up once per version of the routes: the same answers in every dialect.

What to call instead of a method that is missing takes milliseconds to find out, and any client can ask for it, before
it has shown who it is. So answers are kept, and only a few new ones per second come with advice.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from gateway.access.meters import Limit, Meter
from gateway.dialects.served_method import CallRouter, ServedMethod
from gateway.ops.grpc_metrics import GrpcMetrics
from gateway.requests.exchange import Exchange
from gateway.requests.routes import NO_ROUTES, Refusal, Route, Routes
from mesh.options.calls.call_policies import NO_POLICIES
from mesh.routing.snapshot import DeploymentKey
from mesh.rpc.status_codes import UNAVAILABLE, UNIMPLEMENTED

NOT_SERVED = Refusal(UNIMPLEMENTED, "No method of this name is served.")
"""The answer for clients without an identity on an open path: it names no method, service or application."""
_WAITING = Refusal(UNAVAILABLE, "This gateway has not received its routes yet. Retry, or ask its health service first.")
_ADVICE = Limit(rate_per_s=2.0, burst=20.0)
"""How often a missing method is answered with advice."""
_REFUSALS_MAX = 100
"""Names of missing methods whose answers are kept."""
_REFUSED_NAME_MAX_CHARS = 200


class ServedMethods:
    """The methods of all applications. I/O loop only."""

    def __init__(
        self,
        router_for: Callable[[DeploymentKey, object], CallRouter],
        metrics: GrpcMetrics,
        *,
        timeout_s: float | None = None,
    ) -> None:
        """`router_for` gives the router of a deployment, which stays while the second argument lives."""
        self._router_for = router_for
        self._timeout_s = timeout_s
        self._routes = NO_ROUTES
        self._by_prefix: dict[str, str] = {}
        """Names of applications by their route prefix, without a slash at the end."""
        # By (application or None, full method name). It only holds methods of the routes, so clients cannot fill it.
        self._found: dict[tuple[str | None, str], ServedMethod] = {}
        self._refused: dict[tuple[str | None, str], Refusal] = {}
        """The same of some methods that are missing."""
        self._advice = Meter(_ADVICE, monotonic())
        self.metrics = metrics
        self.message_max_bytes = 0
        """Size of a request message. Set before the first call."""
        self.policies = NO_POLICIES
        """Retries and second copies of unary, idempotent methods. Set before the first call."""

    @property
    def applications(self) -> int:
        """The number of those that are deployed."""
        return len(self._routes.applications)

    def set_routes(self, routes: Routes) -> None:
        """Use these routes for new calls."""
        self._routes = routes
        self._by_prefix = {each.route_prefix.rstrip("/"): name for name, each in routes.applications.items()}
        self._found, self._refused = {}, {}
        for application in routes.applications.values():
            if application.methods:
                # Make the router now, so that the first call does not wait for the list of replicas.
                self._router_for(application.ingress, routes)

    def find(self, application: str | None, full_name: str) -> ServedMethod | Refusal:
        """What serves a method of the named application; None means the first that was deployed with it.

        Its name may follow the route prefix of an application: "/shop/package.Service/Method" names that one.
        """
        key = application, full_name
        found = self._found.get(key) or self._refused.get(key)
        if found is not None:
            return found
        if self._routes is NO_ROUTES:
            return _WAITING
        now_s = monotonic()
        advises = not self._advice.wait_s(now_s)
        route = self._route(application, full_name, advises=advises)
        if isinstance(route, Refusal):
            if advises:
                self._advice.take(now_s)
                self._keep(key, route)
            return route
        method = self._found[key] = self._serve(route)
        return method

    def find_for(self, application: str | None, full_name: str, exchange: Exchange) -> ServedMethod | Refusal:
        """The same for one call of this exchange, which is to begin now; a Refusal also if that is above a limit."""
        method = self.find(application, full_name)
        if isinstance(method, Refusal):
            return self.shown(method, exchange)
        if exchange.caller is None:
            return method
        admitted: ServedMethod | Refusal = exchange.caller.admit(method)
        return admitted

    def shown(self, refusal: Refusal, exchange: Exchange) -> Refusal:
        """What a client gets whose call no method serves: one without an identity does not learn which methods are."""
        caller = exchange.caller
        return NOT_SERVED if caller is not None and caller.is_stranger else refusal

    def has(self, path: str) -> bool:
        """Whether an application has such a method."""
        prefix, _, name = path.rpartition("/")[0].rpartition("/")
        full_name = path[len(prefix) :] if prefix in self._by_prefix else path
        return bool(name) and full_name in self._routes.unnamed

    def count_refusal(self, refusal: Refusal) -> None:
        """Count a call that no method serves."""
        stats = self.metrics.of_refused(refusal.application)
        stats.started += 1
        stats.end(refusal.code, 0.0)

    def _keep(self, key: tuple[str | None, str], refusal: Refusal) -> None:
        """Answer this name the same from now on."""
        application, full_name = key
        if len(full_name) + len(application or "") <= _REFUSED_NAME_MAX_CHARS:
            if len(self._refused) >= _REFUSALS_MAX:
                del self._refused[next(iter(self._refused))]
            self._refused[key] = refusal

    def _route(self, application: str | None, full_name: str, *, advises: bool) -> Route | Refusal:
        parts = full_name.rsplit("/", 2)
        prefixed = self._by_prefix.get(parts[0]) if len(parts) == 3 and parts[0] else None
        if prefixed is not None:
            return self._routes.find(application or prefixed, f"/{parts[1]}/{parts[2]}", advises=advises)
        return self._routes.find(application, full_name, advises=advises)

    def _serve(self, route: Route) -> ServedMethod:
        is_unary = not (route.streams_request or route.streams_response)
        return ServedMethod(
            full_name=route.full_name,
            application=route.deployment.app,
            streams_request=route.streams_request,
            streams_response=route.streams_response,
            router=self._router_for(route.deployment, self._routes),
            stats=self.metrics.of_route(route),
            in_flight=self.metrics.in_flight,
            timeout_s=self._timeout_s,
            message_max_bytes=self.message_max_bytes,
            is_idempotent=route.is_idempotent,
            policies=self.policies if route.is_idempotent and is_unary else NO_POLICIES,
            model_id_fields=route.model_id_fields,
            descriptors=self._routes.applications[route.deployment.app].descriptors,
        )
