"""The field of a file that an error message of the option checks is about. Pure.

The decorator, `mesh.start` and files share the checks, whose messages begin with the option's name. Errors in a file
show the path of the field, so the name is removed from the message.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mesh.declarative.file_schema import NESTED_FIELDS
from mesh.declarative.yaml_positions import Finding, Path
from mesh.options.absent_options import ADVICE, why_unknown

_SUBJECT = re.compile(r"(?P<name>[a-z_]\w*)(?P<way>(?:\[[^\]]+\])*) (?P<rest>.+)", re.DOTALL)
_STEP = re.compile(r"\[(?:(\d+)|'([^']*)')\]")
_WORD = re.compile(r"[a-z_]\w*")


def unknown_field(path: Path, name: str, known: Iterable[str]) -> Finding:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    advice = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}."
    message = why_unknown(name, known) if name in ADVICE else f"no such field: {advice}"
    return Finding((*path, name), message, is_about_key=True)


def repeated(field: str, values: Iterable[str | None]) -> Iterator[Finding]:
    """A finding for each application that has the same value in `field` as an earlier one."""
    first: dict[str, int] = {}
    for number, value in enumerate(values):
        if isinstance(value, str) and value and first.setdefault(value, number) != number:
            message = f"{value!r} is already used by applications[{first[value]}]: it must be unique."
            yield Finding(("applications", number, field), message)


def finding(path: Path, given: Mapping[str, Any], error: Exception) -> Finding:
    """The finding for `error`, which a check of the options `given` at `path` raised."""
    message = str(error)
    match = _SUBJECT.fullmatch(message)
    if match is None:
        return _at_mentioned(path, given, message)
    name = match["name"]
    steps = tuple(int(step[1]) if step[1] else step[2] for step in _STEP.finditer(match["way"]))
    if name in given:
        return Finding((*path, name, *steps), match["rest"])
    for option, value in given.items():
        if isinstance(value, Mapping) and name in NESTED_FIELDS.get(option, ()):
            return Finding((*path, option, name, *steps), match["rest"])
    return _at_mentioned(path, given, message)


def _at_mentioned(path: Path, given: Mapping[str, Any], message: str) -> Finding:
    """At the first option that the message mentions."""
    mentioned = next((word for word in _WORD.findall(message) if word in given), None)
    return Finding(path if mentioned is None else (*path, mentioned), message)
