"""A port that another process has is reported before anything starts (item 57)."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from mesh.client import mesh_lifecycle, port_check
from mesh.cluster import ray_core
from mesh.cluster.ray_core import RayNode
from mesh.v1 import control_pb2


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port in use, on the head node."""
    monkeypatch.setattr(port_check, "_WAIT_S", 0.0)
    monkeypatch.setattr(ray_core, "is_ray_client", lambda: False)
    monkeypatch.setattr(ray_core, "node_id", lambda: "n1")
    nodes = [RayNode(node_id="n1", is_head=True, is_alive=True, zone="")]
    monkeypatch.setattr(ray_core, "list_nodes", lambda: nodes)
    assert mesh_lifecycle.head_node_id() == "n1"
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def options(**given: object) -> control_pb2.GatewayOptions:
    return control_pb2.GatewayOptions(
        location=control_pb2.GATEWAY_LOCATION_EVERY_NODE, grpc_host="127.0.0.1", http_host="localhost", **given
    )


def test_a_taken_port_is_named_with_the_way_out(taken: int) -> None:
    message = rf"Port {taken} of 127.0.0.1 is taken .* or 0 for any free one: grpc_options=.*--grpc-port"
    with pytest.raises(OSError, match=message):
        port_check.require_free(options(grpc_port=taken))
    with pytest.raises(OSError, match=rf"Port {taken} of localhost .* http_options=.* --http-port"):
        port_check.require_free(options(http_port=taken))


def test_ports_of_the_gateways_that_run_are_not_asked(taken: int) -> None:
    """They are taken over; only a new one has to be free."""
    running = options(grpc_port=taken)
    port_check.require_free(options(grpc_port=taken, max_connection_age_s=5.0), running)
    port_check.require_free(options(http_port=taken), running)
    with pytest.raises(OSError, match="taken by another process"):
        port_check.require_free(options(http_port=taken), options(grpc_port=1))


def is_refused(gateways: control_pb2.GatewayOptions) -> bool:
    try:
        port_check.require_free(gateways)
    except OSError:
        return True
    return False


def test_ports_that_are_free_or_any_or_off_are_fine(taken: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    assert [is_refused(options(grpc_port=port)) for port in (taken, 0, free)] == [True, False, False]


def test_only_the_head_node_is_looked_at(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateways of other nodes report their own ports."""
    disabled = control_pb2.GatewayOptions(location=control_pb2.GATEWAY_LOCATION_DISABLED, grpc_port=taken)
    assert not is_refused(disabled)
    assert is_refused(options(grpc_port=taken))
    monkeypatch.setattr(ray_core, "node_id", lambda: "n2")
    assert not is_refused(options(grpc_port=taken))


def test_a_host_that_cannot_be_bound_is_for_the_gateway_to_report(taken: int) -> None:
    unknown_host = control_pb2.GatewayOptions(
        location=control_pb2.GATEWAY_LOCATION_EVERY_NODE, grpc_host="no.such.host.invalid", grpc_port=taken
    )
    assert not is_refused(unknown_host)


def test_a_port_that_is_taken_on_an_ipv6_address_is_reported_too(taken: int) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        on_ipv6 = options(http_port=port)
        on_ipv6.http_host = "::1"
        with pytest.raises(OSError, match=rf"Port {port} of ::1 is taken by another process"):
            port_check.require_free(on_ipv6)
        assert not is_refused(options(http_port=port)), "of localhost gateways take the IPv4 address"


@pytest.mark.parametrize(
    ("grpc_host", "is_same"), [("0.0.0.0", True), ("localhost", True), ("::", True), ("192.0.2.1", False)]
)
def test_one_port_cannot_be_both(taken: int, grpc_host: str, is_same: bool) -> None:
    """It would be the gateway itself that has it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    both = options(grpc_port=free, http_port=free)
    both.grpc_host = grpc_host
    assert is_refused(both) == is_same
    if is_same:
        with pytest.raises(OSError, match=rf"Port {free} is named twice, .* turn the other one off with"):
            port_check.require_free(both, options(grpc_port=free, http_port=1))
