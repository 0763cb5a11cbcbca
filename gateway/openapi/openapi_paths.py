"""Path templates as OpenAPI writes them: each wildcard is a parameter of its own, one segment long."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from gateway.transcoding.path_template import DOUBLE_STAR, STAR, PathTemplate

_PLAIN = "-._~!$&'()*+,;=:@"
"""Characters of a segment that need no percent escape (RFC 3986 §3.3)."""


@dataclass(frozen=True, slots=True)
class PathParameter:
    """A wildcard of a template."""

    name: str
    field_path: str
    """The field of its variable; empty for a wildcard outside of variables."""
    is_whole: bool
    """Whether it is all of the variable's value, and so has its type."""
    is_rest: bool
    """Whether it stands for any number of segments."""


def openapi_path(template: PathTemplate) -> tuple[str, list[PathParameter]]:
    """The path with `{name}` for each wildcard, and the wildcards."""
    parts: list[str] = []
    parameters: list[PathParameter] = []
    names: set[str] = set()
    for place, segment in enumerate(template.segments):
        if segment not in (STAR, DOUBLE_STAR):
            parts.append(quote(segment, safe=_PLAIN))
            continue
        variable = _variable_at(template, place)
        field_path = variable[0] if variable else ""
        # Tools take a dot in a name for the attribute of a value.
        name = _free_name(field_path.replace(".", "_") or "segment", names)
        parameters.append(
            PathParameter(name, field_path, bool(variable and variable[1]), is_rest=segment == DOUBLE_STAR)
        )
        parts.append(f"{{{name}}}")
    return "/" + "/".join(parts) + (f":{template.verb}" if template.verb else ""), parameters


def shape_of(path: str, parameters: list[PathParameter]) -> str:
    """The path without names: two paths of one shape are the same for OpenAPI."""
    for each in parameters:
        path = path.replace(f"{{{each.name}}}", "{}", 1)
    return path


def _variable_at(template: PathTemplate, place: int) -> tuple[str, bool] | None:
    """The field of the variable that a segment belongs to, and whether the variable is that segment."""
    for each in template.variables:
        stop = len(template.segments) if each.stop is None else each.stop
        if each.start <= place < stop:
            return each.field_path, stop - each.start == 1
    return None


def _free_name(name: str, names: set[str]) -> str:
    free, number = name, 2
    while free in names:
        free, number = f"{name}_{number}", number + 1
    names.add(free)
    return free
