"""The test's messages in a descriptor pool of their own, as applications have them at the gateway."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from tests.unit.protos import kinds_pb2


def pool_of(*files: FileDescriptor) -> DescriptorPool:
    """A new pool with these files and all that they import."""
    pool, added = DescriptorPool(), set[str]()

    def add(file: FileDescriptor) -> None:
        if file.name in added:
            return
        added.add(file.name)
        for each in file.dependencies:
            add(each)
        pool.AddSerializedFile(file.serialized_pb)

    for file in files:
        add(file)
    return pool


POOL = pool_of(kinds_pb2.DESCRIPTOR)


def method(name: str) -> MethodDescriptor:
    return POOL.FindMethodByName(f"kinds.Library.{name}")


def message_class(name: str) -> Any:
    return GetMessageClass(POOL.FindMessageTypeByName(name))
