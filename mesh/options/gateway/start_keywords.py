"""The keywords of `mesh.start`, and what to write instead of others."""

from __future__ import annotations

from collections.abc import Iterable

from mesh.options.keyword_advice import unexpected_keyword

START_KEYWORDS = (
    "proxy_location",
    "http_options",
    "grpc_options",
    "logging_config",
    "tracing_config",
    "controller_options",
)
"""In their order there and in `gateway_options.parse`; they are the fields of a file too."""

_OLD_KEYWORDS = ("http_host", "http_port", "http_middlewares")


def refuse_keywords(given: Iterable[str]) -> None:
    """Raises ValueError for a keyword that Ray Serve once had, TypeError for any other."""
    for keyword in given:
        if keyword in _OLD_KEYWORDS:
            option = keyword.removeprefix("http_")
            raise ValueError(f"{keyword} is no longer an argument: write http_options={{{option!r}: ...}}.")
        raise unexpected_keyword("start", keyword, START_KEYWORDS)
