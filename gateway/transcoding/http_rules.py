"""The `google.api.http` rules of a method, read from its descriptor and checked against its messages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from gateway.transcoding.json_reader import is_map_field, takes_variables
from gateway.transcoding.path_template import PathTemplate, parse_template
from gateway.transcoding.rule_index import ANY_METHOD

WHOLE_BODY = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscodingRule:
    """One HTTP method and path that call a typed method."""

    http_method: str
    """In upper case; ANY_METHOD for all."""
    template: PathTemplate
    path: str
    """The template as it was written."""
    body: str = ""
    """A top-level field of the request, WHOLE_BODY, or empty if requests have no body."""
    response_body: str = ""
    """The field of the response that is the answer; empty for the whole message."""


@dataclass(frozen=True, slots=True)
class MethodRules:
    """All rules of a method, and what is wrong with those that cannot be used."""

    rules: tuple[TranscodingRule, ...]
    problems: tuple[str, ...]


def read_rules(method: MethodDescriptor) -> MethodRules:
    """Reads the annotation. A wrong rule costs only itself: its problem names it and says what is wrong."""
    rules: list[TranscodingRule] = []
    problems: list[str] = []
    for rule in _annotated(method):
        try:
            rules.append(_checked(method, rule))
        except ValueError as error:
            problems.append(f"{method.full_name}: {error}")
    return MethodRules(tuple(rules), tuple(problems))


def method_rule(full_name: str) -> TranscodingRule:
    """The rule that every method has: POST to "/package.Service/Method" with the request as the body."""
    segments = tuple(full_name.split("/")[1:])
    return TranscodingRule(http_method="POST", template=PathTemplate(segments), path=full_name, body=WHOLE_BODY)


def field_at(message: Descriptor, path: str) -> list[FieldDescriptor]:
    """The fields on the way to a nested one. Raises ValueError if there are none."""
    fields: list[FieldDescriptor] = []
    for name in path.split("."):
        if fields:
            inner = fields[-1].message_type
            if inner is None or fields[-1].is_repeated:
                raise ValueError(f"field {path!r}: {fields[-1].name!r} is not a single message")
            message = inner
        field = message.fields_by_name.get(name)
        if field is None:
            raise ValueError(f"field {path!r}: {message.full_name} has no field {name!r}")
        fields.append(field)
    return fields


def _annotated(method: MethodDescriptor) -> Iterator[http_pb2.HttpRule]:
    # The options of a private pool do not know the extension; what they hold of it reads back here.
    options = MethodOptions.FromString(method.GetOptions().SerializeToString())
    if options.HasExtension(annotations_pb2.http):
        rule = options.Extensions[annotations_pb2.http]
        yield rule
        yield from rule.additional_bindings


def _checked(method: MethodDescriptor, rule: http_pb2.HttpRule) -> TranscodingRule:
    http_method, path = _pattern(rule)
    template = parse_template(path)
    for variable in template.variables:
        last = field_at(method.input_type, variable.field_path)[-1]
        if last.is_repeated or last.message_type is not None:
            raise ValueError(f"{path!r}: variable {variable.field_path!r} is not a single scalar")
    if template.variables and not takes_variables(method.input_type):
        raise ValueError(f"{path!r}: {method.input_type.full_name} has a JSON form of its own and no variables")
    body, response_body = rule.body, rule.response_body
    if body and body != WHOLE_BODY:
        field_at(method.input_type, body)
    if "." in body or "." in response_body:
        raise ValueError(f"{path!r}: body and response_body are fields of the message itself")
    if response_body:
        field_at(method.output_type, response_body)
    return TranscodingRule(
        http_method=http_method, template=template, path=path, body=body, response_body=response_body
    )


def _pattern(rule: http_pb2.HttpRule) -> tuple[str, str]:
    match rule.WhichOneof("pattern"):
        case None:
            raise ValueError("a google.api.http rule has no pattern")
        case "custom":
            return (rule.custom.kind.upper() or ANY_METHOD), rule.custom.path
        case name:
            return name.upper(), getattr(rule, name)


def is_raw(descriptor: Descriptor | None) -> bool:
    """Whether a message is a body as it is, with its content type, and not JSON."""
    return descriptor is not None and descriptor.full_name == "google.api.HttpBody"


def body_field_is_raw(method: MethodDescriptor, rule: TranscodingRule) -> bool:
    """Whether the body of a request goes as it is into the request message or into one of its fields."""
    if rule.body in ("", WHOLE_BODY):
        return rule.body == WHOLE_BODY and is_raw(method.input_type)
    field = method.input_type.fields_by_name[rule.body]
    return not is_map_field(field) and not field.is_repeated and is_raw(field.message_type)
