"""Which application serves a path: that of the longest route prefix which ends at a path segment. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar
from urllib.parse import unquote

T = TypeVar("T")


class RoutePrefixes(Generic[T]):
    """Values by route prefix. Made once per version of the routes; a look-up costs one step per length of a prefix."""

    __slots__ = ("_by_prefix", "_lengths")

    def __init__(self, entries: Iterable[tuple[str, T]]) -> None:
        """`entries`: prefixes such as "/shop" or "/", and what each of them stands for."""
        self._by_prefix = {prefix.rstrip("/"): value for prefix, value in entries}
        self._lengths = sorted({len(prefix) for prefix in self._by_prefix}, reverse=True)

    def find(self, path: str) -> T | None:
        """The value of the longest prefix of a decoded path: "/shop" fits "/shop" and "/shop/x", not "/shopping"."""
        size = len(path)
        for length in self._lengths:
            if length == size or (length < size and path[length] == "/"):
                value = self._by_prefix.get(path[:length])
                if value is not None:
                    return value
        return None


def decoded_path(raw_path: str) -> str:
    """The path without percent-encoding. Bytes that are not UTF-8 become replacement characters."""
    return unquote(raw_path) if "%" in raw_path else raw_path


def without_root(root_path: str, path: str) -> str:
    """The path behind `root_path`, where a proxy in front has mounted the mesh there and has not cut it off."""
    if not root_path or not path.startswith(root_path):
        return path
    rest = path[len(root_path) :]
    if not rest:
        return "/"
    return rest if rest[0] == "/" else path


def method_without_root(root_path: str, path: str) -> str:
    """The same for gRPC, where "/api/Method" is a method of the service "api" and nothing below "/api"."""
    rest = without_root(root_path, path)
    return rest if rest.count("/") > 1 else path
