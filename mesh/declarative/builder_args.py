"""Arguments of builder functions: from a file or a command line to the type that the function declares."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import msgspec
import yaml

from mesh.declarative.error_field import unknown_field
from mesh.declarative.yaml_positions import Finding, Path, dotted

_MSGSPEC_PLACE = re.compile(r"(?P<reason>.*) - at `\$(?P<way>.*)`", re.DOTALL)
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")


class BadArgsError(ValueError):
    """The arguments do not fit the builder. Paths in `findings` start at the arguments."""

    def __init__(self, builder: str, findings: list[Finding]) -> None:
        lines = (f"{dotted(each.path)}: {each.message}" if each.path else each.message for each in findings)
        super().__init__(f"Wrong arguments for {builder}: {'; '.join(lines)}")
        self.builder = builder
        self.findings = findings

    def __reduce__(self) -> tuple[Any, ...]:
        return BadArgsError, (self.builder, self.findings)


def parse_pairs(pairs: Iterable[str]) -> dict[str, Any]:
    """`key=value` words of a command line. Values are strings, or lists and mappings in YAML's flow style."""
    args: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not (separator and key.isidentifier()):
            raise ValueError(f"{pair!r} is not KEY=VALUE: arguments of the application's builder look like size=3.")
        if key in args:
            raise ValueError(f"{key} is given twice: {args[key]!r} and {value!r}.")
        args[key] = _short_form(key, value)
    return args


def _short_form(key: str, value: str) -> Any:
    if not value.startswith(("[", "{")):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"{key}={value}: this is neither a list nor a mapping in YAML.") from error


def call_builder(builder: Callable[..., Any], args: Mapping[str, Any]) -> Any:
    """The result of the builder. Raises BadArgsError, TypeError for a wrong signature, and errors of the builder."""
    return builder(_converted(builder, args))


def typed_args(builder: Callable[..., Any], args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as plain values of the types that the builder declares. Raises like `call_builder`."""
    converted = _converted(builder, args)
    if dataclasses.is_dataclass(converted) or isinstance(converted, msgspec.Struct):
        plain = msgspec.to_builtins(converted)
    else:  # of either major version of pydantic, or the arguments themselves
        dump = getattr(converted, "model_dump", None) or getattr(converted, "dict", None)
        plain = converted if dump is None else dump()
    return {name: plain.get(name, value) for name, value in args.items()}


def _converted(builder: Callable[..., Any], args: Mapping[str, Any]) -> Any:
    name = getattr(builder, "__name__", repr(builder))
    parameters = list(inspect.signature(builder).parameters.values())
    if len(parameters) != 1:
        raise TypeError(
            f"{name} takes {len(parameters)} parameters. A builder takes exactly one, its arguments: a dict, a "
            "dataclass or a pydantic model."
        )
    annotation = parameters[0].annotation
    if isinstance(annotation, str):
        annotation = _named_by(annotation, builder)
    return _of_type(name, annotation, dict(args))


def _named_by(text: str, builder: Any) -> Any:
    """What an annotation in quotes means. Only that one: others may name what is there for type checkers only."""
    while isinstance(builder, functools.partial):
        builder = builder.func
    function = builder if inspect.isroutine(builder) else type(builder).__call__
    annotated = SimpleNamespace(__annotations__={"it": text})
    return typing.get_type_hints(annotated, globalns=inspect.unwrap(function).__globals__)["it"]


def _of_type(builder: str, annotation: Any, args: dict[str, Any]) -> Any:
    if isinstance(annotation, type) and hasattr(annotation, "model_validate"):
        return _by_pydantic(builder, annotation.model_validate, args)
    if isinstance(annotation, type) and hasattr(annotation, "parse_obj"):
        return _by_pydantic(builder, annotation.parse_obj, args)
    if annotation is inspect.Parameter.empty or typing.get_origin(annotation) in (dict, Mapping):
        return args
    if annotation in (dict, Mapping, Any):
        return args
    return _by_msgspec(builder, annotation, args)


def _by_pydantic(builder: str, validate: Callable[[Any], Any], args: dict[str, Any]) -> Any:
    try:
        return validate(args)
    except ValueError as error:
        # Recognised by its attribute: pydantic, of either major version, is not a dependency.
        errors = getattr(error, "errors", None)
        if errors is None:
            raise
        findings = [Finding(tuple(each["loc"]), _with_input(each)) for each in errors()]
        raise BadArgsError(builder, findings) from error


def _with_input(error: Mapping[str, Any]) -> str:
    given = error.get("input")
    is_scalar = isinstance(given, str | int | float)
    return f"{error['msg']}, got {given!r}." if is_scalar else f"{error['msg']}."


def _by_msgspec(builder: str, annotation: Any, args: dict[str, Any]) -> Any:
    if dataclasses.is_dataclass(annotation):
        known = [each.name for each in dataclasses.fields(annotation)]
        unknown = [unknown_field((), name, known) for name in args if name not in known]
        if unknown:
            raise BadArgsError(builder, unknown)
    try:
        return msgspec.convert(args, annotation, strict=False)
    except msgspec.ValidationError as error:
        raise BadArgsError(builder, [_msgspec_finding(str(error))]) from error


def _msgspec_finding(message: str) -> Finding:
    match = _MSGSPEC_PLACE.fullmatch(message)
    if match is None:
        return Finding((), f"{message}.")
    path: Path = tuple(step[1] or int(step[2]) for step in _STEP.finditer(match["way"]))
    return Finding(path, f"{match['reason']}.")
