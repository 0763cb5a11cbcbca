"""The public modules of Ray Serve have namesakes, so that an application changes the first word of its imports."""

from __future__ import annotations

import importlib

import pytest

import mesh
from mesh.exceptions import MeshException
from mesh.replica.grpc_context import GrpcContext

NAMES = {
    "mesh": ("_run", "Application", "Deployment", "deployment", "ingress", "batch", "multiplexed", "metrics", "schema"),
    "mesh.config": (
        "AggregationFunction",
        "AutoscalingConfig",
        "AutoscalingContext",
        "AutoscalingPolicy",
        "ControllerOptions",
        "DeploymentMode",
        "HTTPOptions",
        "ProxyLocation",
        "RequestRouterConfig",
        "gRPCOptions",
    ),
    "mesh.context": ("ReplicaContext",),
    "mesh.exceptions": (
        "BackPressureError",
        "DeploymentUnavailableError",
        "RayServeException",
        "ReplicaUnavailableError",
        "RequestCancelledError",
        "gRPCStatusError",
    ),
    "mesh.grpc_util": ("RayServegRPCContext", "gRPCInputStream"),
    "mesh.handle": (
        "DeploymentBroadcastResponse",
        "DeploymentHandle",
        "DeploymentResponse",
        "DeploymentResponseGenerator",
    ),
    "mesh.metrics": ("Counter", "Gauge", "Histogram"),
    "mesh.schema": (
        "ApplicationStatus",
        "EncodingType",
        "LoggingConfig",
        "ProxyStatus",
        "ServeStatus",
        "TracingConfig",
    ),
}


@pytest.mark.parametrize("module", NAMES)
def test_a_module_has_the_names_of_its_namesake(module: str) -> None:
    """An import needs no other change (D11)."""
    found = importlib.import_module(module)
    assert [name for name in NAMES[module] if not hasattr(found, name)] == []


def test_they_are_the_classes_that_the_mesh_uses() -> None:
    """No copies: `isinstance` and `except` work (D11)."""
    from mesh import config, exceptions, grpc_util, schema

    assert exceptions.RayServeException is MeshException
    assert config.gRPCOptions is mesh.gRPCOptions
    assert schema.LoggingConfig is mesh.LoggingConfig
    assert schema.ServeStatus is importlib.import_module("mesh.status").MeshStatus
    assert grpc_util.RayServegRPCContext is GrpcContext
