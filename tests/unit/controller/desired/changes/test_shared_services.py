"""mesh.controller.desired.changes.shared_services: a second application with the same service gets a warning."""

from mesh.controller.desired.changes.shared_services import new_warnings
from mesh.v1 import control_pb2
from tests.unit.controller.builders import application


def state(**methods: list[str]) -> control_pb2.DesiredState:
    """Applications, each with the methods of its ingress."""
    applications = []
    for name, full_names in methods.items():
        applications.append(application(name))
        applications[-1].deployments[0].grpc_methods.extend(
            control_pb2.GrpcMethod(full_name=each) for each in full_names
        )
    return control_pb2.DesiredState(applications=applications)


ONE = state(a=["/shop.Shop/Buy", "/shop.Shop/Sell"])
TWO = state(a=["/shop.Shop/Buy", "/shop.Shop/Sell"], b=["/shop.Shop/Buy", "/shop.Stock/Count"])


def test_a_second_server_of_a_method_is_a_warning() -> None:
    """It names the service and the applications (item 212)."""
    (warning,) = new_warnings(ONE, TWO)
    assert warning.startswith("shop.Shop is now served by a, b: gRPC calls of a method that they share are refused")


def test_only_a_change_is_a_warning() -> None:
    assert new_warnings(TWO, TWO) == new_warnings(TWO, ONE) == []


def test_different_methods_of_one_service_are_none() -> None:
    assert new_warnings(ONE, state(a=["/shop.Shop/Sell"], b=["/shop.Shop/Buy"])) == []


def test_methods_of_other_deployments_than_the_ingress_do_not_count() -> None:
    after = state(a=["/shop.Shop/Buy"], b=["/shop.Shop/Buy"])
    after.applications[1].ingress = "Other"
    assert new_warnings(ONE, after) == []
