"""A request of HTTP bound into the message of its method: path variables, query parameters and body, by one rule.

A binding is compiled once per rule. It gives the serialised message, which is all that the mesh carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import EncodeError

from gateway.transcoding.field_error import FieldError
from gateway.transcoding.http_rules import WHOLE_BODY, TranscodingRule, body_field_is_raw, field_at
from gateway.transcoding.json_parser import parse_json
from gateway.transcoding.json_reader import JsonReaders, built, takes_variables
from gateway.transcoding.json_scalars import Json, Reader, boolean_text
from gateway.transcoding.query_parameters import MESH_PARAMETERS, place_parameter, place_variable, split_query


class RequestBinding:
    """The requests of one rule."""

    __slots__ = (
        "_body",
        "_body_field",
        "_message",
        "_read_body",
        "_takes_query",
        "_variables",
        "is_raw",
        "mesh_parameters",
    )

    def __init__(self, method: MethodDescriptor, rule: TranscodingRule, readers: JsonReaders) -> None:
        self._message = readers.of(method.input_type)
        self._variables: list[tuple[tuple[str, ...], Reader]] = []
        for variable in rule.template.variables:
            fields = field_at(method.input_type, variable.field_path)
            read = boolean_text if fields[-1].type == fields[-1].TYPE_BOOL else readers.of_value(fields[-1])
            self._variables.append((tuple(each.name for each in fields), read))
        self._takes_query = rule.body != WHOLE_BODY and takes_variables(method.input_type)
        self._body_field = "" if rule.body in ("", WHOLE_BODY) else rule.body
        self._read_body: Reader | None = None
        if rule.body == WHOLE_BODY:
            self._read_body = readers.of_message(method.input_type)
        elif rule.body:
            self._read_body = self._message.fields[rule.body].read
        self.is_raw = body_field_is_raw(method, rule)
        """Whether the body is not JSON: it goes into a google.api.HttpBody."""
        names = [name for field in method.input_type.fields for name in (field.name, field.json_name)]
        self.mesh_parameters = MESH_PARAMETERS.difference(names)
        """Parameters of the query that are not for the message."""

    @property
    def takes_body(self) -> bool:
        return self._read_body is not None

    def bind(self, variables: Sequence[str], query: bytes, body: bytes | bytearray | memoryview) -> bytes:
        """The serialised request. `variables`: decoded, in the order of the template. Raises FieldError.

        An empty body is like one that is not there.
        """
        if self._read_body is None or not body:
            return self._completed({}, variables, query)
        tree = parse_json(body)
        values = self._in_body_field(tree) if self._body_field else self._read_body(tree)
        return self._completed(values, variables, query)

    def bind_raw(self, variables: Sequence[str], query: bytes, content_type: str, body: bytes) -> bytes:
        """The same for a body that is not JSON."""
        content: dict[str, Any] = {"content_type": content_type, "data": body}
        return self._completed({self._body_field: content} if self._body_field else content, variables, query)

    def _in_body_field(self, tree: Json) -> dict[str, Any]:
        field = self._message.fields[self._body_field]
        if self._read_body is None or (tree is None and not field.takes_null):
            return {}
        try:
            return {self._body_field: self._read_body(tree)}
        except FieldError as error:
            raise error.within(self._body_field) from None

    def _completed(self, body: Any, variables: Sequence[str], query: bytes) -> bytes:
        """`body`: the arguments of the message, or the message itself where it has a JSON form of its own."""
        values = body if type(body) is dict else {}
        if query:
            for name, text in split_query(query):
                if name in self.mesh_parameters:
                    continue
                if not self._takes_query:
                    raise FieldError("this path takes no query parameters: the body is the whole request")
                place_parameter(values, name, text, self._message)
        for (names, read), text in zip(self._variables, variables, strict=True):
            try:
                place_variable(values, names, read(text))
            except FieldError as error:
                raise error.within(".".join(names)) from None
        try:
            message = built(self._message.message_class, values)
            if values is not body:
                body.MergeFrom(message)
                message = body
            return message.SerializeToString()
        except (EncodeError, UnicodeEncodeError, ValueError, TypeError) as error:
            raise FieldError(str(error)) from None
