"""Reflection of a gateway, asked by the stock client and with raw messages of both versions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection_pb2 as stock
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from hypothesis import given
from hypothesis import strategies as st

from gateway.ops.built_in_services import PUBLIC_SERVICES, BuiltInServices
from gateway.ops.grpc_health import Health
from gateway.ops.grpc_reflection import Reflection
from gateway.ops.reflection_answers import ReflectionAnswers
from gateway.requests.routes import Routes, read_routes
from mesh.rpc.method_handlers import MethodHandlers
from mesh.rpc.request_head import read_request_head
from mesh.rpc.rpc_server import RpcServer
from mesh.v1 import control_pb2
from mesh.v1.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from tests.unit.fakes.proto_files import message_file, serialised, service_file
from tests.unit.gateway.fakes import on_io_loop
from tests.unit.protos import shop_pb2

VERSIONS = ("v1", "v1alpha")
BUILT_IN = sorted(service.full_name for service in PUBLIC_SERVICES)
SHOP = descriptor_pb2.FileDescriptorProto.FromString(shop_pb2.DESCRIPTOR.serialized_pb)


def described(app: str, data: bytes, *methods: str) -> control_pb2.RouteTable:
    """An application with these descriptors, which serves these methods."""
    return control_pb2.RouteTable(
        routes=[
            control_pb2.Route(
                app=app,
                ingress="Front",
                grpc_methods=[control_pb2.GrpcMethod(full_name=name) for name in methods],
                descriptors_digest=app if data else "",
            )
        ],
        descriptor_sets=[control_pb2.DescriptorSet(digest=app, serialised=data)] if data else [],
    )


def store(package: str, field: str, service: str = "Store") -> bytes:
    """A service in two files, whose names are the same in every package."""
    messages = message_file("messages.proto", package, field=field)
    return serialised(messages, service_file("store.proto", service, messages, "Get"))


def routes_of(*tables: control_pb2.RouteTable) -> Routes:
    whole = control_pb2.RouteTable()
    for table in tables:
        whole.MergeFrom(table)
    return read_routes(whole)


SHOP_APP = described("shop", serialised(SHOP), "/mesh.tests.Shop/Price", "/mesh.tests.Stock/Count")
ONE = described("one", store("pkg", "title"), "/pkg.Store/Get")
TWO = described("two", store("pkg", "label"), "/pkg.Store/Get")


@asynccontextmanager
async def reflecting(*tables: control_pb2.RouteTable) -> AsyncIterator[int]:
    """The port of a server with the built-in services of a gateway."""
    routes = routes_of(*tables)
    handlers = MethodHandlers()
    handlers.add_generic_rpc_handlers([BuiltInServices([Health().handler(), *Reflection(lambda: routes).handlers()])])
    server = RpcServer(read_request_head, handlers.accept)
    port = await server.listen("127.0.0.1", 0)
    try:
        yield port
    finally:
        await server.stop(0)


async def asked(
    port: int, *requests: ServerReflectionRequest, version: str = "v1", application: str = ""
) -> list[ServerReflectionResponse]:
    """The answers of one stream."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )
        metadata = (("application", application),) if application else ()
        return [answer async for answer in call(iter(requests), metadata=metadata, timeout=10)]


def answers(
    *requests: ServerReflectionRequest,
    tables: Sequence[control_pb2.RouteTable],
    version: str = "v1",
    application: str = "",
) -> list[ServerReflectionResponse]:
    async def scenario() -> list[ServerReflectionResponse]:
        async with reflecting(*tables) as port:
            return await asked(port, *requests, version=version, application=application)

    return on_io_loop(scenario())


def files_in(answer: ServerReflectionResponse) -> list[descriptor_pb2.FileDescriptorProto]:
    data = answer.file_descriptor_response.file_descriptor_proto
    return [descriptor_pb2.FileDescriptorProto.FromString(each) for each in data]


def field_in(answer: ServerReflectionResponse) -> str:
    """The name of the only field of Item, which tells the applications apart."""
    (name,) = [file.message_type[0].field[0].name for file in files_in(answer) if file.name == "messages.proto"]
    return name


def symbol(name: str) -> ServerReflectionRequest:
    return ServerReflectionRequest(file_containing_symbol=name)


def file(name: str) -> ServerReflectionRequest:
    return ServerReflectionRequest(file_by_filename=name)


LIST = ServerReflectionRequest(list_services="*")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_services_of_all_applications_and_of_the_gateway_are_listed(version: str) -> None:
    """Reflection is on by default (item 222)."""
    bare = described("bare", b"", "/without.Proto/Get")
    (answer,) = answers(LIST, tables=(SHOP_APP, ONE, TWO, bare), version=version)
    names = [service.name for service in answer.list_services_response.service]
    assert names == sorted([*BUILT_IN, "mesh.tests.Shop", "mesh.tests.Stock", "pkg.Store", "without.Proto"])
    assert answer.original_request == LIST


def test_a_named_application_is_listed_alone() -> None:
    (answer,) = answers(LIST, tables=(SHOP_APP, ONE), application="one")
    assert [service.name for service in answer.list_services_response.service] == sorted([*BUILT_IN, "pkg.Store"])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_symbol_comes_with_its_file_as_the_user_wrote_it(version: str) -> None:
    (answer,) = answers(symbol("mesh.tests.Shop.Price"), tables=(SHOP_APP,), version=version)
    assert files_in(answer) == [SHOP]


def test_a_file_comes_with_what_it_imports() -> None:
    (answer,) = answers(file("store.proto"), tables=(ONE,))
    assert [each.name for each in files_in(answer)] == ["store.proto", "messages.proto"]


@pytest.mark.parametrize(("application", "field"), [("one", "title"), ("two", "label")])
def test_files_of_the_same_name_are_chosen_by_the_application(application: str, field: str) -> None:
    got = answers(symbol("pkg.Store"), file("messages.proto"), tables=(ONE, TWO), application=application)
    assert [field_in(answer) for answer in got] == [field, field]


def test_without_a_name_the_first_application_that_serves_it_answers() -> None:
    assert field_in(answers(symbol("pkg.Store"), tables=(ONE, TWO))[0]) == "title"


@pytest.mark.parametrize(
    "request_", [symbol("pkg.Store"), symbol("pkg.Store.Get"), symbol("pkg.Item"), file("messages.proto")]
)
def test_what_several_applications_have_is_described_by_the_one_that_calls_reach(
    request_: ServerReflectionRequest,
) -> None:
    """A client that reflects names no application when it calls either."""
    tables = [control_pb2.RouteTable.FromString(each.SerializeToString()) for each in (ONE, TWO)]
    for order, table in zip((2, 1), tables, strict=True):
        table.routes[0].grpc_methods[0].serving_order = order
    assert field_in(answers(request_, tables=tables)[0]) == "label"


def test_an_application_that_only_has_the_file_comes_after_one_that_serves_it() -> None:
    importer = described("a-importer", store("pkg", "copy"), "/mesh.tests.Shop/Price")
    assert field_in(answers(symbol("pkg.Store"), tables=(importer, TWO))[0]) == "label"


def test_a_stream_stays_with_the_application_that_answered_last() -> None:
    """A client that asks for a symbol and then for files gets one set of files that fit together."""
    own = described("two", store("pkg", "label", service="Own"), "/pkg.Own/Get")
    got = answers(symbol("pkg.Own"), file("messages.proto"), tables=(ONE, own))
    assert [field_in(answer) for answer in got] == ["label", "label"]


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (symbol("mesh.tests.Shop.Missing"), "No symbol 'mesh.tests.Shop.Missing' is known"),
        (symbol("mesh.tests"), "No symbol 'mesh.tests' is known"),
        (symbol(""), "No symbol '' is known"),
        (symbol("x" * 5000), "x…'"),
        (file("missing.proto"), "No file 'missing.proto' is known"),
        (ServerReflectionRequest(all_extension_numbers_of_type="no.Type"), "No message 'no.Type' is known"),
        (ServerReflectionRequest(all_extension_numbers_of_type="mesh.tests.Shop"), "No message 'mesh.tests.Shop' is"),
        (
            ServerReflectionRequest(file_containing_extension={"containing_type": "a.B", "extension_number": 7}),
            "No extension 7 of 'a.B' is known",
        ),
    ],
)
def test_what_is_unknown_is_an_answer_and_the_stream_goes_on(request_: ServerReflectionRequest, says: str) -> None:
    missing, found = answers(request_, symbol("mesh.tests.Shop"), tables=(SHOP_APP,))
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert says in missing.error_response.error_message
    assert files_in(found) == [SHOP]


def test_a_request_for_nothing_is_refused_in_the_stream() -> None:
    (answer,) = answers(ServerReflectionRequest(host="h"), tables=())
    assert answer.error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert answer.valid_host == "h"


def test_extensions_are_found_by_type_and_number() -> None:
    base = message_file("base.proto", "pkg")
    base.syntax = "proto2"
    base.message_type[0].extension_range.add(start=100, end=200)
    extending = descriptor_pb2.FileDescriptorProto(name="more.proto", package="pkg", dependency=["base.proto"])
    kind = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
    extending.extension.add(name="note", number=100, type=kind, label=1, extendee=".pkg.Item")
    extending.message_type.add(name="Scope").extension.add(
        name="inner", number=150, type=kind, label=1, extendee=".pkg.Item"
    )
    app = described("app", serialised(base, extending), "/pkg.Store/Get")
    numbers, by_number = answers(
        ServerReflectionRequest(all_extension_numbers_of_type="pkg.Item"),
        ServerReflectionRequest(file_containing_extension={"containing_type": "pkg.Item", "extension_number": 150}),
        tables=(app,),
    )
    assert list(numbers.all_extension_numbers_response.extension_number) == [100, 150]
    assert [each.name for each in files_in(by_number)] == ["more.proto", "base.proto"]


def test_large_imports_are_left_for_the_client_to_ask_for() -> None:
    """An answer must fit into what clients receive, which is 4 MiB by default."""
    large = message_file("large.proto", "pkg")
    large.message_type.add(name="N" * 1_100_000)
    service = service_file("service.proto", "Store", large, "Get")
    answer, imported = answers(
        symbol("pkg.Store"),
        file("large.proto"),
        tables=(described("app", serialised(large, service), "/pkg.Store/Get"),),
    )
    assert [each.name for each in files_in(answer)] == ["service.proto"]
    assert [each.name for each in files_in(imported)] == ["large.proto"]


def test_broken_descriptors_are_as_none() -> None:
    broken = described("broken", b"\xff\xff\xff", "/pkg.Store/Get")
    listed, missing = answers(LIST, symbol("pkg.Store"), tables=(broken,))
    assert "pkg.Store" in [service.name for service in listed.list_services_response.service]
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_the_stock_client_builds_messages_of_a_service_that_it_has_never_seen() -> None:
    """It asks by v1alpha, for symbols and for the files that these import."""

    def client(port: int) -> tuple[list[str], dict[str, Any]]:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            pool = descriptor_pool.DescriptorPool(database)
            services = sorted(database.get_services())
            described = {name: pool.FindServiceByName(name) for name in services}
            request = message_factory.GetMessageClass(described["pkg.Store"].methods_by_name["Get"].input_type)
            assert request(title="tea").SerializeToString()
            return services, described

    async def scenario() -> tuple[list[str], dict[str, Any]]:
        async with reflecting(SHOP_APP, ONE) as port:
            return await asyncio.to_thread(client, port)

    services, described = on_io_loop(scenario())
    assert services == sorted([*BUILT_IN, "mesh.tests.Shop", "mesh.tests.Stock", "pkg.Store"])
    health = described["grpc.health.v1.Health"]
    assert {name: method.server_streaming for name, method in health.methods_by_name.items()} == {
        "Check": False,
        "List": False,
        "Watch": True,
    }
    for version in VERSIONS:
        reflection = described[f"grpc.reflection.{version}.ServerReflection"].methods_by_name["ServerReflectionInfo"]
        assert reflection.input_type.full_name == f"grpc.reflection.{version}.ServerReflectionRequest"


def test_messages_are_those_of_the_installed_package() -> None:
    for service in PUBLIC_SERVICES:
        if service.full_name == "grpc.reflection.v1alpha.ServerReflection":
            assert shapes(service.file()) == shapes(
                descriptor_pb2.FileDescriptorProto.FromString(stock.DESCRIPTOR.serialized_pb)
            )


def shapes(file: descriptor_pb2.FileDescriptorProto) -> dict[str, list[tuple[str, int, int, str]]]:
    """All that the bytes of messages depend on."""
    return {
        message.name: sorted((field.name, field.number, field.type, field.type_name) for field in message.field)
        for message in file.message_type
    }


names = st.sampled_from(["mesh.tests.Shop", "mesh.tests", "Item", ".", "", "pkg.Item", "messages.proto"]) | st.text()


@given(
    st.lists(
        st.one_of(
            names.map(symbol),
            names.map(file),
            names.map(lambda name: ServerReflectionRequest(all_extension_numbers_of_type=name)),
            st.builds(
                lambda name, number: ServerReflectionRequest(
                    file_containing_extension={"containing_type": name, "extension_number": number}
                ),
                names,
                st.integers(-(2**31), 2**31 - 1),
            ),
        ),
        max_size=5,
    ),
    st.data(),
)
def test_every_request_has_an_answer_whatever_the_descriptors_are(
    requests: list[ServerReflectionRequest], data: st.DataObject
) -> None:
    """Clients and applications are strangers to each other."""
    damaged = bytearray(store("pkg", "title"))
    for position in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=3)):
        damaged[position] = data.draw(st.integers(0, 255))
    routes = routes_of(described("damaged", bytes(damaged), "/pkg.Store/Get"), SHOP_APP)
    stream = ReflectionAnswers(lambda: routes, data.draw(st.none() | names))
    for request in requests:
        answer = stream.answer(request)
        assert answer.original_request == request
        assert answer.WhichOneof("message_response") is not None
