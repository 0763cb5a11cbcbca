"""What a stored desired state refers to: all generations of its applications, and the keys of what they need. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from mesh.cluster.keys import DESCRIPTORS_PREFIX
from mesh.v1 import control_pb2


def all_generations(state: control_pb2.DesiredState) -> Iterator[control_pb2.ApplicationSpec]:
    """The wanted ones, those before that are kept, those for a rollback, and the canaries."""
    yield from state.applications
    yield from state.predecessors
    yield from state.proven_before
    yield from state.canaries


def used_digests(state: control_pb2.DesiredState) -> list[str]:
    """Digests of the descriptors of all generations."""
    return sorted({app.descriptors_digest for app in all_generations(state)} - {""})


def keys_of(state: control_pb2.DesiredState) -> set[str]:
    """Keys of the code and the descriptors of all generations in the cluster's KV."""
    code = {spec.code_key for app in all_generations(state) for spec in app.deployments}
    return code | {DESCRIPTORS_PREFIX + digest for digest in used_digests(state)}
