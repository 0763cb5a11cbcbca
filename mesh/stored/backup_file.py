"""Backup files: one line of JSON that says what follows, then the backup as a message of protobuf.

The line is for people and for `mesh restore`, which reads it first: a file of a newer mesh is refused before anything
else of it is read, and a damaged one before anything of it is stored.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from google.protobuf.message import DecodeError

from mesh.stored.schema_version import check_schema
from mesh.v1 import control_pb2

_FORMAT = "mesh backup"
_HEADER_MAX_BYTES = 1_000_000
_PACKAGE = "raymesh"


def to_file(backup: control_pb2.MeshBackup) -> bytes:
    """What is written to the file: see above."""
    body = backup.SerializeToString(deterministic=True)
    header = {
        "format": _FORMAT,
        "schema_version": backup.state.schema_version,
        "mesh_version": _package_version(),
        "written": datetime.fromtimestamp(backup.unix_time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "applications": [app.name for app in backup.state.applications],
        "bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    return json.dumps(header).encode() + b"\n" + body


def from_file(data: bytes, name: str) -> control_pb2.MeshBackup:
    """`name` is that of the file. Raises ValueError for all but a whole backup, NewerSchemaError for a newer one."""
    head, newline, body = data.partition(b"\n")
    header = _header(head) if newline else None
    if header is None or not isinstance(header.get("schema_version"), int):
        raise ValueError(f"{name} is not a backup of a mesh. `mesh backup FILE` writes one.")
    check_schema(name, header["schema_version"])
    if len(body) != header.get("bytes") or hashlib.sha256(body).hexdigest() != header.get("sha256"):
        raise ValueError(
            f"{name} is damaged: it has {len(body)} of {header.get('bytes')} bytes, or others than were written. Use "
            "another copy."
        )
    try:
        return control_pb2.MeshBackup.FromString(body)
    except DecodeError as error:
        raise ValueError(f"{name} is not a backup of a mesh: {error}") from error


def _header(line: bytes) -> dict[str, Any] | None:
    if len(line) > _HEADER_MAX_BYTES:
        return None
    try:
        header = json.loads(line)
    except ValueError:  # also of bytes that are not text
        return None
    return header if isinstance(header, dict) and header.get("format") == _FORMAT else None


def _package_version() -> str:
    try:
        return metadata.version(_PACKAGE)
    except metadata.PackageNotFoundError:  # run from its source without installation
        return ""
