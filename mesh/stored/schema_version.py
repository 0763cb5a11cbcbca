"""The version of the form in which the desired state is stored, and the step from older forms to the present one.

A new field needs no new version: older programs keep what they do not know. It is for what an older program would read
wrongly. What can be filled in wherever it is missing, such as the order in which applications serve methods, needs none
either: so the version before can take its state back.
"""

from __future__ import annotations

from collections.abc import Iterator

from mesh.v1 import control_pb2

SCHEMA_VERSION = 1
"""0: states from before there was a version. 1: applications have revisions."""


class NewerSchemaError(ValueError):
    """The data was stored by a newer mesh; this one would lose fields that it does not know."""

    def __init__(self, what: str, version: int) -> None:
        super().__init__(
            f"{what} was written by a newer version of the mesh: its form is {version}, and this version reads forms "
            f"up to {SCHEMA_VERSION}. Use the version that wrote it, or a newer one."
        )


def check_schema(what: str, version: int) -> None:
    """Raises NewerSchemaError, which names `what`."""
    if version > SCHEMA_VERSION:
        raise NewerSchemaError(what, version)


def migrated(state: control_pb2.DesiredState, what: str) -> control_pb2.DesiredState:
    """`state`, stored by this version or an older one, in the present form. Raises NewerSchemaError."""
    check_schema(what, state.schema_version)
    present = control_pb2.DesiredState()
    present.CopyFrom(state)
    if present.schema_version < 1:
        for app in present.applications:
            app.revision = app.revision or present.version
    _fill_serving_order(present)
    present.schema_version = SCHEMA_VERSION
    return present


def _fill_serving_order(state: control_pb2.DesiredState) -> None:
    """Methods that have no place yet come last, in the order of the first deploys that are known of applications."""
    known_since_s = {app.name: app.last_deployed_time_s for app in state.applications}
    for record in state.history:
        known_since_s[record.application] = min(
            record.unix_time_s, known_since_s.get(record.application, record.unix_time_s)
        )
    places = {each: method.serving_order for each, method in _ingress_methods(state) if method.serving_order}
    last = max(places.values(), default=0)
    for each in sorted((each for each, _ in _ingress_methods(state)), key=lambda each: known_since_s.get(each[0], 0.0)):
        if each not in places:
            places[each] = last = last + 1
    for each, method in _ingress_methods(state):
        method.serving_order = places[each]


def _ingress_methods(
    state: control_pb2.DesiredState,
) -> Iterator[tuple[tuple[str, str], control_pb2.GrpcMethod]]:
    """Each with the names of its application and of itself; those of the wanted versions first."""
    for app in (*state.applications, *state.predecessors):
        for deployment in app.deployments:
            if deployment.name == app.ingress:
                yield from (((app.name, method.full_name), method) for method in deployment.grpc_methods)
