"""mesh.options.gateway: the options of `mesh.start` and the message made of them (items 53–56)."""

from typing import Any

import pytest

from mesh.options.gateway.gateway_options import differing_fields, parse
from mesh.options.gateway.grpc_options import gRPCOptions
from mesh.options.gateway.http_options import HTTPOptions
from mesh.options.gateway.proxy_location import DeploymentMode, ProxyLocation
from mesh.settings import settings
from mesh.v1 import control_pb2


def test_defaults_are_the_contract_s() -> None:
    """Both ports are open, on every node (items 53–55, C14, C15)."""
    message = parse(None, None, None).to_message()
    assert message.location == control_pb2.GATEWAY_LOCATION_EVERY_NODE
    assert (message.http_host, message.http_port, message.grpc_port) == ("localhost", 8000, 9000)
    assert message.max_message_bytes == 2**31 - 1
    assert not message.HasField("request_timeout_s")
    assert message.has_reflection


def test_the_environment_may_name_the_interface_of_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no option does, as in a container (item 54)."""
    monkeypatch.setenv("MESH_GATEWAY_HTTP_HOST", "0.0.0.0")
    settings.cache_clear()
    try:
        assert parse(None, None, None).http.host == "0.0.0.0"
        assert parse(None, {"host": "127.0.0.1"}, None).http.host == "127.0.0.1"
    finally:
        monkeypatch.undo()
        settings.cache_clear()


def test_reflection_can_be_turned_off() -> None:
    """It is on by default (items 55, 222)."""
    assert not parse(None, None, {"enable_reflection": False}).to_message().has_reflection
    with pytest.raises(TypeError, match=r"enable_reflection'\] must be True or False, got 'no'"):
        parse(None, None, {"enable_reflection": "no"})


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("Disabled", control_pb2.GATEWAY_LOCATION_DISABLED),
        ("NoServer", control_pb2.GATEWAY_LOCATION_DISABLED),
        ("HeadOnly", control_pb2.GATEWAY_LOCATION_HEAD_ONLY),
        (ProxyLocation.EveryNode, control_pb2.GATEWAY_LOCATION_EVERY_NODE),
        (DeploymentMode.NoServer, control_pb2.GATEWAY_LOCATION_DISABLED),
        (DeploymentMode.HeadOnly, control_pb2.GATEWAY_LOCATION_HEAD_ONLY),
    ],
)
def test_locations_are_named_by_string_or_enum(asked: str, expected: int) -> None:
    """`http_options` may name the location too (item 53)."""
    assert parse(asked, None, None).to_message().location == expected
    assert parse(None, {"location": asked}, None).to_message().location == expected


def test_the_proxy_location_wins_over_the_older_field() -> None:
    assert parse("HeadOnly", {"location": "Disabled"}, None).location is ProxyLocation.HeadOnly


def test_an_unknown_location_is_refused() -> None:
    """The error lists the locations (item 53)."""
    with pytest.raises(ValueError, match="Disabled, HeadOnly, EveryNode"):
        parse("everywhere", None, None)
    with pytest.raises(TypeError, match="proxy_location"):
        parse(3, None, None)  # type: ignore[arg-type]


def test_no_host_turns_the_gateways_off() -> None:
    """`host=None` means `Disabled` (item 54)."""
    assert parse("EveryNode", {"host": None}, None).location is ProxyLocation.Disabled
    assert parse("EveryNode", {"port": None}, {"port": None}).location is ProxyLocation.Disabled


def test_unknown_http_keys_are_ignored_and_unknown_grpc_keys_are_not() -> None:
    """Both behave as the contract says (items 54, 55)."""
    assert parse(None, {"port": 81, "colour": "red"}, None).http == HTTPOptions(port=81)
    with pytest.raises(TypeError, match="colour"):
        parse(None, None, {"colour": "red"})


def test_options_may_come_as_objects() -> None:
    asked = parse(None, HTTPOptions(host="0.0.0.0", port=6), gRPCOptions(port=7, request_timeout_s=2)).to_message()
    assert (asked.http_host, asked.http_port, asked.grpc_port, asked.request_timeout_s) == ("0.0.0.0", 6, 7, 2)


def test_no_port_is_another_thing_than_any_port() -> None:
    """None turns a listener off, 0 lets it choose a port (items 54, 55)."""
    asked = parse(None, {"port": None}, {"port": 0}).to_message()
    assert not asked.HasField("http_port")
    assert asked.HasField("grpc_port")
    assert differing_fields(parse(None, {"port": None}, None).to_message(), asked) == ["grpc_port"]
    assert differing_fields(parse(None, {"port": 0}, {"port": 0}).to_message(), asked) == ["http_port"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ssl_keyfile": "key.pem"}, "give both or neither"),
        ({"ssl_certfile": "cert.pem"}, "give both or neither"),
        ({"ssl_ca_certs": "ca.pem"}, "needs ssl_keyfile and ssl_certfile"),
        ({"ssl_keyfile": "k", "ssl_certfile": "c", "ssl_keyfile_password": "secret"}, "must be 'file:PATH'"),
        ({"ssl_client_certificates": "perhaps"}, "required, optional"),
        ({"root_path": "x"}, r"\['root_path'\] must begin with '/'"),
        ({"root_path": "//x"}, r"\['root_path'\]"),
        ({"root_path": "/ü"}, r"\['root_path'\]"),
        ({"request_timeout_s": 0}, r"\['request_timeout_s'\]"),
        ({"keep_alive_timeout_s": 0}, "more than 0"),
        ({"middlewares": [object()]}, r"\['middlewares'\] has no effect"),
        ({"num_cpus": 1}, r"\['num_cpus'\] has no effect"),
        ({"port": 65_536}, "port"),
        ({"port": -1}, "port"),
    ],
)
def test_wrong_http_options_are_refused(options: dict[str, Any], words: str) -> None:
    """The error names the option (item 54)."""
    with pytest.raises(ValueError, match=words):
        parse(None, options, None)


def test_a_root_path_and_a_timeout_of_requests_reach_the_gateways() -> None:
    """Both are off by default (item 54)."""
    asked = parse(None, {"root_path": "/api/v1/", "request_timeout_s": 0.1}, None).to_message()
    assert (asked.http_root_path, asked.http_request_timeout_s) == ("/api/v1", 0.1)
    usual = parse(None, None, None).to_message()
    assert usual.http_root_path == ""
    assert not usual.HasField("http_request_timeout_s")


def test_empty_middlewares_are_fine() -> None:
    """Only a value that asks for something is refused (item 54)."""
    assert parse(None, {"middlewares": [], "num_cpus": 0}, None).http.port == 8000


def test_wrong_grpc_options_are_refused() -> None:
    """The error names the option (item 55)."""
    with pytest.raises(TypeError, match="must be a list"):
        parse(None, None, {"grpc_servicer_functions": "pkg.add_X_to_server"})
    with pytest.raises(ValueError, match="request_timeout_s"):
        parse(None, None, {"request_timeout_s": 0})


@pytest.mark.parametrize(
    "name", ["max_connection_age_s", "max_connection_age_grace_s", "max_connection_idle_s", "keepalive_s"]
)
def test_limits_of_connections_are_passed_on_and_checked(name: str) -> None:
    """None means no limit; keepalive always has one (item 55)."""
    assert getattr(parse(None, None, {name: 30}).to_message(), name) == 30
    for value, error in ((0, ValueError), (-1, ValueError), (float("nan"), ValueError), ("soon", TypeError)):
        with pytest.raises(error, match=rf"grpc_options\['{name}'\]"):
            parse(None, None, {name: value})


def test_several_gateways_share_one_port() -> None:
    """One is the default, and several need a port (item 55)."""
    assert parse(None, None, None).to_message().processes == 1
    assert parse(None, None, {"processes": 4}).to_message().processes == 4
    for port in (0, None):
        assert parse(None, None, {"processes": 1, "port": port}).grpc.processes == 1
        with pytest.raises(ValueError, match="choose one"):
            parse(None, None, {"processes": 2, "port": port})
    for value, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), (10_000, ValueError)):
        with pytest.raises(error, match=r"grpc_options\['processes'\]"):
            parse(None, None, {"processes": value})


def test_connections_have_no_limits_by_default() -> None:
    """But clients that are gone are noticed (item 55)."""
    message = parse(None, None, None).to_message()
    names = {field.name for field, _ in message.ListFields()}
    assert not {"max_connection_age_s", "max_connection_age_grace_s", "max_connection_idle_s"} & names
    assert (message.keepalive_s, message.keepalive_timeout_s) == (60, 20)


def test_differences_to_a_running_mesh_are_named() -> None:
    """The warning lists exactly what differs (item 52)."""
    running = parse(None, None, None).to_message()
    assert differing_fields(running, running) == []
    asked = parse("HeadOnly", {"port": 81}, {"port": 91}).to_message()
    assert differing_fields(asked, running) == ["location", "grpc_port", "http_port"]
