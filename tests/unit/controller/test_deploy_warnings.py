"""mesh.controller.control_servicer: what the answer to a change warns of."""

from __future__ import annotations

from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from mesh.controller.control_servicer import ControlServicer
from mesh.v1 import control_pb2
from tests.sim.fake_mesh import Mesh
from tests.unit.controller.builders import application
from tests.unit.controller.servicer_context import Context, with_servicer


def test_a_deploy_of_a_second_server_of_a_method_says_where_calls_go() -> None:
    """They stay with the first; clients of the second have to name it (item 212)."""

    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        first, second = application("first"), application("second")
        for app in (first, second):
            app.deployments[0].grpc_methods.add(full_name="/shop.Shop/Buy")
        assert not (await servicer.Deploy(control_pb2.DeployRequest(application=first), Context())).warnings
        request = control_pb2.ApplyRequest(applications=[second], is_dry_run=True)
        (warning,) = (await servicer.Apply(request, Context())).warnings
        assert "calls that name no application go to first, which was" in warning
        assert "Clients reach second by the metadata 'application'" in warning
        reply = await servicer.Deploy(control_pb2.DeployRequest(application=second), Context())
        assert list(reply.warnings) == [warning]

    with_servicer(scenario)


def test_a_deploy_says_which_http_rules_it_hides() -> None:
    """Also before it is stored, and not again."""

    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        files = FileDescriptorSet()
        service = files.file.add(package="shop").service.add(name="Shop")
        app = application()
        for name in ("Buy", "Sell"):
            service.method.add(name=name).options.Extensions[annotations_pb2.http].get = "/v1/shops"
            app.deployments[0].grpc_methods.add(full_name=f"/shop.Shop/{name}")
        app.descriptors = files.SerializeToString()
        for is_dry_run in (True, False):
            request = control_pb2.ApplyRequest(applications=[app], is_dry_run=is_dry_run)
            (warning,) = (await servicer.Apply(request, Context())).warnings
            assert "/shop.Shop/Buy (application app) hides that of /shop.Shop/Sell (application app)" in warning
        app.deployments[0].options.num_replicas += 1
        assert not (await servicer.Apply(control_pb2.ApplyRequest(applications=[app]), Context())).warnings

    with_servicer(scenario)


def test_a_deletion_says_which_calls_go_to_another_application_then() -> None:
    """Those that name none (item 212)."""

    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        for app in (application("first"), application("second")):
            app.deployments[0].grpc_methods.add(full_name="/shop.Shop/Buy")
            await servicer.Deploy(control_pb2.DeployRequest(application=app), Context())
        reply = await servicer.Delete(control_pb2.DeleteRequest(application="first"), Context())
        assert list(reply.warnings) == [
            "Calls of shop.Shop (Buy) that name no application go to second from now on: first does not serve them any"
            " more."
        ]
        assert not (await servicer.Delete(control_pb2.DeleteRequest(application="second"), Context())).warnings

    with_servicer(scenario)
