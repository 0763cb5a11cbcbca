"""`TracingConfig`: whether the gateways and replicas of the mesh make spans, which ones, and where they go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mesh.options import option_checks
from mesh.options.keyword_advice import with_field_advice
from mesh.options.option_record import record_of
from mesh.v1 import control_pb2

_NAME = "tracing_config"


@with_field_advice
@dataclass(frozen=True, slots=True, kw_only=True)
class TracingConfig:
    """OpenTelemetry spans of gateways and replicas. Each process reads its own environment for what is not given."""

    enabled: bool | None = None
    """True: spans are exported, by OTLP where `OTEL_TRACES_EXPORTER` names nothing else. False: none are made. None:
    `OTEL_TRACES_EXPORTER` of each process decides, or `exporter_import_path` if it is given."""
    exporter_import_path: str = ""
    """`package.module:function` of a function that returns the span processors, instead of the exporters that
    `OTEL_TRACES_EXPORTER` names. Gateways and replicas import it."""
    sampling_ratio: float | None = None
    """Share of the traces that begin here and are exported, from 0 to 1; None: as `OTEL_TRACES_SAMPLER` says, by
    default all."""

    def __post_init__(self) -> None:
        if self.enabled is not None:
            option_checks.flag(f"{_NAME}['enabled']", self.enabled)
        path = option_checks.text(f"{_NAME}['exporter_import_path']", self.exporter_import_path)
        module, _, attribute = path.replace(":", ".").rpartition(".")
        if path and not (module and attribute):
            raise ValueError(
                f"{_NAME}['exporter_import_path'] is {path!r}, not an import path: write package.module:function."
            )
        if self.sampling_ratio is not None:
            ratio = option_checks.number(f"{_NAME}['sampling_ratio']", self.sampling_ratio)
            if ratio > 1:
                raise ValueError(f"{_NAME}['sampling_ratio'] must be at most 1, got {ratio:g}.")

    def to_message(self) -> control_pb2.TracingOptions:
        return control_pb2.TracingOptions(
            is_enabled=self.enabled,  # type: ignore[arg-type]  # None: not given
            exporter_import_path=self.exporter_import_path,
            sampling_ratio=self.sampling_ratio,
        )


def parse(value: TracingConfig | Mapping[str, Any] | None) -> TracingConfig | None:
    """Raises TypeError or ValueError naming what is wrong."""
    return None if value is None else record_of(TracingConfig, _NAME, value)
