"""The messages of the protocol beside those of other packages, and what is said without numpy."""

from __future__ import annotations

import subprocess
import sys

import pytest
from google.protobuf import descriptor_pool

from mesh.inference.protocol.messages import ModelInferRequest
from mesh.inference.protocol.numpy_module import load_numpy

THEIRS = """
from google.protobuf import descriptor_pb2, descriptor_pool
import mesh.inference
from mesh.inference.protocol.messages import ModelInferRequest

file = descriptor_pb2.FileDescriptorProto(name="their_service.proto", package="inference", syntax="proto3")
file.message_type.add(name="ModelInferRequest").field.add(name="int32", number=1, type=5, label=1)
descriptor_pool.Default().Add(file)
theirs = descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")
print(theirs.full_name, theirs.fields[0].name, ModelInferRequest.DESCRIPTOR.nested_types[0].name)
"""
"""In a process of its own, since a default pool forgets nothing."""


def test_other_packages_may_define_the_same_messages() -> None:
    """As tritonclient and KServe do, in the default pool."""
    name = ModelInferRequest.DESCRIPTOR.full_name
    assert name == "inference.ModelInferRequest"
    assert ModelInferRequest.DESCRIPTOR.file.pool is not descriptor_pool.Default()
    their = subprocess.run([sys.executable, "-c", THEIRS], capture_output=True, text=True, timeout=60, check=False)
    assert their.stdout.split() == [name, "int32", "InferInputTensor"], their.stderr


def test_without_numpy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'raymesh\[inference\]'"):
        load_numpy()
