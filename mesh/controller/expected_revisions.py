"""The refusal of a change that was computed from an earlier revision of an application than the present one. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import grpc

from mesh.controller.desired.changes.change_text import changes_by_application
from mesh.controller.desired.changes.deploy_history import records_of
from mesh.controller.desired.changes.invalid_change import InvalidChangeError
from mesh.controller.desired.changes.state_edits import Edit
from mesh.v1 import control_pb2


def expecting(edit: Edit, expected: control_pb2.ExpectedRevisions | None) -> Edit:
    """The edit, with a check: it raises InvalidChangeError with ABORTED if it would change an application that has been
    changed since its author read it. `expected` has the revisions that were read; None: no check."""
    if expected is None:
        return edit
    revisions = dict(expected.revisions)

    def edited(state: control_pb2.DesiredState) -> control_pb2.DesiredState:
        changed = edit(state)
        _check(state, changed, revisions)
        return changed

    return edited


def revisions_of(state: control_pb2.DesiredState) -> dict[str, int]:
    """By application."""
    return {app.name: app.revision for app in state.applications}


def _check(before: control_pb2.DesiredState, after: control_pb2.DesiredState, expected: Mapping[str, int]) -> None:
    present = revisions_of(before)
    for name, lines in changes_by_application(before, after).items():
        if lines and present.get(name, 0) != expected.get(name, 0):
            raise InvalidChangeError(
                grpc.StatusCode.ABORTED, _conflict(before, name, present.get(name, 0), expected.get(name, 0))
            )


def _conflict(state: control_pb2.DesiredState, name: str, present: int, expected: int) -> str:
    if not present:
        what = "was deleted (`mesh events` says by whom)"
    else:
        last = next((record for record in records_of(state, name) if record.revision == present), None)
        by = f" by {last.author or 'a program without a name'} at {_time(last.unix_time_s)}" if last else ""
        what = f"was changed{by}{f' ({last.lines[0]})' if last and last.lines else ''}"
    numbers = f"its revision is {present or 'none'} now, and it was {expected or 'none'}"
    return (
        f"Application {name!r} {what} after this change was computed: {numbers}. Nothing is changed. See `mesh history"
        f" {name}` and `mesh diff`, then make the change again if it is still right."
    )


def _time(unix_time_s: float) -> str:
    return datetime.fromtimestamp(unix_time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
