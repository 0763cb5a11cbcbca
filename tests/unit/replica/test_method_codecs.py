"""What a typed method may answer with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mesh.replica.method_codecs import ProtobufCodec
from mesh.usercode.served_methods import TypedMethod, typed_methods
from mesh.v1 import control_pb2
from tests.unit.protos import shop_pb2, shop_pb2_grpc


class Shop(shop_pb2_grpc.ShopServicer):
    async def Price(self, request: shop_pb2.Item, context: Any) -> shop_pb2.Item:
        return shop_pb2.Item()


def price() -> TypedMethod:
    return typed_methods(Shop)["/mesh.tests.Shop/Price"]


def test_a_message_of_another_type_is_refused_with_both_names() -> None:
    codec = ProtobufCodec(price())
    item = shop_pb2.Item()
    assert codec.write_result(item).data == item.SerializeToString()
    for _ in range(2):
        with pytest.raises(TypeError, match=r"answered with a mesh\.v1\.Report, not .* mesh\.tests\.Item\.$"):
            codec.write_result(control_pb2.Report())
    assert codec.write_item(item).data == item.SerializeToString()


def test_what_is_no_message_is_refused_as_before() -> None:
    with pytest.raises(TypeError, match="answered with None, not with its response message"):
        ProtobufCodec(price()).write_result(None)


def test_a_method_whose_types_are_unknown_takes_any_message() -> None:
    unknown = replace(price(), full_name="/no.Proto/Method")
    own = replace(price(), response_serializer=lambda message: b"own")
    message = control_pb2.Report()
    assert ProtobufCodec(unknown).write_result(message).data == b""
    assert ProtobufCodec(own).write_result(message).data == b"own"
