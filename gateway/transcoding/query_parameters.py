"""Query parameters as fields of a request: dotted names, both spellings, repeated scalars, well-known types."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from gateway.transcoding.field_error import FieldError
from gateway.transcoding.json_reader import ObjectReader

PARAMETERS_MAX = 1000
MESH_PARAMETERS = frozenset({"multiplexed_model_id", "session_id", "tenant"})
"""Parameters that say something to the mesh, where the request has no field of that name."""
DEPTH_MAX = 32
"""Names in a dotted path."""

_NAME_MAX_CHARS = 200


def split_query(query: bytes) -> list[tuple[str, str]]:
    """The decoded parameters, in their order. Raises FieldError."""
    if not query:
        return []
    try:
        text = query.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
    except UnicodeDecodeError:
        raise FieldError("the query is not UTF-8 in percent escapes") from None
    except ValueError:
        raise FieldError(f"the query has more than {PARAMETERS_MAX} parameters") from None


def place_parameter(values: dict[str, Any], name: str, text: str, message: ObjectReader) -> None:
    """Add what a query parameter says to the constructor's arguments of a message. Raises FieldError."""
    parts = name.split(".", DEPTH_MAX)
    if len(parts) > DEPTH_MAX or len(name) > _NAME_MAX_CHARS:
        raise FieldError("the name of a query parameter is too long", name[:_NAME_MAX_CHARS])
    try:
        for part in parts[:-1]:
            values, message = _enter(values, part, message)
        _place(values, parts[-1], text, message)
    except FieldError as error:
        raise FieldError(error.problem, name) from None


def place_variable(values: dict[str, Any], names: tuple[str, ...], value: Any) -> None:
    """Set a field to what the path says; it counts more than the body."""
    for name in names[:-1]:
        values = _inner(values, name)
        if type(values) is not dict:
            raise FieldError("is given in the path and in the body")
    values[names[-1]] = value


def _enter(values: dict[str, Any], part: str, message: ObjectReader) -> tuple[dict[str, Any], ObjectReader]:
    field = message.fields.get(part)
    if field is None:
        raise message.unknown(part)
    if field.inner is None:
        raise FieldError(f"{part} has no fields that a query can name")
    return _inner(values, field.name), field.inner


def _inner(values: dict[str, Any], name: str) -> dict[str, Any]:
    inner: dict[str, Any] = values.setdefault(name, {})
    return inner


def _place(values: dict[str, Any], part: str, text: str, message: ObjectReader) -> None:
    field = message.fields.get(part)
    if field is None:
        raise message.unknown(part)
    if field.read_text is None:
        advice = "send it in a body" if field.inner is None else "name one of its fields"
        raise FieldError(f"is a message or map, which a query cannot hold; {advice}")
    value = field.read_text(text)
    if field.is_repeated:
        values.setdefault(field.name, []).append(value)
        return
    if field.name in values:
        raise FieldError("is given twice")
    if field.oneof:
        for other in message.fields.values():
            if other.oneof == field.oneof and other.name in values:
                raise FieldError(f"is given beside {other.name}; of oneof {field.oneof} only one may be set")
    values[field.name] = value
