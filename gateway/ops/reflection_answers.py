"""What server reflection answers: the files, services and extensions of all applications and of the gateway. Pure.

Files of two applications may have the same name, and a client that reflects expects one set of files. So each answer is
about one application: the one that metadata `application` names, else the one that calls reach which name none, and for
files and messages the one that was deployed first. A stream stays with the application that answered last as long as
that knows the answer, and a file comes with what it imports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

from gateway.ops.built_in_services import PUBLIC_DESCRIPTORS, PUBLIC_SERVICES
from gateway.requests.descriptors import Descriptors
from gateway.requests.routes import RoutedApplication, Routes, echoed
from mesh.rpc.status_codes import INVALID_ARGUMENT, NOT_FOUND
from mesh.v1 import reflection_pb2

_IMPORTS_MAX_BYTES = 1024 * 1024
"""Imports are sent with a file up to this size; what is left out, clients ask for by name."""

_Request = reflection_pb2.ServerReflectionRequest
_Response = reflection_pb2.ServerReflectionResponse


class ReflectionAnswers:
    """The answers on one stream."""

    def __init__(self, routes: Callable[[], Routes], application: str | None) -> None:
        """`routes` are those of the moment. `application`: as the client named it."""
        self._routes = routes
        self._application = application
        self._last = ""
        """The application that answered last."""

    def answer(self, request: _Request) -> _Response:
        """Errors are answers too; the stream goes on."""
        response = _Response(valid_host=request.host, original_request=request)
        try:
            self._fill(response, request)
        except LookupError as error:
            response.error_response.error_code = NOT_FOUND
            response.error_response.error_message = str(error.args[0])
        return response

    def _fill(self, response: _Response, request: _Request) -> None:
        match request.WhichOneof("message_request"):
            case "list_services":
                for name in sorted(self._services()):
                    response.list_services_response.service.add(name=name)
            case "file_by_filename":
                name = request.file_by_filename
                self._add_files(response, f"file {echoed(name)}", lambda source: source.files.get(name))
            case "file_containing_symbol":
                symbol = request.file_containing_symbol
                self._add_files(
                    response, f"symbol {echoed(symbol)}", lambda source: file_defining(source, symbol), symbol
                )
            case "file_containing_extension":
                extended, number = (
                    request.file_containing_extension.containing_type,
                    request.file_containing_extension.extension_number,
                )
                self._add_files(
                    response,
                    f"extension {number} of {echoed(extended)}",
                    lambda source: source.files.get(source.extensions.get(extended, {}).get(number, "")),
                )
            case "all_extension_numbers_of_type":
                self._add_numbers(response, request.all_extension_numbers_of_type)
            case _:
                response.error_response.error_code = INVALID_ARGUMENT
                response.error_response.error_message = (
                    "The request asks for nothing: set list_services, file_by_filename, file_containing_symbol, "
                    "file_containing_extension or all_extension_numbers_of_type."
                )

    def _add_files(
        self,
        response: _Response,
        wanted: str,
        find: Callable[[Descriptors], FileDescriptorProto | None],
        symbol: str = "",
    ) -> None:
        for application, source in self._sources(symbol):
            file = find(source)
            if file is not None:
                self._last = application
                response.file_descriptor_response.file_descriptor_proto.extend(_with_imports(file, source.files))
                return
        raise LookupError(f"No {wanted} is known{self._where}. Services that come without descriptors have none.")

    def _add_numbers(self, response: _Response, extended: str) -> None:
        for application, source in self._sources():
            if extended in source.extensions or defines_message(source, extended):
                self._last = application
                answer = response.all_extension_numbers_response
                answer.base_type_name = extended
                answer.extension_number.extend(sorted(source.extensions.get(extended, {})))
                return
        raise LookupError(f"No message {echoed(extended)} is known{self._where}.")

    def _services(self) -> set[str]:
        names = {service.full_name for service in PUBLIC_SERVICES}
        return names.union(*(application.services for application in self._applications()))

    def _sources(self, symbol: str = "") -> Iterator[tuple[str, Descriptors]]:
        """Where to look, in this order; the gateway's own services come last. Its name is empty."""
        applications = [each for each in self._applications() if each.descriptors]
        known = self._routes().reached
        reached = (known.get(symbol) or known.get(symbol.rpartition(".")[0], ()))[:1]  # a service, or its method
        applications.sort(
            key=lambda each: (
                each.name != self._last,
                each.name not in reached,
                symbol not in each.services,
                each.order,
            )
        )
        yield from ((each.name, each.descriptors) for each in applications)
        yield "", PUBLIC_DESCRIPTORS

    def _applications(self) -> Iterable[RoutedApplication]:
        applications = self._routes().applications
        if self._application is None:
            return applications.values()
        named = applications.get(self._application)
        return () if named is None else (named,)

    @property
    def _where(self) -> str:
        return "" if self._application is None else f" in application {echoed(self._application)}"


def file_defining(source: Descriptors, symbol: str) -> FileDescriptorProto | None:
    """The file that defines the symbol itself, and not only what it would be a part of."""
    file = source.file_of(symbol)
    if file is None:
        return None
    rest = symbol.removeprefix(f"{file.package}.") if file.package else symbol
    return file if _defines(file, rest.split(".")) else None


def defines_message(source: Descriptors, name: str) -> bool:
    """Whether a symbol is a message: only they have extensions."""
    file = source.file_of(name)
    if file is None:
        return False
    scope: Iterable[DescriptorProto] = file.message_type
    for part in name.removeprefix(f"{file.package}.").split("."):
        message = next((each for each in scope if each.name == part), None)
        if message is None:
            return False
        scope = message.nested_type
    return True


def _defines(scope: FileDescriptorProto, path: list[str]) -> bool:
    name, *rest = path
    for message in scope.message_type:
        if message.name == name:
            return not rest or _message_defines(message, rest)
    for service in scope.service:
        if service.name == name:
            return not rest or rest in [[method.name] for method in service.method]
    return not rest and any(each.name == name for group in (scope.enum_type, scope.extension) for each in group)


def _message_defines(message: DescriptorProto, path: list[str]) -> bool:
    name, *rest = path
    for nested in message.nested_type:
        if nested.name == name:
            return not rest or _message_defines(nested, rest)
    members = (message.field, message.oneof_decl, message.enum_type, message.extension)
    return not rest and any(each.name == name for group in members for each in group)


def _with_imports(file: FileDescriptorProto, files: Mapping[str, FileDescriptorProto]) -> Iterator[bytes]:
    """The file, and behind it what it imports, if that is not too large."""
    data = file.SerializeToString()
    yield data
    room_bytes = _IMPORTS_MAX_BYTES - len(data)
    seen, waiting = {file.name}, list(file.dependency)
    while waiting:
        imported = files.get(waiting.pop())
        if imported is None or imported.name in seen:
            continue
        seen.add(imported.name)
        waiting.extend(imported.dependency)
        data = imported.SerializeToString()
        room_bytes -= len(data)
        if room_bytes < 0:
            return
        yield data
