"""TLS, authentication and identity on a real Ray: from a stock client through a gateway and two deployments."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import mesh
from mesh.wire.api_key_lines import key_line
from tests.e2e.conftest import Gateway
from tests.e2e.gate import small
from tests.e2e.waiting import until
from tests.unit.fakes.certificates import Pki
from tests.unit.protos import shop_pb2, shop_pb2_grpc

ALICE = (("authorization", "Bearer key of alice"),)


@small()
class Back:
    def who(self) -> list[str]:
        request = mesh.context.current_request()
        identity = request.identity if request else None
        if request is None or identity is None:
            return []
        return [identity.name, *identity.attributes.values(), *filter(None, [request.tenant])]


@small()
class Front(shop_pb2_grpc.ShopServicer):
    def __init__(self, back: Any) -> None:
        self._back = back

    async def Price(self, request: Any, context: Any) -> Any:
        own = [each.decode() for each in context.peer_identities() or ()]
        return shop_pb2.Item(name="/".join([*own, *await self._back.who.remote()]))


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module", autouse=True)
def secured(gateway: Gateway, pki: Pki) -> Iterator[dict[str, Any]]:
    """A mesh that asks who calls, over TLS; after it the run's mesh is there again."""
    mesh.shutdown()
    keys = pki.ca.directory / "keys.txt"
    dave = key_line("dave", "key of dave", {"tenant": "globex"})
    keys.write_text(key_line("alice", "key of alice", {"role": "admin"}) + "\n" + dave)
    server = pki.server()
    tls = {"ssl_certfile": str(server.certfile), "ssl_keyfile": str(server.keyfile)}
    options = {
        **tls,
        "port": gateway.grpc_port,
        "authentication": {"keys_file": str(keys), "function": "tests.e2e.doors:by_session"},
        "limits_per_identity": {"bob": {"rate_per_s": 0.01, "burst": 1}},
    }
    mesh.start(http_options={**tls, "port": gateway.http_port}, grpc_options=options)
    mesh.run(Front.bind(Back.bind()), name="secured", route_prefix="/secured")
    yield options
    mesh.shutdown()
    gateway.start_mesh()


@pytest.fixture
def stub(gateway: Gateway, pki: Pki) -> Iterator[shop_pb2_grpc.ShopStub]:
    with grpc.secure_channel(f"localhost:{gateway.grpc_port}", pki.credentials()) as channel:
        yield shop_pb2_grpc.ShopStub(channel)


def code_of(stub: shop_pb2_grpc.ShopStub, *metadata: tuple[str, str]) -> grpc.StatusCode:
    try:
        stub.Price(shop_pb2.Item(), metadata=metadata, timeout=20)
    except grpc.RpcError as error:
        return error.code()  # type: ignore[attr-defined,no-any-return]
    return grpc.StatusCode.OK


def test_the_identity_travels_from_the_gateway_to_the_last_deployment(stub: shop_pb2_grpc.ShopStub) -> None:
    """By a key of the file, and by the user's function."""
    assert stub.Price(shop_pb2.Item(), metadata=ALICE, timeout=20).name == "alice/alice/admin"
    assert stub.Price(shop_pb2.Item(), metadata=(("x-session", "carol"),), timeout=20).name == "carol/carol/session"
    assert code_of(stub) is grpc.StatusCode.UNAUTHENTICATED
    assert code_of(stub, ("authorization", "Bearer another")) is grpc.StatusCode.UNAUTHENTICATED


def test_a_client_that_belongs_to_a_tenant_cannot_name_another(stub: shop_pb2_grpc.ShopStub) -> None:
    """What the file of keys says counts, down to the last deployment (item 206)."""
    dave = (("authorization", "Bearer key of dave"), ("tenant", "acme"))
    assert stub.Price(shop_pb2.Item(), metadata=dave, timeout=20).name == "dave/dave/globex/globex"
    assert (
        stub.Price(shop_pb2.Item(), metadata=(*ALICE, ("tenant", "acme")), timeout=20).name == "alice/alice/admin/acme"
    )


def test_limits_are_those_of_each_client(stub: shop_pb2_grpc.ShopStub) -> None:
    bob = ("x-session", "bob")
    assert [code_of(stub, bob), code_of(stub, bob)] == [grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert code_of(stub, *ALICE) is grpc.StatusCode.OK


def test_json_over_https_asks_the_same(gateway: Gateway, pki: Pki) -> None:
    def post(**headers: str) -> Any:
        request = urllib.request.Request(
            f"https://localhost:{gateway.http_port}/mesh.tests.Shop/Price",
            b"{}",
            {"content-type": "application/json", **headers},
        )
        with urllib.request.urlopen(request, timeout=20, context=pki.client_context()) as response:
            return json.loads(response.read())

    assert post(authorization="Bearer key of alice")["name"] == "alice/alice/admin"
    with pytest.raises(urllib.error.HTTPError) as caught:
        post()
    with caught.value as answer:
        assert answer.code == 401


def test_a_new_certificate_is_taken_over(gateway: Gateway, pki: Pki, stub: shop_pb2_grpc.ShopStub) -> None:
    """The connection of the stub goes on."""
    address = ("localhost", gateway.grpc_port)
    before = ssl.get_server_certificate(address, timeout=10)
    assert code_of(stub, *ALICE) is grpc.StatusCode.OK
    pki.server()
    until(lambda: ssl.get_server_certificate(address, timeout=10) != before, timeout_s=30)
    assert code_of(stub, *ALICE) is grpc.StatusCode.OK


def test_a_mesh_with_wrong_files_does_not_start(gateway: Gateway, secured: dict[str, Any], pki: Pki) -> None:
    """The error names the option and the file."""
    mesh.shutdown()
    missing = Path(pki.ca.directory, "missing.key")
    with pytest.raises(Exception, match=r"grpc_options\['ssl_keyfile'\]: cannot read .*missing\.key"):
        mesh.start(http_options={"port": gateway.http_port}, grpc_options={**secured, "ssl_keyfile": str(missing)})
