"""mesh.controller.control_servicer: the options of gateways that a running mesh gets, and those that it refuses."""

import logging

import grpc
import pytest

from mesh.controller.control_servicer import ControlServicer
from mesh.controller.event_log import EventLog
from mesh.v1 import control_pb2
from tests.sim.fake_mesh import Mesh
from tests.sim.fake_time import run_in_fake_time
from tests.unit.controller.servicer_context import IDENTITY, Aborted, Context


def asked(first: control_pb2.GatewayOptions, **fields: object) -> control_pb2.ConfigureGatewaysRequest:
    request = control_pb2.ConfigureGatewaysRequest(options=first, expected=first)
    request.options.MergeFrom(control_pb2.GatewayOptions(**fields))  # type: ignore[arg-type]
    return request


def test_what_gateways_cannot_get_is_refused_with_advice() -> None:
    """Whatever client asks for it; nothing is stored."""

    async def main() -> None:
        options = control_pb2.GatewayOptions(http_host="localhost", http_port=8000, grpc_port=9000, processes=0)
        mesh = Mesh(seed=1, gateways=options)
        await mesh.boot()
        servicer = ControlServicer(mesh.loop, mesh.publisher, lambda: 12.5, IDENTITY, EventLog(lambda: 12.5))
        with pytest.raises(Aborted, match="need a port that they can share") as refusal:
            await servicer.ConfigureGateways(asked(options, processes=4, grpc_port=0), Context())
        assert refusal.value.code == grpc.StatusCode.FAILED_PRECONDITION
        assert mesh.stored().gateways == options
        await mesh.crash()

    run_in_fake_time(main())


def test_what_is_stored_already_is_no_change_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A client repeats its request when the answer was lost; two programs may ask for the same."""

    async def main() -> None:
        options = control_pb2.GatewayOptions(grpc_port=9000)
        mesh = Mesh(seed=1, gateways=options)
        await mesh.boot()
        servicer = ControlServicer(mesh.loop, mesh.publisher, lambda: 12.5, IDENTITY, EventLog(lambda: 12.5))
        for request_id in ("one", "one", "another"):
            request = asked(options, processes=2)
            request.request_id = request_id
            await servicer.ConfigureGateways(request, Context())
        await mesh.crash()

    with caplog.at_level(logging.INFO, "mesh"):
        run_in_fake_time(main())
    assert [line for line in caplog.messages if "of the gateways is stored" in line] == [
        "change of the gateways is stored: processes"
    ]


def test_other_logs_come_to_the_controller_at_once_and_to_gateways_one_by_one() -> None:
    async def main() -> None:
        options = control_pb2.GatewayOptions(grpc_port=9000)
        mesh = Mesh(seed=1, gateways=options)
        await mesh.boot()
        await mesh.until(lambda: all(each.status == "HEALTHY" for each in mesh.loop.status().gateways))
        seen: list[control_pb2.LoggingOptions] = []
        events = EventLog(lambda: 12.5)
        servicer = ControlServicer(mesh.loop, mesh.publisher, lambda: 12.5, IDENTITY, events, seen.append)
        wanted = control_pb2.LoggingOptions(level=10)
        await servicer.ConfigureGateways(asked(options, logging=wanted), Context())
        assert seen == [wanted]
        await mesh.until(
            lambda: mesh.stored().gateways.logging == wanted and not mesh.stored().HasField("gateways_before")
        )

        def gateways() -> list[control_pb2.LoggingOptions]:
            specs = (each.spec for each in mesh.cluster.actors.values())
            return [each.options.logging for each in specs if isinstance(each, control_pb2.GatewaySpec)]

        await mesh.until(lambda: gateways() == [wanted])
        await mesh.crash()

    run_in_fake_time(main())
