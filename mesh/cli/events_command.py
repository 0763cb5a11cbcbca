"""`mesh events`: what the controller has decided, and why."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from mesh.cli.command_errors import ADDRESS_HELP, one_line_errors, require_ray
from mesh.client import mesh_lifecycle
from mesh.v1 import control_pb2

_POLL_S = 1.0
"""Pause between two requests for new events."""


@click.command()
@click.argument("app", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on with new events until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for programs.")
@click.option("--address", "-a", help=ADDRESS_HELP)
@one_line_errors
def events(app: str | None, follow: bool, as_json: bool, address: str | None) -> None:
    """Show what the controller has decided, with the reason of each decision.

    \b
    mesh events                      starts, stops, scaling, failures, changes of status
    mesh events shop                 only those that name the application
    mesh events shop --follow        goes on until Ctrl-C

    The oldest comes first; times are UTC, and "!" marks what went wrong. The last events are kept when the controller
    restarts. `mesh logs` shows what replicas and gateways say themselves.
    """
    require_ray(address)
    client = mesh_lifecycle.require()
    last = 0
    try:
        while True:
            found = client.events(after=last)
            last = max((event.number for event in found), default=last)
            shown = _show(found, app, as_json=as_json)
            if not follow:
                if app is not None and not shown:
                    click.echo(f"No event that is kept names {app!r}.", err=True)
                return
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        click.echo()


def _show(found: Sequence[control_pb2.Event], app: str | None, *, as_json: bool) -> int:
    """How many events were shown."""
    asked = [event for event in found if app is None or _names(event.text, app)]
    for event in asked:
        click.echo(json.dumps(_as_dict(event)) if as_json else _line(event))
    return len(asked)


def _names(text: str, app: str) -> bool:
    """The application, or one of its deployments or replicas."""
    return any(word.strip("'\":;,.") == app or word.startswith(f"{app}/") for word in text.split())


def _line(event: control_pb2.Event) -> str:
    at = datetime.fromtimestamp(event.unix_time_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{at} {'!' if event.is_warning else ' '} {event.text}"


def _as_dict(event: control_pb2.Event) -> dict[str, object]:
    return {"unix_time_s": event.unix_time_s, "is_warning": event.is_warning, "text": event.text}
