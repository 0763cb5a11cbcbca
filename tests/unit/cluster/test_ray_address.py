"""mesh.cluster.ray_address: what is found out about an address before Ray tries it for a minute."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import pytest

from mesh.cluster import ray_address
from mesh.cluster.ray_address import is_ray_here, require_reachable

METHODS = {"": "/ray.rpc.NodeInfoGcsService/CheckAlive", "ray://": "/ray.rpc.RayletDriver/ClusterInfo"}


@dataclass
class Cluster:
    address: str = ""
    asked: int = 0
    """How often its method was called."""


@contextmanager
def cluster_that_answers(method: str, status: grpc.StatusCode) -> Iterator[Cluster]:
    """Other methods than this one are not implemented."""
    cluster = Cluster()

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        cluster.asked += 1
        context.set_code(status)
        return b""

    service, _, name = method[1:].rpartition("/")
    handlers = {name: grpc.unary_unary_rpc_method_handler(answer)}
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads, handlers=[grpc.method_handlers_generic_handler(service, handlers)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            cluster.address = f"127.0.0.1:{port}"
            yield cluster
        finally:
            server.stop(None).wait(30)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_without_a_listener_is_refused(scheme: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=f"No Ray cluster answers at {address}: .* Is the address right?"):
            require_reachable(address)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_asks_for_a_token_is_refused_with_the_way_out(scheme: str) -> None:
    with cluster_that_answers(METHODS[scheme], grpc.StatusCode.UNAUTHENTICATED) as cluster:
        address = f"{scheme}{cluster.address}"
        with pytest.raises(ConnectionError, match=f"at {address} asks for a token, .* RAY_AUTH_MODE=token"):
            require_reachable(address)


def test_ray_sends_its_token_where_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_address, "is_token_auth_enabled", lambda: True)
    with cluster_that_answers(METHODS[""], grpc.StatusCode.UNAUTHENTICATED) as cluster:
        require_reachable(cluster.address)
        assert cluster.asked == 1


def test_a_cluster_that_asks_for_no_token_is_reachable() -> None:
    with cluster_that_answers(METHODS[""], grpc.StatusCode.OK) as cluster:
        require_reachable(cluster.address)
        assert cluster.asked == 1


def test_a_cluster_that_has_another_method_of_its_head_is_reachable() -> None:
    with cluster_that_answers("/ray.rpc.NodeInfoGcsService/GetClusterId", grpc.StatusCode.OK) as cluster:
        require_reachable(cluster.address)
        assert cluster.asked == 1


def test_another_server_is_no_cluster() -> None:
    """For instance the gateway of the mesh itself, whose address was taken for that of Ray."""
    with (
        cluster_that_answers("/shop.Shop/Price", grpc.StatusCode.OK) as cluster,
        pytest.raises(
            ConnectionError, match=f"What listens at {cluster.address} is not a Ray cluster. Is the port right?"
        ),
    ):
        require_reachable(cluster.address)


@pytest.mark.parametrize(
    ("mode", "advice"),
    [
        ("disabled", "RAY_AUTH_MODE=disabled in the environment: unset it, or set it to token"),
        (None, ""),
        ("token", ""),
    ],
)
def test_a_mode_that_keeps_the_token_from_a_cluster_here_is_named(
    monkeypatch: pytest.MonkeyPatch, mode: str | None, advice: str
) -> None:
    """Ray would try for twenty seconds, and then say that there is no cluster."""
    monkeypatch.setattr(ray_address, "ray_auth_mode", lambda: mode)
    monkeypatch.setattr(ray_address, "is_token_auth_enabled", lambda: mode == "token")
    with cluster_that_answers(METHODS[""], grpc.StatusCode.UNAUTHENTICATED) as cluster:
        monkeypatch.setattr(ray_address, "get_ray_address_from_environment", lambda *asked: cluster.address)
        if not advice:
            assert is_ray_here()
            return
        with pytest.raises(ConnectionError, match=f"on this machine, {cluster.address}, asks for a token, .* {advice}"):
            is_ray_here()


def test_no_cluster_here_asks_for_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for: list[object] = []

    def find(*asked: object) -> str:
        looked_for.append(asked)
        raise ConnectionError("no running Ray")

    monkeypatch.setattr(ray_address, "ray_auth_mode", lambda: "disabled")
    monkeypatch.setattr(ray_address, "is_token_auth_enabled", lambda: False)
    monkeypatch.setattr(ray_address, "get_ray_address_from_environment", find)
    assert not is_ray_here()
    assert len(looked_for) == 1


def test_a_cluster_that_was_killed_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves its address in a file, and Ray would try to reach it for a minute."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setattr(ray_address, "get_ray_address_from_environment", lambda *asked: address)
        assert is_ray_here()
    assert not is_ray_here()
    monkeypatch.setattr(ray_address, "get_ray_address_from_environment", lambda *asked: "half an addr")
    assert not is_ray_here()


@pytest.mark.parametrize("host", ["localhost", "10.0.0.1"])
def test_a_host_without_a_port_is_no_address(host: str) -> None:
    with pytest.raises(ConnectionError, match=f"'{host}' is not an address of a Ray cluster: .* such as {host}:6379"):
        require_reachable(host)


def test_a_listener_that_speaks_otherwise_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may use TLS."""
    monkeypatch.setattr(ray_address, "_ANSWER_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        require_reachable(f"127.0.0.1:{silent.getsockname()[1]}")
        silent.settimeout(10)
        assert silent.accept(), "it was asked"


@pytest.mark.parametrize("word", ["auto", "ray://cluster", "other://cluster"])
def test_what_is_no_address_is_left_to_ray(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(grpc, "insecure_channel", asked.append)
    require_reachable(word)
    assert asked == []
