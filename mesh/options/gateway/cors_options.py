"""`CorsOptions`: the pages of other origins that may call the gateways from a browser."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mesh.options import option_checks
from mesh.options.absent_options import check_known
from mesh.options.keyword_advice import with_field_advice
from mesh.v1 import control_pb2

_NAME = "http_options['cors']"
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\*\.)?[a-z0-9.\[\]:_-]+").fullmatch
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_MAX_AGE_S = 86_400
"""Browsers remember nothing for longer than a day."""


@with_field_advice
@dataclass(frozen=True, slots=True, kw_only=True)
class CorsOptions:
    """What pages of other origins may do, in all dialects."""

    origins: Sequence[str]
    """Such as "https://app.example.com", "https://*.example.com" for its subdomains, or "*" for all."""
    methods: Sequence[str] = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")
    """HTTP methods."""
    headers: Sequence[str] = ("*",)
    """Request headers; "*": any."""
    credentials: bool = False
    """Whether requests may carry cookies; not with the origin "*"."""
    max_age_s: int = 7200
    """How long a browser may remember what is allowed."""

    def __post_init__(self) -> None:
        for name in ("origins", "methods", "headers"):
            _check_texts(name, getattr(self, name))
        for origin in self.origins:
            if origin not in ("*", "null") and not _ORIGIN(origin):
                raise ValueError(
                    f"{_NAME}['origins'] has {origin!r}: an origin is a scheme, a host and maybe a port, in lower "
                    "case and without a slash at the end, for instance 'https://app.example.com' or 'http://localhost:5173'."
                )
        option_checks.flag(f"{_NAME}['credentials']", self.credentials)
        if self.credentials and "*" in self.origins:
            raise ValueError(
                f"{_NAME}['credentials'] with the origin '*' would let any page act for its visitors: name the origins."
            )
        option_checks.whole_number(f"{_NAME}['max_age_s']", self.max_age_s, 0, _MAX_AGE_S)

    def to_message(self) -> control_pb2.CorsOptions:
        return control_pb2.CorsOptions(
            origins=self.origins,
            methods=self.methods,
            headers=self.headers,
            has_credentials=self.credentials,
            max_age_s=self.max_age_s,
        )


def parse(value: CorsOptions | Mapping[str, Any] | None) -> CorsOptions | None:
    """Raises TypeError or ValueError naming what is wrong."""
    if value is None or isinstance(value, CorsOptions):
        return value
    given = option_checks.mapping(_NAME, value)
    check_known(_NAME, given, (field.name for field in fields(CorsOptions)))
    if "origins" not in given:
        raise ValueError(f"{_NAME} needs 'origins', for instance ['https://app.example.com'].")
    return CorsOptions(**given)  # type: ignore[arg-type]


def _check_texts(name: str, values: object) -> None:
    if isinstance(values, str) or not isinstance(values, Sequence) or not all(isinstance(each, str) for each in values):
        raise TypeError(f"{_NAME}[{name!r}] must be a list of strings, got {values!r}.")
    if not values:
        raise ValueError(f"{_NAME}[{name!r}] is empty: name at least one, or leave it out.")
    if name != "origins":
        for each in values:
            if not _TOKEN(each):
                raise ValueError(f"{_NAME}[{name!r}] has {each!r}, which is not a name in HTTP.")
