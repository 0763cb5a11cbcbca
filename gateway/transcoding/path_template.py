"""Path templates of `google.api.http` rules: their grammar, and the decoding of what a path gives for a variable.

    Template = "/" Segment { "/" Segment } [ ":" verb ]
    Segment  = "*" | "**" | literal | "{" field.path [ "=" Segments ] "}"

`*` is one segment that is not empty, `**` any number of segments at the end of the path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote_to_bytes

STAR = "*"
DOUBLE_STAR = "**"

_FIELD_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_PIECES = re.compile(r"\{[^{}]*\}|[^/{}]+|[/{}]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SLASH = re.compile(r"(%2[Ff])")


@dataclass(frozen=True, slots=True)
class TemplateVariable:
    """A field that a part of the path gives."""

    field_path: str
    start: int
    stop: int | None
    """The end of the segments; None: up to the end of the path."""

    @property
    def is_single(self) -> bool:
        """Whether it is exactly one segment; only then may its value hold an escaped slash."""
        return self.stop == self.start + 1

    def value(self, segments: Sequence[str]) -> str:
        """The decoded text. Raises ValueError for wrong escapes."""
        if self.is_single:
            return decode_segment(segments[self.start])
        return "/".join(_decode_but_slash(each) for each in segments[self.start : self.stop])


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """A template, parsed. Literals are decoded; `segments` holds STAR and DOUBLE_STAR for the rest."""

    segments: tuple[str, ...]
    verb: str = ""
    variables: tuple[TemplateVariable, ...] = ()

    def below(self, prefix: str) -> PathTemplate:
        """The template under a prefix such as "/shop"."""
        before = tuple(decode_segment(each) for each in prefix.split("/") if each)
        count = len(before)
        moved = tuple(
            replace(each, start=each.start + count, stop=None if each.stop is None else each.stop + count)
            for each in self.variables
        )
        return PathTemplate(before + self.segments, self.verb, moved)


def parse_template(text: str) -> PathTemplate:
    """Raises ValueError that says what is wrong with the template."""
    path, verb = _split_verb(text)
    if not path.startswith("/"):
        raise ValueError(f"path template {text!r} does not start with '/'")
    segments: list[str] = []
    variables: list[TemplateVariable] = []
    pieces = _PIECES.findall(path)
    for slash, piece in zip(pieces[::2], pieces[1::2], strict=len(pieces) % 2 == 0):
        if slash != "/" or piece == "/":
            raise ValueError(f"path template {text!r} has an empty or misplaced segment")
        if piece.startswith("{"):
            variables.append(_variable(text, piece, len(segments)))
            segments += _segments(text, piece[1:-1].partition("=")[2] or STAR)
        else:
            segments += _segments(text, piece)
    if len(pieces) % 2 and path != "/":
        raise ValueError(f"path template {text!r} has an empty or misplaced segment")
    if DOUBLE_STAR in segments[:-1]:
        raise ValueError(f"path template {text!r} has '**' before its end")
    names = [each.field_path for each in variables]
    if len(set(names)) < len(names):
        raise ValueError(f"path template {text!r} names a variable twice")
    return PathTemplate(tuple(segments) or ("",), verb, tuple(variables))


def decode_segment(text: str) -> str:
    """Percent-decode. Raises ValueError for wrong escapes and for bytes that are not UTF-8."""
    if "%" not in text:
        return text
    if _BAD_ESCAPE.search(text):
        raise ValueError("the path has a wrong percent escape")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise ValueError("the path cannot be decoded: its percent escapes are not UTF-8") from None


def _decode_but_slash(text: str) -> str:
    if "%" not in text:
        return text
    return "".join(part if _SLASH.fullmatch(part) else decode_segment(part) for part in _SLASH.split(text))


def _split_verb(text: str) -> tuple[str, str]:
    """The verb stands behind the last colon, if no variable and no segment comes after it."""
    before, colon, verb = text.rpartition(":")
    if not colon or "/" in verb or "}" in verb:
        return text, ""
    if not verb:
        raise ValueError(f"path template {text!r} has an empty verb")
    return before, decode_segment(verb)


def _variable(text: str, piece: str, start: int) -> TemplateVariable:
    name, equals, pattern = piece[1:-1].partition("=")
    if not _FIELD_PATH.fullmatch(name) or (equals and not pattern):
        raise ValueError(f"path template {text!r} has a wrong variable {piece}")
    inner = _segments(text, pattern or STAR)
    return TemplateVariable(name, start, None if DOUBLE_STAR in inner else start + len(inner))


def _segments(text: str, pattern: str) -> list[str]:
    segments = pattern.split("/")
    for each in segments:
        if not each or ("*" in each and each not in (STAR, DOUBLE_STAR)) or "{" in each or "}" in each:
            raise ValueError(f"path template {text!r} has a wrong segment {each!r}")
    return [each if each in (STAR, DOUBLE_STAR) else decode_segment(each) for each in segments]
