"""JSON schemas of messages, as proto3 JSON writes them. Each message and enum is described once, by its full name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, OneofDescriptor

from gateway.transcoding.json_reader import WRAPPERS, has_fields, is_map_field

Schema = dict[str, Any]

_INT32: Schema = {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1}
_UINT32: Schema = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
_INT64: Schema = {"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"}
_UINT64: Schema = {"type": "string", "format": "uint64", "pattern": "^[0-9]{1,20}$"}
_SPECIAL = {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}

_SCALARS: dict[int, Schema] = {
    FieldDescriptor.TYPE_DOUBLE: {"anyOf": [{"type": "number", "format": "double"}, _SPECIAL]},
    FieldDescriptor.TYPE_FLOAT: {"anyOf": [{"type": "number", "format": "float"}, _SPECIAL]},
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_FIXED32: _UINT32,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_FIXED64: _UINT64,
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
}

_WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": {
        "type": "string",
        "description": "Paths of fields in lowerCamelCase, with commas.",
    },
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.Value": {},
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
    },
    "google.protobuf.Empty": {"type": "object"},
}

STATUS_NAME = "google.rpc.Status"
STATUS_SCHEMA: Schema = {
    "type": "object",
    "description": "Why a call failed.",
    "properties": {
        "code": {"type": "integer", "format": "int32", "description": "A google.rpc.Code."},
        "message": {"type": "string"},
        "details": {"type": "array", "items": _WELL_KNOWN["google.protobuf.Any"]},
    },
    "required": ["code", "message"],
}


class MessageSchemas:
    """Collects the schemas that a document needs."""

    def __init__(self, comments: Mapping[str, str]) -> None:
        self._comments = comments
        self.by_name: dict[str, Schema] = {STATUS_NAME: STATUS_SCHEMA}

    def of_message(self, message: Descriptor) -> Schema:
        """A schema, or a reference to one that is collected."""
        name = message.full_name
        if name in WRAPPERS:
            return {"anyOf": [self._of_value(message.fields_by_name["value"]), {"type": "null"}]}
        known = _WELL_KNOWN.get(name)
        if known is not None:
            return known
        if not has_fields(message):
            return {"type": "object"}
        if name not in self.by_name:
            self.by_name[name] = schema = self._described({"type": "object"}, name)
            schema["properties"] = {field.json_name: self.of_field(field) for field in message.fields}
            schema["additionalProperties"] = False
            choices = [_choice(oneof) for oneof in message.oneofs if len(oneof.fields) > 1]
            if choices:
                schema["allOf"] = choices
        return _reference(name)

    def of_field(self, field: FieldDescriptor) -> Schema:
        """A whole field, with its comment."""
        if field.message_type is not None and is_map_field(field):
            value = field.message_type.fields_by_name["value"]
            schema: Schema = {"type": "object", "additionalProperties": self._of_element(value)}
        elif field.is_repeated:
            schema = {"type": "array", "items": self._of_element(field)}
        else:
            schema = self._of_value(field)
        notes = [self._comments.get(field.full_name, "")]
        oneof = field.containing_oneof
        if oneof is not None and len(oneof.fields) > 1:
            others = ", ".join(each.json_name for each in oneof.fields if each.name != field.name)
            notes.append(f"Not together with {others}.")
        text = "\n".join(filter(None, notes))
        return schema | {"description": text} if text else schema

    def _of_element(self, field: FieldDescriptor) -> Schema:
        """One value of a list or map, where null stands for nothing."""
        kind = field.message_type
        if kind is not None and kind.full_name in WRAPPERS:
            return self._of_value(kind.fields_by_name["value"])
        return self._of_value(field)

    def _of_value(self, field: FieldDescriptor) -> Schema:
        if field.message_type is not None:
            return self.of_message(field.message_type)
        if field.enum_type is not None:
            return self._of_enum(field.enum_type)
        return _SCALARS[field.type]

    def _of_enum(self, enum: EnumDescriptor) -> Schema:
        if enum.full_name == "google.protobuf.NullValue":
            return {"type": "null"}
        if enum.full_name not in self.by_name:
            schema: Schema = {"type": "string", "enum": [value.name for value in enum.values]}
            self.by_name[enum.full_name] = self._described(schema, enum.full_name)
        return _reference(enum.full_name)

    def _described(self, schema: Schema, name: str) -> Schema:
        comment = self._comments.get(name)
        return schema | {"description": comment} if comment else schema


def _choice(oneof: OneofDescriptor) -> Schema:
    """At most one of the fields: exactly one of them, or none."""
    each = [{"required": [field.json_name]} for field in oneof.fields]
    return {"oneOf": [*each, {"not": {"anyOf": each}}]}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
