"""A request as the code of a model sees it, and what that may return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Parameter = bool | int | float | str
Tensors = Mapping[str, Any]
"""numpy arrays by the names of inputs or outputs."""


@dataclass(frozen=True, slots=True)
class InputTensor:
    """What a client said of one input."""

    datatype: str
    shape: tuple[int, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """Which model a client asks, and how."""

    model_name: str
    model_version: str = ""
    """The one that was asked for, else the last one that the model declares; empty if it declares none."""
    model_id: str = ""
    """ "name", or "name:version" if the client named a version: what `@mesh.multiplexed` loaders take."""
    id: str = ""
    """The client's own, returned to it."""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    inputs: Mapping[str, InputTensor] = field(default_factory=dict)
    requested_outputs: tuple[str, ...] = ()
    """Only these are sent; empty: all. The model need not look at them."""


@dataclass(frozen=True, slots=True)
class InferenceResult:
    """Outputs with parameters, where outputs alone are not enough."""

    outputs: Tensors
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


def model_id_of(name: str, version: str) -> str:
    """The model id for a model as a client names it. Gateways compute the same one from a request to route it."""
    return f"{name}:{version}" if version else name
