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


def below(root_path: str, raw_path: str) -> str:
    """The path as applications see it: below `root_path`, whether or not a proxy in front has cut that off."""
    if not root_path or raw_path == root_path or raw_path.startswith(f"{root_path}/"):
        return raw_path
    return root_path + raw_path
