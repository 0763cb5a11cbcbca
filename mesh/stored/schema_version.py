"""The version of the form in which the desired state is stored, and the step from older forms to the present one.

A new field needs no new version: older programs keep what they do not know. It is for what an older program would read
wrongly, or what has to be filled in.
"""

from __future__ import annotations

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
    present.schema_version = SCHEMA_VERSION
    return present
