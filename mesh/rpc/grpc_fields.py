"""Header fields of gRPC: timeouts, status messages, metadata, and blocks of whole heads (gRPC over HTTP/2 spec)."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable
from functools import lru_cache
from math import ceil, isnan

from mesh.http2.hpack_decoder import Field
from mesh.http2.hpack_encoder import encode_field, encode_fields

Entry = tuple[str, str | bytes]
"""One entry of metadata. Values of keys that end in "-bin" are bytes."""

CONTENT_TYPE = b"application/grpc"
BINARY_SUFFIX = "-bin"

RESPONSE_BLOCK = encode_fields([(b":status", b"200"), (b"content-type", CONTENT_TYPE)])
"""Headers of every response."""
OK_BLOCK = encode_fields([(b"grpc-status", b"0")])
"""Trailers of a call that went well and says nothing else."""

TIMEOUT_MAX_S = 3600.0 * (10**8 - 1)
"""What eight digits of hours can say."""
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])").fullmatch
_UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
"""The units of `grpc-timeout`."""
_ENCODED = re.compile(rb"%([0-9A-Fa-f]{2})")
_NOT_PLAIN = re.compile(rb"[^\x20-\x24\x26-\x7e]|\A | \Z")
"""A space at an end is quoted too: HTTP does not keep it."""
_KEY = re.compile(r"[0-9a-z_.-]+").fullmatch
_VALUES_MAX = 1_000
"""Values of one head, with each of those that commas separate; they take more memory than their bytes."""
_PRINTABLE = re.compile(rb"[\x20-\x7e]*").fullmatch
_OF_TRANSPORT = frozenset({b"te", b"content-type", b"content-length", b"host"})
_RESERVED = "grpc-"
_OF_APPLICATIONS = frozenset({"grpc-status-details-bin", "grpc-previous-rpc-attempts", "grpc-retry-pushback-ms"})
"""Reserved names that applications may read and send."""


def request_block(path: str, authority: str, *, scheme: bytes = b"http") -> bytes:
    """The headers of all calls of one method; what differs between calls may follow it."""
    return encode_fields(
        [
            (b":method", b"POST"),
            (b":scheme", scheme),
            (b":path", path.encode()),
            (b":authority", authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", CONTENT_TYPE),
        ]
    )


def read_timeout(value: bytes) -> float:
    """Seconds. Raises ValueError for what is not a grpc-timeout."""
    match = _TIMEOUT(value)
    if match is None:
        text = value[:40].decode("ascii", "backslashreplace")
        raise ValueError(f"grpc-timeout is {text!r}: it takes at most eight digits and one of H, M, S, m, u and n.")
    return int(match[1]) * _UNITS_S[match[2]]


def write_timeout(seconds: float) -> bytes:
    """The grpc-timeout for a time, with at most eight digits, never shorter than it is.

    Raises TypeError for what is not a number, ValueError for NaN.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"a timeout is a number of seconds, not {seconds!r}")
    seconds = min(max(seconds, 0.0), TIMEOUT_MAX_S)
    if isnan(seconds):
        raise ValueError("a timeout is a number of seconds, not NaN")
    for unit, scale in ((b"u", 1e6), (b"m", 1e3), (b"S", 1.0), (b"M", 1 / 60)):
        amount = ceil(seconds * scale)
        if amount < 10**8:
            return b"%d%b" % (amount, unit)
    return b"%dH" % min(int(seconds / 3600) + 1, 10**8 - 1)


def quote_message(text: str) -> bytes:
    """A status message, percent-encoded."""
    data = text.encode("utf-8", "replace")
    return _NOT_PLAIN.sub(lambda match: b"%%%02X" % match[0][0], data)


def unquote_message(value: bytes) -> str:
    """The reverse of `quote_message`; what is not UTF-8 is replaced."""
    return _ENCODED.sub(lambda match: bytes((int(match[1], 16),)), value).decode("utf-8", "replace")


def read_encoding(value: bytes) -> str:
    """The name of a compression; empty where messages are not compressed."""
    name = value.decode("ascii", "replace")
    return "" if name == "identity" else name


def read_metadata(fields: Iterable[Field]) -> tuple[Entry, ...]:
    """The entries that are the application's. Raises ValueError for a binary value that is not base64, or too many."""
    entries: list[Entry] = []
    for name, value in fields:
        key = name.decode("ascii", "backslashreplace")
        if name[:1] == b":" or name in _OF_TRANSPORT or (key[:5] == _RESERVED and key not in _OF_APPLICATIONS):
            continue
        if name[-4:] == b"-bin":
            values = value.split(b",")
            if len(entries) + len(values) > _VALUES_MAX:
                raise ValueError(f"{key} brings the metadata to more than {_VALUES_MAX:,} values")
            entries.extend((key, _read_binary(key, each)) for each in values)
        else:
            entries.append((key, value.decode("ascii", "backslashreplace").strip(" ")))
    return tuple(entries)


def metadata_block(entries: Iterable[tuple[str, str | bytes]]) -> bytes:
    """A part of a header block. Raises ValueError for what gRPC does not allow as metadata."""
    return b"".join([metadata_field(key, value) for key, value in entries])


def metadata_field(key: str, value: str | bytes) -> bytes:
    """One entry as a part of a header block. Raises ValueError for what gRPC does not allow as metadata."""
    name = _metadata_name(key)
    data = value.encode() if isinstance(value, str) else value
    if key.endswith(BINARY_SUFFIX):
        data = b64encode(data).rstrip(b"=")
    elif not _PRINTABLE(data):
        raise ValueError(
            f"the value of metadata {key!r} is not printable ASCII; keys that end in '-bin' take any bytes"
        )
    return encode_field(name, data)


def status_block(code: int, message: str = "", entries: Iterable[tuple[str, str | bytes]] = ()) -> bytes:
    """Trailers: a status and metadata. Raises ValueError for what gRPC does not allow as metadata."""
    block = _code_field(code)
    if message:
        block += encode_field(b"grpc-message", quote_message(message))
    return block + metadata_block(entries)


@lru_cache(64)
def _code_field(code: int) -> bytes:
    return encode_field(b"grpc-status", b"%d" % code)


@lru_cache(256)
def _metadata_name(key: str) -> bytes:
    if not _KEY(key) or (key.startswith(_RESERVED) and key not in _OF_APPLICATIONS):
        raise ValueError(
            f"{key!r} is not a key of metadata: lower-case letters, digits, '_', '-', '.', and no 'grpc-' in front"
        )
    return key.encode()


def _read_binary(key: str, value: bytes) -> bytes:
    value = value.strip(b" ")
    try:
        return b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except Base64Error:
        raise ValueError(f"the value of {key} is not base64") from None
