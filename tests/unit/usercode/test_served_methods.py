"""mesh.usercode.served_methods: which gRPC methods a class serves, found without an instance and without a server."""

from typing import Any

import grpc
import pytest

from mesh.usercode.served_methods import load_servicer_function, typed_methods
from tests.unit.protos import shop_pb2, shop_pb2_grpc

SHOP_PATH = "tests.unit.protos.shop_pb2_grpc.add_ShopServicer_to_server"


class Shop(shop_pb2_grpc.ShopServicer):  # type: ignore[misc]
    """All four arities."""

    def Price(self, request: Any, context: Any) -> Any: ...

    def List(self, request: Any, context: Any) -> Any: ...

    async def Total(self, request: Any, context: Any) -> Any: ...

    async def Haggle(self, request: Any, context: Any) -> Any: ...


def test_all_four_arities_are_distinguished() -> None:
    """The generated code says which side streams (item 216)."""
    methods = typed_methods(Shop)
    assert {name: (method.streams_request, method.streams_response) for name, method in methods.items()} == {
        "/mesh.tests.Shop/Price": (False, False),
        "/mesh.tests.Shop/List": (False, True),
        "/mesh.tests.Shop/Total": (True, False),
        "/mesh.tests.Shop/Haggle": (True, True),
    }


def test_methods_are_idempotent_if_their_proto_says_so() -> None:
    class Stock(shop_pb2_grpc.StockServicer):  # type: ignore[misc]
        def Price(self, request: Any, context: Any) -> Any: ...

        def Count(self, request: Any, context: Any) -> Any: ...

    methods = {**typed_methods(Stock), **typed_methods(Shop)}
    assert {name for name, method in methods.items() if method.is_idempotent} == {
        "/mesh.tests.Stock/Price",
        "/mesh.tests.Stock/Count",
    }


def test_messages_are_read_and_written_by_the_generated_code() -> None:
    """User code sees messages, not bytes (item 215)."""
    method = typed_methods(Shop)["/mesh.tests.Shop/Price"]
    assert method.attribute == "Price"
    assert method.request_deserializer is not None
    assert method.response_serializer is not None
    item = shop_pb2.Item(name="tea", amount=3)
    assert method.request_deserializer(method.response_serializer(item)) == item


def test_methods_that_the_class_does_not_write_are_left_out() -> None:
    class PriceOnly(shop_pb2_grpc.ShopServicer):  # type: ignore[misc]
        def Price(self, request: Any, context: Any) -> Any: ...

    assert set(typed_methods(PriceOnly)) == {"/mesh.tests.Shop/Price"}


def test_a_method_written_by_a_parent_of_the_user_s_counts() -> None:
    class Child(Shop): ...

    assert set(typed_methods(Child)) == set(typed_methods(Shop))


def test_a_method_from_a_mixin_counts() -> None:
    class Pricing:
        def Price(self, request: Any, context: Any) -> Any: ...

    class Mixed(Pricing, shop_pb2_grpc.ShopServicer):  # type: ignore[misc]
        ...

    assert set(typed_methods(Mixed)) == {"/mesh.tests.Shop/Price"}


def test_several_services_on_one_class_may_share_a_method() -> None:
    """Full names keep the services apart (item 213)."""

    class Both(shop_pb2_grpc.ShopServicer, shop_pb2_grpc.StockServicer):  # type: ignore[misc]
        def Price(self, request: Any, context: Any) -> Any: ...

    assert set(typed_methods(Both)) == {"/mesh.tests.Shop/Price", "/mesh.tests.Stock/Price"}


def test_added_services_count_as_far_as_the_class_has_their_methods() -> None:
    """A class need not inherit the servicer (items 55, 211)."""

    class Plain:
        def Count(self, request: Any) -> Any: ...

    assert set(typed_methods(Plain)) == set()
    assert set(typed_methods(Plain, [shop_pb2_grpc.add_StockServicer_to_server])) == {"/mesh.tests.Stock/Count"}
    assert set(typed_methods(Plain, [SHOP_PATH])) == set()


def test_a_service_that_is_both_inherited_and_added_is_the_same() -> None:
    assert typed_methods(Shop, [SHOP_PATH]).keys() == typed_methods(Shop).keys()


def test_a_user_s_class_with_the_name_of_its_servicer_is_no_generated_one() -> None:
    class ShopServicer(shop_pb2_grpc.ShopServicer):  # type: ignore[misc]
        def Price(self, request: Any, context: Any) -> Any: ...

    globals()["add_ShopServicer_to_server"] = shop_pb2_grpc.add_ShopServicer_to_server
    try:
        assert set(typed_methods(ShopServicer)) == {"/mesh.tests.Shop/Price"}
    finally:
        del globals()["add_ShopServicer_to_server"]


def test_functions_and_plain_classes_serve_no_typed_methods() -> None:
    assert typed_methods(lambda request: request, [SHOP_PATH]) == {}
    assert typed_methods(object) == {}


def test_code_generated_before_registered_methods_is_understood() -> None:
    def add_older_to_server(servicer: Any, server: Any) -> None:
        handlers = {
            "Price": grpc.unary_unary_rpc_method_handler(servicer.Price),
            "List": grpc.unary_stream_rpc_method_handler(servicer.List),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("older.Shop", handlers),))

    methods = typed_methods(Shop, [add_older_to_server])
    assert methods["/older.Shop/Price"].attribute == "Price"
    assert methods["/older.Shop/List"].streams_response is True


def test_functions_are_found_by_import_path() -> None:
    """A dot and a colon mean the same (item 55)."""
    expected = shop_pb2_grpc.add_ShopServicer_to_server
    assert load_servicer_function(SHOP_PATH) is expected
    assert load_servicer_function(SHOP_PATH.replace(".add_", ":add_")) is expected
    assert load_servicer_function(expected) is expected


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("no_such_package.mod.add_X_to_server", ModuleNotFoundError, "no_such_package"),
        ("tests.unit.protos.nothing_pb2_grpc.add_X_to_server", ModuleNotFoundError, "nothing_pb2_grpc"),
        ("tests.unit.protos.shop_pb2_grpc.add_X_to_server", ValueError, "has no 'add_X_to_server'"),
        ("tests.unit.protos.shop_pb2_grpc.GRPC_VERSION", ValueError, "is not a function"),
        ("add_X_to_server", ValueError, "not an import path"),
        ("", ValueError, "not an import path"),
        (3, TypeError, "functions and import paths"),
    ],
)
def test_what_cannot_be_loaded_is_named(path: Any, error: type[Exception], words: str) -> None:
    """The error has the path and what was not found (item 55)."""
    with pytest.raises(error, match=words):
        load_servicer_function(path)
