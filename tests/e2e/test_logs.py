"""What a replica logs, prints and raises is found afterwards, by application and by request (item 238)."""

import logging
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

import mesh
from mesh.cluster import ray_core
from tests.e2e.conftest import Deploy
from tests.e2e.gate import small
from tests.e2e.replicas import running
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

Handle = mesh.DeploymentHandle[Any]


@small()
class Tax:
    async def __call__(self, name: str) -> int:
        if name == "untaxed":
            raise LookupError("no tax on it")
        return 1


@small()
class Shop(shop_pb2_grpc.ShopServicer):
    def __init__(self, tax: Handle) -> None:
        self._tax = tax
        print("the shop opens")

    async def Price(self, request: Any, context: Any) -> Any:
        logging.getLogger("mine").info("asked for %s", request.name)
        print("printed", request.name)
        if request.name == "boom":
            raise ValueError("boom asked for")
        if request.name == "unknown":
            await context.abort(grpc.StatusCode.NOT_FOUND, "not here")
        await self._tax.remote(request.name)
        return request


@pytest.fixture(scope="module")
def shop(deploy: Deploy) -> Handle:
    return deploy(Shop.bind(Tax.bind()), "logged")


@pytest.fixture
def price(shop: Handle, channel: grpc.Channel) -> Callable[[str, str], Any]:
    """Calls Price with a request id."""
    stub = shop_pb2_grpc.ShopStub(channel)

    def call(name: str, request_id: str) -> Any:
        metadata = (("application", "logged"), ("request_id", request_id))
        return stub.Price(shop_pb2.Item(name=name), metadata=metadata, timeout=10)

    return call


def logged(pattern: str) -> str:
    """The text of all log files with such names."""
    directory = Path(ray_core.logs_directory()) / "mesh"
    return "".join(path.read_text() for path in sorted(directory.glob(pattern)))


def records(text: str, request_id: str) -> list[str]:
    """The lines of that request, without time, process and request."""
    lines = (line for line in text.splitlines() if f"[{request_id}]" in line)
    return [f"{line.split()[2]} {line.partition(']: ')[2]}" for line in lines]


def test_what_a_call_logs_prints_and_raises_is_in_the_file_of_its_replica(price: Callable[[str, str], Any]) -> None:
    with pytest.raises(grpc.RpcError, match="boom asked for"):
        price("boom", "request-1")
    text = logged("replica#logged#Shop#*.log")
    assert records(text, "request-1") == [
        "INFO asked for boom",
        "STDOUT printed boom",
        "ERROR /mesh.tests.Shop/Price failed: ValueError: boom asked for",
    ]
    traceback = text.partition("ValueError: boom asked for\n")[2].splitlines()
    assert traceback[0] == "Traceback (most recent call last):"
    assert traceback[1].endswith("in Price")
    assert traceback[3] == "ValueError: boom asked for"
    assert ": the shop opens\n" in text


def test_a_failure_two_hops_down_has_its_traceback_where_it_happened(price: Callable[[str, str], Any]) -> None:
    with pytest.raises(grpc.RpcError, match="no tax on it"):
        price("untaxed", "request-2")
    assert records(logged("replica#logged#Tax#*.log"), "request-2") == [
        "ERROR __call__ failed: LookupError: no tax on it"
    ]
    assert records(logged("replica#logged#Shop#*.log"), "request-2")[2:] == [
        "WARNING /mesh.tests.Shop/Price failed in a call that it made: LookupError: no tax on it"
    ]


def test_a_status_that_user_code_chose_is_no_failure(price: Callable[[str, str], Any]) -> None:
    with pytest.raises(grpc.RpcError, match="not here"):
        price("unknown", "request-3")
    assert records(logged("replica#logged#Shop#*.log"), "request-3") == [
        "INFO asked for unknown",
        "STDOUT printed unknown",
    ]


def test_processes_are_named_after_what_they_run(shop: Handle) -> None:
    def names() -> str:
        return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout

    (replica_id,) = running("logged", "Shop")
    until(lambda: f"ray::logged/Shop#{replica_id}" in names())
    assert "ray::mesh-controller" in names()
    assert "ray::mesh-gateway" in names()
