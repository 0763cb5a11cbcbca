"""gateway.requests.descriptors: the messages of methods, made of descriptors that users sent."""

from __future__ import annotations

import pytest
from google.api import annotations_pb2
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import given
from hypothesis import strategies as st

from gateway.requests.descriptors import NO_DESCRIPTORS, Descriptors
from gateway.requests.routes import Routes, read_routes
from mesh.v1 import control_pb2
from tests.unit.fakes.proto_files import message_file, serialised, service_file
from tests.unit.protos import shop_pb2

PRICE = "/mesh.tests.Shop/Price"


def shop_file() -> FileDescriptorProto:
    return FileDescriptorProto.FromString(shop_pb2.DESCRIPTOR.serialized_pb)


def store(package: str, field: str) -> Descriptors:
    """Application with the service PACKAGE.Store; its files have the same names in every package."""
    messages = message_file("messages.proto", package, field=field)
    return Descriptors(package, serialised(messages, service_file("store.proto", "Store", messages, "Get")))


def test_messages_of_a_method_read_what_the_generated_code_writes() -> None:
    found = Descriptors("d", serialised(shop_file())).method(PRICE)
    assert found is not None
    read = found.request.FromString(shop_pb2.Item(name="tea", amount=3).SerializeToString())
    assert json_format.MessageToDict(read) == {"name": "tea", "amount": "3"}
    assert found.response.DESCRIPTOR.full_name == "mesh.tests.Item"
    assert (found.descriptor.client_streaming, found.descriptor.server_streaming) == (False, False)


def test_messages_are_made_once() -> None:
    descriptors = Descriptors("d", serialised(shop_file()))
    assert descriptors.method(PRICE) is descriptors.method(PRICE)


def test_files_of_two_applications_may_have_the_same_name() -> None:
    """Each application has a pool of its own."""
    one, two = store("one", "title").method("/one.Store/Get"), store("two", "label").method("/two.Store/Get")
    assert one is not None
    assert two is not None
    assert [field.name for field in one.request.DESCRIPTOR.fields] == ["title"]
    assert [field.name for field in two.request.DESCRIPTOR.fields] == ["label"]


@pytest.mark.parametrize("name", ["/mesh.tests.Shop/Missing", "/mesh.tests.Missing/Price", "/", "", "Price", "//"])
def test_an_unknown_method_has_no_messages(name: str) -> None:
    assert Descriptors("d", serialised(shop_file())).method(name) is None
    assert NO_DESCRIPTORS.method(name) is None


def test_options_of_methods_are_readable_with_their_extensions() -> None:
    """HTTP rules are such options."""
    messages = message_file("m.proto", "pkg")
    service = service_file("s.proto", "Store", messages, "Get")
    service.service[0].method[0].options.Extensions[annotations_pb2.http].get = "/v1/items/{name}"
    imported = (
        FileDescriptorProto.FromString(each.serialized_pb) for each in _with_imports(annotations_pb2.DESCRIPTOR)
    )
    service.dependency.append("google/api/annotations.proto")
    found = Descriptors("d", serialised(*imported, messages, service)).method("/pkg.Store/Get")
    assert found is not None
    assert found.descriptor.GetOptions().Extensions[annotations_pb2.http].get == "/v1/items/{name}"


def test_a_symbol_is_found_in_the_file_that_defines_it() -> None:
    descriptors = Descriptors("d", serialised(shop_file()))
    symbols = ("mesh.tests.Shop", "mesh.tests.Shop.Price", "mesh.tests.Item", "mesh.tests.Item.amount")
    assert {file.name for each in symbols if (file := descriptors.file_of(each)) is not None} == {shop_file().name}
    assert [descriptors.file_of(each) for each in ("mesh.tests", "mesh", "", "other.Item", "Item")] == [None] * 5


@given(st.binary(max_size=200))
def test_bytes_that_are_no_descriptors_describe_nothing(data: bytes) -> None:
    """A broken set costs its application its descriptors, and the gateway nothing."""
    descriptors = Descriptors("d", data)
    assert descriptors.method(PRICE) is None
    assert descriptors.file_of("mesh.tests.Shop") is None


@given(st.data())
def test_damaged_descriptors_raise_nothing(data: st.DataObject) -> None:
    whole = bytearray(serialised(shop_file()))
    for position in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=5)):
        whole[position] = data.draw(st.integers(0, 255))
    found = Descriptors("d", bytes(whole)).method(PRICE)
    assert found is None or found.descriptor.full_name == "mesh.tests.Shop.Price"


def test_a_file_without_its_imports_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Clients choose how often they ask."""
    messages = message_file("m.proto", "pkg")
    descriptors = Descriptors("d", serialised(service_file("s.proto", "Store", messages, "Get", "Put")))
    for name in ("/pkg.Store/Get", "/pkg.Store/Put", "/pkg.Store/Get"):
        assert descriptors.method(name) is None
    assert caplog.text.count("cannot be used") == 1


def routes(before: Routes, *apps: tuple[str, str], sets: dict[str, bytes]) -> Routes:
    """`apps`: names with the digests of their descriptors."""
    table = control_pb2.RouteTable(
        routes=[control_pb2.Route(app=app, ingress="Front", descriptors_digest=digest) for app, digest in apps],
        descriptor_sets=[control_pb2.DescriptorSet(digest=each, serialised=data) for each, data in sets.items()],
    )
    return read_routes(table, before)


def test_an_application_keeps_its_messages_while_its_descriptors_stay() -> None:
    """Another deploy changes the table, and not what was made for other applications."""
    sets = {"d1": serialised(shop_file())}
    first = routes(read_routes(control_pb2.RouteTable()), ("shop", "d1"), ("plain", ""), sets=sets)
    second = routes(first, ("shop", "d1"), ("other", "d1"), sets=sets)
    assert first.applications["plain"].descriptors is NO_DESCRIPTORS
    assert second.applications["shop"].descriptors is first.applications["shop"].descriptors
    assert second.applications["other"].descriptors is first.applications["shop"].descriptors


def test_descriptors_that_have_not_arrived_are_as_none() -> None:
    lost = routes(read_routes(control_pb2.RouteTable()), ("shop", "d1"), sets={})
    assert lost.applications["shop"].descriptors is NO_DESCRIPTORS


def _with_imports(file):  # type: ignore[no-untyped-def]
    for imported in file.dependencies:
        yield from _with_imports(imported)
    yield file
