"""`.proto` files made in memory, as a user's generated code would register them."""

from __future__ import annotations

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet


def message_file(name: str, package: str, message: str = "Item", field: str = "name") -> FileDescriptorProto:
    """A file with one message, which has one field, a string."""
    file = FileDescriptorProto(name=name, package=package, syntax="proto3")
    file.message_type.add(name=message).field.add(
        name=field, number=1, type=FieldDescriptorProto.TYPE_STRING, label=FieldDescriptorProto.LABEL_OPTIONAL
    )
    return file


def service_file(name: str, service: str, messages: FileDescriptorProto, *methods: str) -> FileDescriptorProto:
    """A file with one service in the package of `messages`; its methods take and return their first message."""
    file = FileDescriptorProto(name=name, package=messages.package, syntax="proto3", dependency=[messages.name])
    type_name = f".{messages.package}.{messages.message_type[0].name}"
    added = file.service.add(name=service)
    for method in methods:
        added.method.add(name=method, input_type=type_name, output_type=type_name)
    return file


def serialised(*files: FileDescriptorProto) -> bytes:
    return FileDescriptorSet(file=files).SerializeToString()


def pool_of(*files: FileDescriptorProto) -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    return pool
