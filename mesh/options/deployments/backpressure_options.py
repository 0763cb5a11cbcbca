"""`BackpressureConfig`: what HTTP clients are answered whose calls find no place in time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mesh.options import option_checks
from mesh.options.keyword_advice import with_field_advice
from mesh.options.option_record import record_of
from mesh.v1 import common_pb2

_STATUS_CODES = (429, 503)


@with_field_advice
@dataclass(frozen=True, slots=True, kw_only=True)
class BackpressureConfig:
    """The HTTP side of RESOURCE_EXHAUSTED, for calls that `max_queued_requests` or `queue_timeout_s` refuses."""

    status_code: int = 503
    """HTTP status: 503 or 429."""
    retry_after_s: float | None = None
    """`Retry-After` of the response in seconds, rounded up; None: no such header."""

    def __post_init__(self) -> None:
        if isinstance(self.status_code, bool) or self.status_code not in _STATUS_CODES:
            raise ValueError(f"backpressure_config['status_code'] must be 429 or 503, got {self.status_code!r}.")
        if self.retry_after_s is not None:
            option_checks.number("backpressure_config['retry_after_s']", self.retry_after_s)

    def to_message(self) -> common_pb2.BackpressureAnswer:
        return common_pb2.BackpressureAnswer(status_code=self.status_code, retry_after_s=self.retry_after_s)


def parse(value: BackpressureConfig | Mapping[str, Any]) -> BackpressureConfig:
    """Raises TypeError or ValueError naming the key that is wrong."""
    return record_of(BackpressureConfig, "backpressure_config", value)
