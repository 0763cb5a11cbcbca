"""mesh.options.gateway.gateway_changes: what is named changes, all else stays, and what cannot change is refused."""

from dataclasses import fields
from typing import Any

import pytest

from mesh.options.gateway.gateway_changes import GRPC_FIELDS, HTTP_FIELDS, GatewayChange, NamedOptions, change_of
from mesh.options.gateway.gateway_options import parse
from mesh.options.gateway.grpc_options import gRPCOptions
from mesh.options.gateway.http_options import HTTPOptions
from mesh.v1 import control_pb2

RUNNING = parse(None, {"port": 8001, "root_path": "/api"}, {"port": 9001, "request_timeout_s": 5}).to_message()


def change(
    http: Any = None,
    grpc: Any = None,
    location: str | None = None,
    running: control_pb2.GatewayOptions = RUNNING,
    **others: Any,
) -> GatewayChange:
    asked = parse(location, http, grpc, others.get("logging"), others.get("tracing"), others.get("controller_options"))
    return change_of(running, asked.to_message(), NamedOptions.of(location, http, grpc, **others))


def test_a_call_that_names_nothing_changes_nothing() -> None:
    assert change().names == change({}, {}).names == []
    assert change().after == RUNNING


def test_named_options_change_and_all_others_stay() -> None:
    found = change({"port": 8002}, {"enable_reflection": False})
    assert found.names == ["http_port", "has_reflection"]
    assert (found.after.http_port, found.after.http_root_path, found.after.grpc_port) == (8002, "/api", 9001)
    assert found.before == RUNNING


def test_what_is_named_with_its_present_value_is_no_change() -> None:
    assert change({"port": 8001, "root_path": "/api"}, {"port": 9001}).names == []


def test_an_option_is_taken_back_by_naming_its_default() -> None:
    found = change(grpc={"request_timeout_s": None})
    assert found.names == ["request_timeout_s"]
    assert not found.after.HasField("request_timeout_s")


def test_objects_name_all_their_fields() -> None:
    assert change(HTTPOptions(port=8001)).names == ["http_root_path"]
    assert change(grpc=gRPCOptions()).names == ["grpc_port", "request_timeout_s"]


def test_groups_change_as_a_whole() -> None:
    tls = {"ssl_certfile": "a.pem", "ssl_keyfile": "a.key"}
    with_tls = change(grpc=tls).after
    assert with_tls.grpc_tls.certfile == "a.pem"
    other = change(grpc={**tls, "ssl_certfile": "b.pem"}, running=with_tls)
    assert (other.names, other.after.grpc_tls.certfile) == (["grpc_tls"], "b.pem")
    assert not change(grpc={"ssl_certfile": None, "ssl_keyfile": None}, running=with_tls).after.HasField("grpc_tls")


def test_the_location_changes_only_when_it_is_named() -> None:
    head = control_pb2.GATEWAY_LOCATION_HEAD_ONLY
    assert change(location="HeadOnly").after.location == head
    assert change({"location": "HeadOnly"}).after.location == head
    on_head = change(location="HeadOnly").after
    assert change({"port": 8005}, running=on_head).after.location == head
    assert change({"location": None, "port": 8005}, running=on_head).after.location == head


def test_gateways_are_turned_off_and_on_by_their_host() -> None:
    off = change({"host": None})
    assert off.after.location == control_pb2.GATEWAY_LOCATION_DISABLED
    assert change({"host": "localhost"}, running=off.after).after.location == control_pb2.GATEWAY_LOCATION_EVERY_NODE


def test_what_only_a_new_mesh_can_have_is_left_out_and_named() -> None:
    found = change(grpc={"port": 9002}, controller_options={"runtime_env": {"env_vars": {"ZONE": "a"}}})
    assert (found.ignored, found.names) == (("controller_options",), ["grpc_port"])
    assert found.after.controller_options == RUNNING.controller_options


def test_the_number_of_processes_changes_where_they_have_a_port_to_share() -> None:
    found = change(grpc={"processes": 3})
    assert (found.names, found.after.processes, found.after.grpc_port) == (["processes"], 3, 9001)
    assert change(grpc={"processes": 1}).names == []
    any_port = parse(None, {"port": 8001}, {"port": 0}).to_message()
    with pytest.raises(ValueError, match="need a port that they can share: name one"):
        change(grpc={"processes": 3}, running=any_port)
    assert change(grpc={"processes": 3, "port": 9000}, running=any_port).after.grpc_port == 9000


def test_logs_and_spans_change_while_gateways_run() -> None:
    found = change(logging={"log_level": "DEBUG"}, tracing={"sampling_ratio": 0.5})
    assert (found.ignored, found.names) == ((), ["logging", "tracing"])
    assert (found.after.logging.level, found.after.tracing.sampling_ratio) == (10, 0.5)


def test_another_host_comes_with_the_same_port_or_another_one() -> None:
    assert change({"host": "0.0.0.0"}).names == ["http_host"]
    assert change({"host": "0.0.0.0", "port": 8009}).names == ["http_host", "http_port"]


def test_every_option_of_a_gateway_can_be_named() -> None:
    """Those without a field are for drivers, or refused, or the location."""
    http = {each.name for each in fields(HTTPOptions)}
    assert http - HTTP_FIELDS.keys() == {"location", "middlewares", "num_cpus"}
    assert {each.name for each in fields(gRPCOptions)} - GRPC_FIELDS.keys() == {"grpc_servicer_functions"}
    known = {each.name for each in control_pb2.GatewayOptions.DESCRIPTOR.fields}
    assert {*HTTP_FIELDS.values(), *GRPC_FIELDS.values()} <= known
