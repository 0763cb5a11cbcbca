"""What a server declares of its models, and the checks of inputs against that. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mesh.inference.protocol.datatypes import DATATYPES, TensorError, shown
from mesh.inference.protocol.inference_request import InputTensor

ANY_SIZE = -1


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output of a model."""

    name: str
    datatype: str
    """BOOL, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, FP16, BF16, FP32, FP64 or BYTES."""
    shape: Sequence[int]
    """-1: of any size."""
    is_optional: bool = False
    """An input that requests may leave out."""

    def __post_init__(self) -> None:
        if self.datatype not in DATATYPES:
            raise ValueError(f"Tensor {self.name!r} has datatype {self.datatype!r}. There are: {', '.join(DATATYPES)}.")
        if any(size < ANY_SIZE for size in self.shape):
            raise ValueError(f"Tensor {self.name!r} has shape {list(self.shape)}: sizes are -1 or more.")

    def accepts_shape(self, shape: Sequence[int]) -> bool:
        return len(shape) == len(self.shape) and all(
            wanted in (ANY_SIZE, size) for wanted, size in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model: what clients read as its metadata, and what their requests are checked against."""

    name: str
    inputs: Sequence[TensorInfo] = ()
    """Empty: inputs are not checked."""
    outputs: Sequence[TensorInfo] = ()
    """Empty: any arrays may be returned. Others than these are never allowed."""
    versions: Sequence[str] = ()
    """Versions that requests may name, oldest first; one that names none gets the last. Empty: any version."""
    platform: str = ""
    """For instance "onnx_onnxv1"; information for clients only."""
    properties: Mapping[str, str] = field(default_factory=dict)
    """More information for clients."""

    def has_version(self, version: str) -> bool:
        return not version or not self.versions or version in self.versions

    def served_version(self, version: str) -> str:
        """The version that serves a request for `version`, which may be empty."""
        return version or (self.versions[-1] if self.versions else "")

    def declared_output(self, name: str) -> TensorInfo | None:
        return next((each for each in self.outputs if each.name == name), None)

    def check_inputs(self, inputs: Mapping[str, InputTensor]) -> None:
        """Raises TensorError naming the input that is missing, unknown or of another type or shape."""
        if not self.inputs:
            return
        declared = {each.name: each for each in self.inputs}
        for name, given in inputs.items():
            wanted = declared.get(name)
            if wanted is None:
                raise TensorError(f"Model {self.name!r} has no input {shown(name)}. There are: {', '.join(declared)}.")
            if given.datatype != wanted.datatype:
                raise TensorError(f"Input {name!r} of model {self.name!r} is {wanted.datatype}, not {given.datatype}.")
            if not wanted.accepts_shape(given.shape):
                raise TensorError(
                    f"Input {name!r} of model {self.name!r} has the shape {list(wanted.shape)}, not "
                    f"{list(given.shape)}. -1 stands for any size."
                )
        for name, wanted in declared.items():
            if name not in inputs and not wanted.is_optional:
                raise TensorError(f"Input {name!r} of model {self.name!r} is missing.")

    def check_requested(self, outputs: Sequence[str]) -> None:
        """Raises TensorError for an output that the model does not have."""
        known = [each.name for each in self.outputs]
        for name in outputs:
            if known and name not in known:
                raise TensorError(f"Model {self.name!r} has no output {shown(name)}. There are: {', '.join(known)}.")
