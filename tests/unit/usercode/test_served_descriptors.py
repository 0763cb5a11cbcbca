"""mesh.usercode.served_descriptors: the files of served methods, as bytes for gateways."""

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from mesh.defaults.data_path_settings import PayloadSettings
from mesh.settings import Settings
from mesh.usercode import served_descriptors
from mesh.usercode.served_descriptors import descriptors_of
from mesh.usercode.served_methods import TypedMethod, typed_methods
from tests.unit.fakes.proto_files import message_file, pool_of, service_file
from tests.unit.protos import shop_pb2, shop_pb2_grpc


class Shop(shop_pb2_grpc.ShopServicer):  # type: ignore[misc]
    def Price(self, request: Any, context: Any) -> Any: ...

    def List(self, request: Any, context: Any) -> Any: ...


def method_of(pool: Any, full_name: str) -> TypedMethod:
    """A method whose messages come from a pool that is not protobuf's default."""
    message = message_factory.GetMessageClass(pool.FindMethodByName(full_name[1:].replace("/", ".")).input_type)
    return TypedMethod(full_name, "Method", False, False, message.FromString, None, False)


def files_of(data: bytes) -> list[FileDescriptorProto]:
    return list(FileDescriptorSet.FromString(data).file)


def test_the_file_of_a_service_comes_as_the_generated_code_has_it() -> None:
    (file,) = files_of(descriptors_of(typed_methods(Shop).values(), "shop"))
    assert file.name == shop_pb2.DESCRIPTOR.name
    assert file.SerializeToString() == shop_pb2.DESCRIPTOR.serialized_pb


def test_imports_stand_before_the_files_that_import_them() -> None:
    messages = message_file("b/messages.proto", "pkg")
    pool = pool_of(messages, service_file("a/service.proto", "Store", messages, "Get"))
    files = files_of(descriptors_of([method_of(pool, "/pkg.Store/Get")], "app"))
    assert [file.name for file in files] == ["b/messages.proto", "a/service.proto"]


def test_the_bytes_are_the_same_for_the_same_services_in_any_order() -> None:
    """Their digest names them: the same application does not get new ones."""
    methods = list(typed_methods(Shop).values())
    assert descriptors_of(methods, "app") == descriptors_of(reversed(methods), "app")


def test_services_without_a_proto_add_nothing() -> None:
    """They are served as before."""
    generic = TypedMethod("/no.Proto/Method", "Method", False, False, None, None, False)
    assert descriptors_of([generic], "app") == b""
    assert descriptors_of([], "app") == b""


def test_a_second_file_of_the_same_name_keeps_only_its_service_from_having_descriptors(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No pool can hold both."""
    first, second = message_file("common.proto", "one"), message_file("common.proto", "two")
    pools = [
        pool_of(first, service_file("one.proto", "Store", first, "Get")),
        pool_of(second, service_file("two.proto", "Store", second, "Get")),
    ]
    methods = [method_of(pool, f"/{package}.Store/Get") for pool, package in zip(pools, ("one", "two"), strict=True)]
    files = files_of(descriptors_of(methods, "app"))
    assert [file.name for file in files] == ["common.proto", "one.proto"]
    assert "two.Store comes without descriptors" in caplog.text


def test_descriptors_above_the_limit_fail_the_deploy_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every gateway would hold them (item 223)."""
    small = replace(Settings(), payload=PayloadSettings(descriptors_max_bytes=10))
    monkeypatch.setattr(served_descriptors, "settings", lambda: small)
    with pytest.raises(ValueError, match=r"application 'shop' are .* bytes.*at most 10.*MESH_DESCRIPTORS_MAX_BYTES"):
        descriptors_of(typed_methods(Shop).values(), "shop")
