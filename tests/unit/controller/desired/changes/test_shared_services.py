"""mesh.controller.desired.changes.shared_services: a second application with the same service gets a warning."""

from mesh.controller.desired.changes.shared_services import new_warnings
from mesh.v1 import control_pb2
from tests.unit.controller.builders import application


def state(**methods: list[str]) -> control_pb2.DesiredState:
    """Applications in the order in which they were deployed, each with the methods of its ingress."""
    applications = []
    for order, (name, full_names) in enumerate(methods.items(), 1):
        applications.append(application(name))
        applications[-1].deployments[0].grpc_methods.extend(
            control_pb2.GrpcMethod(full_name=each, serving_order=order) for each in full_names
        )
    return control_pb2.DesiredState(applications=applications)


BUY, SELL = "/shop.Shop/Buy", "/shop.Shop/Sell"
ONE = state(zoo=[BUY, SELL])
TWO = state(zoo=[BUY, SELL], art=[BUY, "/shop.Stock/Count"])


def test_a_second_server_of_a_method_is_a_warning() -> None:
    """It says where calls go that name no application, and how to reach the other one (item 212)."""
    assert new_warnings(ONE, TWO) == [
        "shop.Shop is now served by art, zoo: calls that name no application go to zoo, which was deployed with it"
        " first. Clients reach art by the metadata 'application', which is the header of that name over HTTP."
    ]


def test_methods_of_one_service_may_have_been_served_first_by_different_applications() -> None:
    """Then the warning says which calls go where."""
    before = state(zoo=[BUY], art=[SELL])
    after = state(zoo=[BUY], art=[SELL], new=[BUY, SELL])
    (warning,) = new_warnings(before, after)
    assert warning == (
        "shop.Shop is now served by art, new, zoo: calls that name no application go to the application that was"
        " deployed with their method first: art (Sell) and zoo (Buy). Clients reach the others by the metadata"
        " 'application', which is the header of that name over HTTP."
    )


def test_only_a_change_is_a_warning() -> None:
    assert new_warnings(TWO, TWO) == new_warnings(TWO, ONE) == []


def test_different_methods_of_one_service_are_none() -> None:
    assert new_warnings(state(zoo=[SELL]), state(zoo=[SELL], art=[BUY])) == []


def test_methods_of_other_deployments_than_the_ingress_do_not_count() -> None:
    after = state(zoo=[BUY, SELL], art=[BUY])
    after.applications[1].ingress = "Other"
    assert new_warnings(ONE, after) == []


def test_calls_that_go_to_another_application_from_now_on_are_a_warning() -> None:
    """The first one has gone, or no longer serves the method."""
    left = state(art=[BUY, "/shop.Stock/Count"])
    line = "Calls of shop.Shop (Buy) that name no application go to art from now on: zoo does not serve them any more."
    assert new_warnings(TWO, left) == [line]
    assert new_warnings(TWO, state(zoo=[SELL], art=[BUY, "/shop.Stock/Count"])) == [line]
