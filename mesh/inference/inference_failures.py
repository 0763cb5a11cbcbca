"""Failures of inference as text: for the client, and for the replica's log."""

from __future__ import annotations

from mesh.context import current_request
from mesh.exceptions import GrpcStatusError
from mesh.inference.protocol.datatypes import OutputError, TensorError
from mesh.replica.failure_log import failure_log
from mesh.wire.outcome import as_utf8, describe


def failure_text(error: Exception) -> str:
    if isinstance(error, GrpcStatusError):
        return as_utf8(error.details) or error.code.name
    return str(error) if isinstance(error, TensorError | OutputError) else describe(error)


def record_failure(title: str, error: Exception) -> None:
    """Log what is not the client's mistake."""
    request = current_request()
    if not isinstance(error, TensorError):
        failure_log.record(title, request.request_id if request is not None else "", error)
