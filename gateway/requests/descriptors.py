"""The protobuf descriptors of an application: its methods with their message classes, made when a request needs them.

Each application has a pool of its own, because files of two applications may have the same name and differ. gRPC needs
none of this: it passes the bytes of messages on.

Descriptors come from users. What is wrong with them is logged, and the application is then like one without them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError, Message

logger = logging.getLogger("mesh.gateway")


@dataclass(frozen=True, slots=True)
class MethodMessages:
    """What translates the messages of one method."""

    descriptor: MethodDescriptor
    request: type[Message]
    response: type[Message]


class Descriptors:
    """The descriptors of one version of an application. Nothing of them is read before it is asked for."""

    def __init__(self, digest: str, serialised: bytes) -> None:
        """`serialised`: a FileDescriptorSet in which every file stands behind those that it imports."""
        self.digest = digest
        self._serialised = serialised
        self._methods: dict[str, MethodMessages] = {}
        self._has_warned = False

    def __repr__(self) -> str:
        return f"<Descriptors {self.digest[:8] or '-'} {len(self._serialised)} bytes>"

    def __bool__(self) -> bool:
        return bool(self._serialised)

    def method(self, full_name: str) -> MethodMessages | None:
        """The messages of "/package.Service/Method"; None if its descriptors are unknown or wrong."""
        found = self._methods.get(full_name)
        if found is None and self:
            found = self._find(full_name)
            if found is not None:
                self._methods[full_name] = found
        return found

    def file_of(self, symbol: str) -> FileDescriptorProto | None:
        """The file that defines a message, enum, service, method, field or extension by its full name."""
        while symbol:
            name = self._symbols.get(symbol)
            if name is not None:
                return self.files[name]
            symbol = symbol.rpartition(".")[0]
        return None

    @cached_property
    def files(self) -> Mapping[str, FileDescriptorProto]:
        """By name, each behind those that it imports."""
        try:
            parsed = FileDescriptorSet.FromString(self._serialised)
        except DecodeError as error:
            self._warn(f"they cannot be read: {error}")
            parsed = FileDescriptorSet()
        return MappingProxyType({file.name: file for file in parsed.file})

    @cached_property
    def pool(self) -> descriptor_pool.DescriptorPool:
        """It adds files when something of them is asked for. Its own errors are KeyError and TypeError."""
        return descriptor_pool.DescriptorPool(_FileSource(self))

    @cached_property
    def extensions(self) -> dict[str, dict[int, str]]:
        """Names of files, by the full name of the extended message and the number of the extension."""
        found: dict[str, dict[int, str]] = {}
        for file in self.files.values():
            for extension in _extensions_in(file):
                found.setdefault(extension.extendee.removeprefix("."), {})[extension.number] = file.name
        return found

    @cached_property
    def _symbols(self) -> dict[str, str]:
        """Names of files, by the full names that they define at their top."""
        symbols: dict[str, str] = {}
        for file in self.files.values():
            for group in (file.message_type, file.enum_type, file.service, file.extension):
                for each in group:
                    symbols[f"{file.package}.{each.name}" if file.package else each.name] = file.name
        return symbols

    def _find(self, full_name: str) -> MethodMessages | None:
        try:
            descriptor = self.pool.FindMethodByName(full_name[1:].replace("/", "."))
            return MethodMessages(
                descriptor,
                message_factory.GetMessageClass(descriptor.input_type),
                message_factory.GetMessageClass(descriptor.output_type),
            )
        except KeyError:
            return None
        except (TypeError, ValueError) as error:  # what protobuf raises for files that it refuses
            self._warn(f"method {full_name} cannot be used: {error}")
            return None

    def _warn(self, problem: str) -> None:
        """Once: clients choose how often it is met."""
        if not self._has_warned:
            logger.warning("%r: %s", self, problem)
        self._has_warned = True


def _extensions_in(scope: FileDescriptorProto | DescriptorProto) -> Iterator[FieldDescriptorProto]:
    yield from scope.extension
    for message in scope.message_type if isinstance(scope, FileDescriptorProto) else scope.nested_type:
        yield from _extensions_in(message)


class _FileSource:
    """The files for a DescriptorPool, under the names that it calls."""

    def __init__(self, descriptors: Descriptors) -> None:
        self._descriptors = descriptors

    def FindFileByName(self, name: str) -> FileDescriptorProto:
        return self._descriptors.files[name]

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptorProto:
        file = self._descriptors.file_of(symbol)
        if file is None:
            raise KeyError(symbol)
        return file


NO_DESCRIPTORS = Descriptors("", b"")
