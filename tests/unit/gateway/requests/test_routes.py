"""The route table: which deployment serves a method, and the message when none does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.requests.routes import NO_ROUTES, Refusal, Route, Routes, read_routes
from mesh.routing.snapshot import DeploymentKey
from mesh.rpc.status_codes import NOT_FOUND, UNIMPLEMENTED
from mesh.v1 import control_pb2
from tests.unit.gateway.fakes import BIDI, UNARY, routes_of


def refusal(found: Route | Refusal) -> Refusal:
    assert isinstance(found, Refusal)
    return found


def test_the_named_application_is_taken():
    method = routes_of("a", "b").find("b", UNARY)
    assert method == Route(UNARY, DeploymentKey("b", "Front"), False, False, order=2)


def test_arity_comes_from_the_table():
    method = routes_of("a").find("a", BIDI)
    assert isinstance(method, Route)
    assert (method.streams_request, method.streams_response) == (True, True)


def test_the_table_says_which_methods_are_idempotent():
    methods = [control_pb2.GrpcMethod(full_name=UNARY, is_idempotent=True), control_pb2.GrpcMethod(full_name=BIDI)]
    routes = read_routes(
        control_pb2.RouteTable(routes=[control_pb2.Route(app="a", ingress="Front", grpc_methods=methods)])
    )
    found = [routes.find("a", name) for name in (UNARY, BIDI)]
    assert [isinstance(route, Route) and route.is_idempotent for route in found] == [True, False]


def test_the_only_application_need_not_be_named():
    """Without a name the call goes to the only application (item 212, C16)."""
    method = routes_of("only").find(None, UNARY)
    assert isinstance(method, Route)
    assert method.deployment.app == "only"


def test_a_wrong_name_is_not_found_even_with_one_application():
    """The refusal lists the names there are (C16)."""
    found = refusal(routes_of("only").find("wrong", UNARY))
    assert found.code == NOT_FOUND
    assert "'wrong'" in found.message
    assert "There are: only." in found.message


def table(*, has_order: bool = True, **methods: list[str]) -> Routes:
    """The routes of applications in the order in which they were deployed, each with the full names of its methods."""
    routes = [
        control_pb2.Route(
            app=app,
            ingress="Front",
            grpc_methods=[
                control_pb2.GrpcMethod(full_name=each, serving_order=order if has_order else 0) for each in names
            ],
        )
        for order, (app, names) in enumerate(methods.items(), 1)
    ]
    return read_routes(control_pb2.RouteTable(routes=sorted(routes, key=lambda route: route.app)))


def test_a_method_that_one_application_serves_needs_no_name():
    """Other applications do not matter to clients of the first (item 212, C16)."""
    routes = table(first=[UNARY], second=["/other.Thing/Do"], silent=[])
    for method, app in ((UNARY, "first"), ("/other.Thing/Do", "second")):
        found = routes.find(None, method)
        assert isinstance(found, Route)
        assert found.deployment.app == app


def test_a_method_that_several_applications_serve_stays_with_the_first() -> None:
    """The others are reached by their names (item 212)."""
    routes = table(b=[UNARY], a=[UNARY, BIDI], other=["/other.Thing/Do"])
    assert routes.find(None, UNARY) is routes.find("b", UNARY)
    assert routes.find(None, BIDI) is routes.find("a", BIDI)
    assert routes.find("a", UNARY) is not routes.find("b", UNARY)
    assert refusal(routes.find("c", UNARY)).code == NOT_FOUND
    assert dict(routes.reached) == {"shop.Store": ("b", "a"), "other.Thing": ("other",)}


def test_a_controller_of_an_earlier_version_does_not_say_which_was_first() -> None:
    """Then a method that several applications serve needs a name; the refusal lists these, and no other."""
    routes = table(has_order=False, b=[UNARY], a=[UNARY, BIDI], other=["/other.Thing/Do"])
    found = refusal(routes.find(None, UNARY))
    assert found.code == NOT_FOUND
    assert found.message == (
        f"Application metadata not set. Several applications serve {UNARY}; "
        "send metadata 'application' with one of: a, b."
    )
    assert isinstance(routes.find("a", UNARY), Route)
    assert isinstance(routes.find(None, BIDI), Route)
    assert routes.reached["shop.Store"] == ("a", "b")


def test_a_method_that_no_application_serves_is_answered_with_those_of_all():
    routes = table(first=[UNARY], second=["/other.Thing/Do"])
    found = refusal(routes.find(None, "/other.Thing/Did"))
    assert (found.code, found.application) == (UNIMPLEMENTED, "")
    assert "Did you mean /other.Thing/Do?" in found.message
    assert "Services: other.Thing, shop.Store." in refusal(routes.find(None, "/no.Such/Thing")).message
    assert "inherit a generated servicer" in refusal(table(a=[], b=[]).find(None, UNARY)).message


METHODS = (UNARY, BIDI, "/x.Y/Z")
SERVED = st.permutations("abc").flatmap(
    lambda apps: st.tuples(*(st.sets(st.sampled_from(METHODS)) for _ in apps)).map(
        lambda sets: dict(zip(apps, sets, strict=True))
    )
)


@given(SERVED)
def test_calls_without_a_name_reach_the_first_application_that_serves_their_method(served: dict[str, set[str]]):
    routes = table(**{app: sorted(methods) for app, methods in served.items()})
    for method in METHODS:
        servers = [app for app, methods in served.items() if method in methods]
        found = routes.find(None, method)
        if servers:
            assert found is routes.find(servers[0], method)
        else:
            assert isinstance(found, Refusal)


@given(SERVED, st.sets(st.sampled_from(METHODS)))
def test_another_application_moves_no_call(served: dict[str, set[str]], added: set[str]):
    """A second application never breaks clients of the first."""
    names = {app: sorted(methods) for app, methods in served.items()}
    before, after = table(**names), table(**names, second=sorted(added))
    for method, route in before.unnamed.items():
        assert after.find(None, method) == route


def test_without_applications_the_refusal_advises_to_deploy_one():
    found = refusal(NO_ROUTES.find(None, UNARY))
    assert found.code == NOT_FOUND
    assert "mesh.run" in found.message
    assert refusal(NO_ROUTES.find("x", UNARY)).code == NOT_FOUND


def test_an_unknown_method_names_near_matches_and_the_methods_of_its_service():
    found = refusal(routes_of("a").find("a", "/shop.Store/Gett"))
    assert found.code == UNIMPLEMENTED
    assert "Did you mean /shop.Store/Get or" in found.message
    assert BIDI in found.message
    assert found.application == "a"


def test_an_unknown_service_names_the_services_there_are():
    found = refusal(routes_of("a").find("a", "/other.Thing/Do"))
    assert found.code == UNIMPLEMENTED
    assert "Services: shop.Store." in found.message


def test_an_application_without_grpc_methods_says_how_to_get_some():
    table = control_pb2.RouteTable(routes=[control_pb2.Route(app="a", ingress="Front")])
    found = refusal(read_routes(table).find(None, UNARY))
    assert found.code == UNIMPLEMENTED
    assert "servicer" in found.message


def test_many_applications_are_listed_only_in_part():
    found = refusal(routes_of(*(f"app{number:03}" for number in range(100))).find("x", UNARY))
    assert "and 80 more" in found.message


def test_services_of_all_applications():
    assert routes_of("a", "b").services == ["shop.Store"]


@given(application=st.none() | st.text(max_size=400), name=st.text(max_size=400))
def test_any_unknown_name_gets_a_short_refusal(application: str | None, name: str):
    found = refusal(routes_of("a", "b").find(application, name))
    assert len(found.message) < 1500
