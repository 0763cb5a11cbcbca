"""The OpenAPI document of one application: every method at its own path, and by its rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from gateway.openapi.message_schemas import STATUS_NAME, MessageSchemas, Schema
from gateway.openapi.openapi_paths import PathParameter, openapi_path, shape_of
from gateway.transcoding.http_rules import (
    WHOLE_BODY,
    TranscodingRule,
    body_field_is_raw,
    field_at,
    is_raw,
    method_rule,
    read_rules,
)
from gateway.transcoding.json_reader import TEXT_TYPES, WRAPPERS, has_fields, is_map_field, takes_variables

OPENAPI_VERSION = "3.1.0"

_HTTP_METHODS = frozenset({"GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"})
_QUERY_DEPTH_MAX = 3
"""Levels of nested messages whose fields are listed as query parameters. Deeper ones work, but are not listed."""
_JSON, _LINES, _EVENTS = "application/json", "application/x-ndjson", "text/event-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentedApplication:
    """What a document is made of."""

    name: str
    methods: tuple[tuple[str, MethodDescriptor], ...]
    """By full name, "/package.Service/Method"."""
    comments: Mapping[str, str]
    """By full name of what they describe."""
    root_path: str = ""
    """Where a proxy has mounted the gateway; without "/" at the end."""


def openapi_document(application: DocumentedApplication) -> dict[str, Any]:
    """The document, ready for a JSON encoder."""
    schemas = MessageSchemas(application.comments)
    paths: dict[str, dict[str, Any]] = {}
    taken: set[tuple[str, str]] = set()
    names_of_shape: dict[str, str] = {}
    for full_name, method in application.methods:
        rules = (*read_rules(method).rules, method_rule(full_name))
        for number, rule in enumerate(rules):
            path, parameters = openapi_path(rule.template)
            shape = shape_of(path, parameters)
            if rule.http_method not in _HTTP_METHODS or (shape, rule.http_method) in taken:
                continue
            if names_of_shape.setdefault(shape, path) != path:
                continue  # OpenAPI cannot have two names for the parameter of one path
            taken.add((shape, rule.http_method))
            operation = _Operation(application, full_name, method, rule, schemas)
            paths.setdefault(path, {})[rule.http_method.lower()] = operation.document(parameters, number)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {"title": application.name, "version": "1"},
        "servers": [{"url": application.root_path or "/"}],
        "tags": list(_tags(application)),
        "paths": paths,
        "components": {"schemas": dict(sorted(schemas.by_name.items()))},
    }


def _tags(application: DocumentedApplication) -> Iterator[dict[str, str]]:
    for service in sorted({method.containing_service.full_name for _, method in application.methods}):
        comment = application.comments.get(service)
        yield {"name": service, "description": comment} if comment else {"name": service}


@dataclass(frozen=True, slots=True)
class _Operation:
    """One rule of one method."""

    application: DocumentedApplication
    full_name: str
    method: MethodDescriptor
    rule: TranscodingRule
    schemas: MessageSchemas

    def document(self, parameters: list[PathParameter], number: int) -> dict[str, Any]:
        method = self.method
        service = method.containing_service.full_name
        operation: dict[str, Any] = {
            "operationId": f"{service}.{method.name}" + (f".{number}" if number else ""),
            "tags": [service],
            "summary": method.name,
        }
        comment = self.application.comments.get(method.full_name)
        if comment:
            operation["description"] = comment
        listed = [*self._path_parameters(parameters), *self._query_parameters()]
        if listed:
            operation["parameters"] = listed
        body = self._body()
        if body is not None:
            operation["requestBody"] = {"content": body}
        error = {"$ref": f"#/components/schemas/{STATUS_NAME}"}
        operation["responses"] = {
            "200": {"description": "The response of the method.", "content": self._response()},
            "default": {"description": "The call failed.", "content": {_JSON: {"schema": error}}},
        }
        return operation

    def _path_parameters(self, parameters: list[PathParameter]) -> Iterator[dict[str, Any]]:
        for each in parameters:
            schema: Schema = {"type": "string"}
            if each.is_whole:
                schema = dict(self.schemas.of_field(field_at(self.method.input_type, each.field_path)[-1]))
            notes = [schema.pop("description", "")]
            if each.field_path and not each.is_whole:
                notes.append(f"A part of the field {each.field_path}.")
            if each.is_rest:
                notes.append("May hold slashes.")
            parameter = {"name": each.name, "in": "path", "required": True, "schema": schema}
            text = " ".join(filter(None, notes))
            yield parameter | {"description": text} if text else parameter

    def _query_parameters(self) -> Iterator[dict[str, Any]]:
        if self.rule.body == WHOLE_BODY or not takes_variables(self.method.input_type):
            return
        bound = {each.field_path for each in self.rule.template.variables} | {self.rule.body}
        for path, field in _query_fields(self.method.input_type, "", "", bound):
            schema = dict(self.schemas.of_field(field))
            comment = schema.pop("description", "")
            parameter = {"name": path, "in": "query", "schema": schema}
            yield parameter | {"description": comment} if comment else parameter

    def _body(self) -> dict[str, Any] | None:
        rule, message = self.rule, self.method.input_type
        if not rule.body:
            return None
        if body_field_is_raw(self.method, rule):
            return {"*/*": {}}
        if rule.body == WHOLE_BODY:
            schema = self.schemas.of_message(message)
        else:
            schema = self.schemas.of_field(message.fields_by_name[rule.body])
        if self.method.client_streaming:
            return {_LINES: {"schema": schema}, _JSON: {"schema": {"type": "array", "items": schema}}}
        return {_JSON: {"schema": schema}}

    def _response(self) -> dict[str, Any]:
        message: Descriptor | None = self.method.output_type
        if self.rule.response_body:
            field = self.method.output_type.fields_by_name[self.rule.response_body]
            schema = self.schemas.of_field(field)
            message = field.message_type if not field.is_repeated else None
        else:
            schema = self.schemas.of_message(self.method.output_type)
        if is_raw(message):
            return {"*/*": {}}
        if not self.method.server_streaming:
            return {_JSON: {"schema": schema}}
        return {
            _JSON: {"schema": {"type": "array", "items": schema}},
            _LINES: {"schema": schema},
            _EVENTS: {"schema": {"type": "string"}},
        }


def _query_fields(
    message: Descriptor, path: str, field_path: str, bound: Iterable[str], depth: int = 1
) -> Iterator[tuple[str, FieldDescriptor]]:
    """The fields that a query can set, by their dotted JSON names. `bound`: fields that come from elsewhere."""
    for field in message.fields:
        name, own_path = f"{path}{field.json_name}", f"{field_path}{field.name}"
        inner = field.message_type
        if own_path in bound or is_map_field(field):
            continue
        if inner is None or inner.full_name in TEXT_TYPES or inner.full_name in WRAPPERS:
            yield name, field
        elif not field.is_repeated and has_fields(inner) and depth < _QUERY_DEPTH_MAX:
            yield from _query_fields(inner, f"{name}.", f"{own_path}.", bound, depth + 1)
