"""The descriptors of served gRPC methods: the `.proto` files that define them, as bytes, for gateways.

A gateway needs them to speak JSON for a method, or to describe it to a client. It takes them as data, so that it
imports no code of the user's and knows a new service without a restart.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor

from mesh.settings import settings
from mesh.usercode.served_methods import TypedMethod, pool_of

logger = logging.getLogger("mesh")


def descriptors_of(methods: Iterable[TypedMethod], application: str) -> bytes:
    """A serialised FileDescriptorSet: the files of the methods' services, behind the files that they import.

    Services without descriptors, as those that were written without a `.proto`, add nothing. Empty if none has any.
    Raises ValueError, which names `application`, if it is larger than gateways take.
    """
    files: dict[str, FileDescriptor] = {}
    services = {service.full_name: service for method in methods if (service := _service_of(method)) is not None}
    for name in sorted(services):
        _add_service(services[name], files)
    found = descriptor_pb2.FileDescriptorSet()
    for file in files.values():
        found.file.add().ParseFromString(file.serialized_pb)
    data = found.SerializeToString(deterministic=True)
    limit = settings().payload.descriptors_max_bytes
    if len(data) > limit:
        raise ValueError(
            f"The .proto files of the gRPC services of application {application!r} are {len(data)} bytes as "
            f"descriptors, with all that they import; gateways take at most {limit}. Import fewer files, or raise "
            "MESH_DESCRIPTORS_MAX_BYTES in all processes."
        )
    return data


def _service_of(method: TypedMethod) -> ServiceDescriptor | None:
    try:
        found: ServiceDescriptor = pool_of(method.request_deserializer).FindServiceByName(
            method.full_name[1:].rpartition("/")[0]
        )
        return found
    except KeyError:
        return None


def _add_service(service: ServiceDescriptor, files: dict[str, FileDescriptor]) -> None:
    needed: dict[str, FileDescriptor] = {}
    _collect(service.file, needed)
    clashes = [name for name, file in needed.items() if _differs(file, files)]
    if clashes:
        logger.warning(
            "service %s comes without descriptors: another service of its application brings a different file %s",
            service.full_name, clashes[0],
        )  # fmt: skip
        return
    files.update(needed)


def _collect(file: FileDescriptor, found: dict[str, FileDescriptor]) -> None:
    """`file` behind what it imports."""
    if file.name not in found:
        for imported in file.dependencies:
            _collect(imported, found)
        found[file.name] = file


def _differs(file: FileDescriptor, files: Mapping[str, FileDescriptor]) -> bool:
    return file.name in files and files[file.name].serialized_pb != file.serialized_pb
