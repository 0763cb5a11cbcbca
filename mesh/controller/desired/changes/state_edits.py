"""Edits of the desired state: each leaves the state that it gets as it is, and returns the next version. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import grpc
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from google.protobuf.message import Message

from mesh.controller.desired.changes.invalid_change import InvalidChangeError
from mesh.options.option_checks import did_you_mean
from mesh.v1 import control_pb2

Edit = Callable[[control_pb2.DesiredState], control_pb2.DesiredState]
"""A change of the desired state: it returns another message, which its caller may change further."""

M = TypeVar("M", bound=Message)


def next_version(state: control_pb2.DesiredState) -> control_pb2.DesiredState:
    """A copy to be changed, with the number of the next version."""
    changed = same_version(state)
    changed.version += 1
    return changed


def same_version(state: control_pb2.DesiredState) -> control_pb2.DesiredState:
    """A copy, for an edit that has nothing to change."""
    copied = control_pb2.DesiredState()
    copied.CopyFrom(state)
    return copied


def keep_only(field: RepeatedCompositeFieldContainer[M], kept: Iterable[M]) -> None:
    """Let a repeated field have these messages, which may be some of its own."""
    messages = list(kept)
    del field[:]
    field.extend(messages)


def application_of(state: control_pb2.DesiredState, name: str) -> control_pb2.ApplicationSpec | None:
    """The wanted generation of that application."""
    return next((app for app in state.applications if app.name == name), None)


def ingress_of(application: control_pb2.ApplicationSpec) -> control_pb2.DeploymentSpec:
    """The spec of the ingress deployment."""
    named = (each for each in application.deployments if each.name == application.ingress)
    return next(named, control_pb2.DeploymentSpec())


def present_application(state: control_pb2.DesiredState, name: str) -> control_pb2.ApplicationSpec:
    """That application. Raises InvalidChangeError with the names of all if there is none of that name."""
    present = application_of(state, name)
    if present is None:
        names = [app.name for app in state.applications]
        raise InvalidChangeError(
            grpc.StatusCode.NOT_FOUND,
            f"There is no application {name!r}. There are: {', '.join(names) or 'none'}.{did_you_mean(name, names)}",
        )
    return present
