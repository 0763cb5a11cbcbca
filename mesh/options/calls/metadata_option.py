"""The option `metadata`: the gRPC metadata of the calls of a handle."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

CallMetadata = tuple[tuple[str, str | bytes], ...]

_METADATA_MAX_BYTES = 16 * 1024
"""As gRPC accepts it: keys and values, and 32 bytes for each pair."""
_PAIR_BYTES = 32
_KEY = re.compile(r"[0-9a-z_.-]+")
_ASCII_VALUE = re.compile(r"[\x20-\x7e]*")
_EXAMPLE = '{"tenant": "a", "trace-bin": b"..."}'


def call_metadata(value: object) -> CallMetadata:
    """The option's checked value. Raises TypeError or ValueError naming what is wrong."""
    pairs = value.items() if isinstance(value, Mapping) else value
    if isinstance(pairs, str | bytes) or not isinstance(pairs, Iterable):
        raise TypeError(f"metadata must be a dict such as {_EXAMPLE}, or an iterable of such pairs, got {value!r}.")
    checked = tuple(_checked(pair) for pair in pairs)
    size_bytes = sum(len(key) + len(text) + _PAIR_BYTES for key, text in checked)
    if size_bytes > _METADATA_MAX_BYTES:
        raise ValueError(
            f"metadata may have {_METADATA_MAX_BYTES} bytes, got {size_bytes}. Pass large values as arguments."
        )
    return checked


def _checked(pair: object) -> tuple[str, str | bytes]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"metadata must consist of pairs of a key and a value, got {pair!r}.")
    key, value = pair
    if not isinstance(key, str):
        raise TypeError(f"A key of metadata must be a string, got {key!r}.")
    if not _KEY.fullmatch(key) or key.startswith("grpc-"):
        raise ValueError(
            f"A key of metadata has lower-case letters, digits, '_', '-' and '.', and does not begin with 'grpc-', "
            f"got {key!r}."
        )
    if key.endswith("-bin"):
        if not isinstance(value, bytes):
            raise TypeError(f"metadata[{key!r}] must be bytes, as its key ends in '-bin', got {value!r}.")
    elif not isinstance(value, str):
        raise TypeError(f"metadata[{key!r}] must be a string, got {value!r}. Keys of bytes end in '-bin'.")
    elif not _ASCII_VALUE.fullmatch(value):
        raise ValueError(f"metadata[{key!r}] must be printable ASCII, got {value!r}. Keys of bytes end in '-bin'.")
    return key, value
