"""The comments of `.proto` files, where their descriptors have them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto

_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
"""Fields of FileDescriptorProto, of which the paths of comments are made."""
_FIELDS, _NESTED, _NESTED_ENUMS = 2, 3, 4
"""Fields of DescriptorProto."""
_METHODS = 2
_VALUES = 2

_Path = tuple[int, ...]


def source_comments(files: Iterable[FileDescriptorProto]) -> dict[str, str]:
    """The comments above messages, fields, enums, services and methods, by their full names."""
    comments: dict[str, str] = {}
    for file in files:
        by_path = {
            tuple(each.path): each.leading_comments or each.trailing_comments
            for each in file.source_code_info.location
            if each.leading_comments or each.trailing_comments
        }
        if by_path:
            for path, name in _names(file):
                if path in by_path:
                    comments[name] = _unwrapped(by_path[path])
    return comments


def _names(file: FileDescriptorProto) -> Iterator[tuple[_Path, str]]:
    prefix = f"{file.package}." if file.package else ""
    for place, message in enumerate(file.message_type):
        yield from _of_message((_MESSAGES, place), prefix, message)
    for place, enum in enumerate(file.enum_type):
        yield from _of_enum((_ENUMS, place), prefix, enum)
    for place, service in enumerate(file.service):
        yield (_SERVICES, place), f"{prefix}{service.name}"
        for inner, method in enumerate(service.method):
            yield (_SERVICES, place, _METHODS, inner), f"{prefix}{service.name}.{method.name}"


def _of_message(path: _Path, prefix: str, message: DescriptorProto) -> Iterator[tuple[_Path, str]]:
    name = f"{prefix}{message.name}"
    yield path, name
    for place, field in enumerate(message.field):
        yield (*path, _FIELDS, place), f"{name}.{field.name}"
    for place, inner in enumerate(message.nested_type):
        yield from _of_message((*path, _NESTED, place), f"{name}.", inner)
    for place, enum in enumerate(message.enum_type):
        yield from _of_enum((*path, _NESTED_ENUMS, place), f"{name}.", enum)


def _of_enum(path: _Path, prefix: str, enum: EnumDescriptorProto) -> Iterator[tuple[_Path, str]]:
    yield path, f"{prefix}{enum.name}"
    for place, value in enumerate(enum.value):
        yield (*path, _VALUES, place), f"{prefix}{enum.name}.{value.name}"


def _unwrapped(comment: str) -> str:
    return "\n".join(line.strip() for line in comment.strip().splitlines())
