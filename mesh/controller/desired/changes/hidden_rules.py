"""HTTP rules (`google.api.http`) of different methods for the same paths, of which one is served. Pure.

Gateways find them as well, when the first request comes; users are to hear of them when they deploy. So only as much
is read here as that takes: the paths in the descriptors, which are data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError

from mesh.controller.desired.changes.state_edits import ingress_of
from mesh.controller.store.descriptor_sets import digest_of
from mesh.v1 import control_pb2

_LINES_MAX = 5
_VARIABLE = re.compile(r"\{([^{}]*)\}")

_Rule = tuple[str, str]
"""HTTP method and path, as it was written."""


class _Placed(NamedTuple):
    """A rule of a method that an application serves. Compared by age: that of the lower place is served."""

    place: int
    application: str
    full_name: str
    path: str


def new_hidden_rules(
    before: control_pb2.DesiredState, after: control_pb2.DesiredState, descriptor_sets: Mapping[str, bytes]
) -> list[str]:
    """A line for users about each rule that this change hides behind another one. `descriptor_sets`: by digest."""
    known = set(_hidden(before, descriptor_sets))
    lines = [line for line in _hidden(after, descriptor_sets) if line not in known]
    more = len(lines) - _LINES_MAX
    if more <= 0:
        return lines
    return [*lines[:_LINES_MAX], f"{more} more HTTP rules are hidden by others: the log of a gateway has all."]


def _hidden(state: control_pb2.DesiredState, descriptor_sets: Mapping[str, bytes]) -> Iterator[str]:
    found: dict[_Rule, list[_Placed]] = {}
    for app in state.applications:
        rules = _rules(app.descriptors or descriptor_sets.get(digest_of(app), b""))
        for method in ingress_of(app).grpc_methods:
            for http_method, path in rules.get(method.full_name, ()):
                paths = http_method, _VARIABLE.sub(lambda variable: variable[1].partition("=")[2] or "*", path)
                found.setdefault(paths, []).append(_Placed(method.serving_order, app.name, method.full_name, path))
    for (http_method, _), placed in sorted(found.items()):
        served, *others = sorted(placed)
        for other in others:
            # One method in several applications is another matter: requests name the application.
            if other.full_name != served.full_name:
                yield (
                    f"HTTP rule {http_method} {served.path} of {served.full_name} (application {served.application})"
                    f" hides that of {other.full_name} (application {other.application})"
                )


def _rules(descriptors: bytes) -> dict[str, list[_Rule]]:
    """The rules of each method, by its full name."""
    try:
        files = FileDescriptorSet.FromString(descriptors).file
    except DecodeError:
        return {}
    found: dict[str, list[_Rule]] = {}
    for file in files:
        for service in file.service:
            full_name = f"{file.package}.{service.name}".removeprefix(".")
            for method in service.method:
                if method.options.HasExtension(annotations_pb2.http):
                    rule = method.options.Extensions[annotations_pb2.http]
                    patterns = [each for each in (rule, *rule.additional_bindings) if each.WhichOneof("pattern")]
                    found[f"/{full_name}/{method.name}"] = [_read(each) for each in patterns]
    return found


def _read(rule: http_pb2.HttpRule) -> _Rule:
    name = rule.WhichOneof("pattern") or ""
    if name == "custom":
        return rule.custom.kind.upper() or "*", rule.custom.path
    return name.upper(), getattr(rule, name)
