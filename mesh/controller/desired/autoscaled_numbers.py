"""The numbers of replicas that autoscaling decides, as they are stored beside the desired state. Pure.

A decision concerns few of maybe thousands of deployments, so it does not store the whole state again: a small record
holds all numbers that differ from the stored state. The record names the version of that state, and every change of the
state takes the numbers over and has another version. So a record never holds for a state that it was not made for.
"""

from __future__ import annotations

from collections.abc import Mapping

from mesh.controller.desired.changes.state_edits import next_version
from mesh.controller.desired.desired_state import Desired
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2

Numbers = Mapping[DeploymentKey, int]
"""Replicas wanted of deployments that autoscale."""

_RECORD_MAX_BYTES = 2048


def record_of(state: control_pb2.DesiredState, numbers: Numbers) -> control_pb2.AutoscaledNumbers | None:
    """The numbers as they are stored beside `state`. None: they are too many, store the whole state with them."""
    record = control_pb2.AutoscaledNumbers(state_version=state.version)
    for key, number in numbers.items():
        record.numbers.add(deployment={"app": key.app, "name": key.name}, num_replicas=number)
    return record if record.ByteSize() <= _RECORD_MAX_BYTES else None


def read_record(record: control_pb2.AutoscaledNumbers, state: control_pb2.DesiredState) -> dict[DeploymentKey, int]:
    """The numbers that hold for `state`: none if they were stored beside another one."""
    if record.state_version != state.version:
        return {}
    numbers = {DeploymentKey(each.deployment.app, each.deployment.name): each.num_replicas for each in record.numbers}
    scaled = (
        DeploymentKey(app.name, spec.name)
        for app in state.applications
        for spec in app.deployments
        if spec.options.HasField("autoscaling")
    )
    return {key: numbers[key] for key in scaled if key in numbers}


def with_numbers(state: control_pb2.DesiredState, numbers: Numbers) -> control_pb2.DesiredState:
    """The state in which deployments have these numbers, with another version if there are any."""
    if not numbers:
        return state
    changed = next_version(state)
    for app in changed.applications:
        for spec in app.deployments:
            spec.options.num_replicas = numbers.get(DeploymentKey(app.name, spec.name), spec.options.num_replicas)
    return changed


def still_valid(desired: Desired, decisions: Mapping[DeploymentKey, tuple[int, int]]) -> dict[DeploymentKey, int]:
    """The new numbers of decisions, each a number before and after, but of deployments that were changed meanwhile."""
    return {
        key: after
        for key, (before, after) in decisions.items()
        if (target := desired.deployments.get(key)) and target.scaling and target.num_replicas == before
    }


def unlike_stored(desired: Desired, numbers: Numbers) -> dict[DeploymentKey, int]:
    """Those of `numbers` that differ from the stored state, of which `desired` is a reading."""
    targets = desired.deployments
    return {key: number for key, number in numbers.items() if number != targets[key].spec.options.num_replicas}
