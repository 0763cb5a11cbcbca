"""How the handler of a method is found."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from mesh.rpc.method_handlers import MethodHandlers
from mesh.rpc.request_head import RequestHead
from tests.unit.fakes.rpc_ends import AsyncShop
from tests.unit.protos import shop_pb2_grpc


class Generic(grpc.GenericRpcHandler):
    """Serves the methods that end in its suffix."""

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix
        self.asked: list[Any] = []

    def service(self, handler_call_details: Any) -> Any:
        self.asked.append(handler_call_details)
        return self if handler_call_details.method.endswith(self.suffix) else None


def head(path: str) -> RequestHead:
    return RequestHead(fields=[], path=path, metadata=(("key", "value"),))


def test_generated_code_registers_methods_of_all_arities() -> None:
    handlers = MethodHandlers()
    handlers.add(shop_pb2_grpc.add_ShopServicer_to_server, AsyncShop())
    for name in ("Price", "List", "Total", "Haggle"):
        handler = handlers.find(head(f"/mesh.tests.Shop/{name}"))
        assert handler.request_streaming == (name in ("Total", "Haggle"))
        assert handler.response_streaming == (name in ("List", "Haggle"))


@pytest.mark.parametrize(
    "path", ["/mesh.tests.Shop/Steal", "/mesh.tests.Other/Price", "mesh.tests.Shop/Price", "/", ""]
)
def test_what_no_one_has_registered(path: str) -> None:
    handlers = MethodHandlers()
    handlers.add(shop_pb2_grpc.add_ShopServicer_to_server, AsyncShop())
    assert handlers.find(head(path)) is None


def test_generic_handlers_are_asked_in_order_with_what_grpc_tells_them() -> None:
    first, second, third = Generic("/A"), Generic("/B"), Generic("/B")
    handlers = MethodHandlers()
    handlers.add_generic_rpc_handlers([first])
    handlers.add_generic_rpc_handlers((second, third))
    assert handlers.find(head("/x.Y/B")) is second
    assert (first.asked[0].method, first.asked[0].invocation_metadata) == ("/x.Y/B", (("key", "value"),))
    assert not third.asked
    assert handlers.find(head("/x.Y/C")) is None
