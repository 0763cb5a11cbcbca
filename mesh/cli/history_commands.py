"""The commands around earlier deploys: what was deployed when and by whom, and the way back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from mesh.cli import status_text
from mesh.cli.command_errors import (
    ADDRESS_HELP,
    attached_status,
    interruptible_wait,
    one_line_errors,
    require_application,
)
from mesh.client import mesh_lifecycle, rollout_wait
from mesh.v1 import control_pb2

_DEPLOYERS = {
    control_pb2.DEPLOYER_PROGRAM: "program",
    control_pb2.DEPLOYER_FILE: "file",
    control_pb2.DEPLOYER_RUN: "mesh run",
}


@click.command()
@click.argument("name", metavar="APP")
@click.option("--no-wait", is_flag=True, help="Return when it is stored, without waiting until it runs.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--address", "-a", help=ADDRESS_HELP)
@one_line_errors
def rollback(name: str, no_wait: bool, dry_run: bool, address: str | None) -> None:
    """Go back to the version of an application before this one, or end its canary.

    \b
    mesh rollback shop               deploys it again, and waits until it runs
    mesh rollback shop --dry-run     only shows what would change

    The version before is the last one of which all replicas served at once. The mesh has stored it with its code, so
    nothing is needed on this machine. While a new version is being rolled out, or has failed, that is the one that
    still serves; otherwise the one that it replaced. It replaces the present one like any new version, without a gap.

    An application that has a canary loses that, and nothing else changes.

    A second rollback goes forward again, if the version that was left had served. The configuration file is not
    changed: correct it before the next `mesh deploy`, which would bring back what it says.
    """
    revision = require_application(attached_status(address), name).revision
    changes = mesh_lifecycle.require().rollback(name, is_dry_run=dry_run, expected={name: revision})
    _finish(name, changes, no_wait=no_wait, dry_run=dry_run)


@click.command()
@click.argument("name", metavar="APP")
@click.option("--no-wait", is_flag=True, help="Return when it is stored, without waiting until it runs.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--address", "-a", help=ADDRESS_HELP)
@one_line_errors
def promote(name: str, no_wait: bool, dry_run: bool, address: str | None) -> None:
    """Give the canary of an application all its requests.

    \b
    mesh promote shop                and wait until it runs
    mesh promote shop --dry-run      only shows what would change

    It replaces the version beside it like any new version, without a gap: its replicas stay, others start, and the
    version that was beside it stops as they serve. `mesh rollback` goes back to that; before a promotion it ends the
    canary. A configuration file is not changed: take the traffic options out of it before the next `mesh deploy`.
    """
    revision = require_application(attached_status(address), name).revision
    changes = mesh_lifecycle.require().promote(name, is_dry_run=dry_run, expected={name: revision})
    _finish(name, changes, no_wait=no_wait, dry_run=dry_run)


@click.command()
@click.argument("name", metavar="APP")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of text for people.")
@click.option("--address", "-a", help=ADDRESS_HELP)
@one_line_errors
def history(name: str, as_json: bool, address: str | None) -> None:
    """Show the last ten deploys of an application: when, by whom, and what changed.

    \b
    mesh history shop
    mesh history shop --json         for programs

    The newest comes first; times are UTC. A deploy that changed nothing is not listed. The history goes with the
    application when that is deleted.
    """
    require_application(attached_status(address), name)
    reply = mesh_lifecycle.require().history(name)
    click.echo(json.dumps(_as_dict(reply), indent=2) if as_json else "\n".join(_lines(name, reply)))


def _finish(name: str, changes: Sequence[control_pb2.ApplicationChange], *, no_wait: bool, dry_run: bool) -> None:
    """Show what changes, and wait until it is so."""
    click.echo("\n".join(line for each in changes for line in each.lines) or "Nothing changes.")
    if dry_run:
        return
    if no_wait:
        click.echo(f"Stored: {name}.")
        return
    with interruptible_wait("It continues; see `mesh status`."):
        rollout_wait.until_all_running(mesh_lifecycle.require(), [name], status_text.Progress(click.echo))


def _lines(name: str, reply: control_pb2.HistoryReply) -> Iterator[str]:
    for record in reply.records:
        yield f"{_time(record.unix_time_s)}  {_how(record)}  {record.author or 'unknown'}"
        if record.rolled_back_because:
            yield f"    because {record.rolled_back_because}"
        yield from (f"    {line}" for line in record.lines)
    if reply.HasField("rollback_unix_time_s"):
        yield f"`mesh rollback {name}` goes back to the version deployed at {_time(reply.rollback_unix_time_s)}."
    else:
        yield "No version has served before this one: there is nothing to go back to."


def _as_dict(reply: control_pb2.HistoryReply) -> dict[str, Any]:
    return {
        "deploys": [
            {
                "unix_time_s": record.unix_time_s,
                "author": record.author or None,
                "how": _how(record),
                "changes": list(record.lines),
                "rolled_back_because": record.rolled_back_because or None,
            }
            for record in reply.records
        ],
        "rollback_unix_time_s": reply.rollback_unix_time_s if reply.HasField("rollback_unix_time_s") else None,
    }


def _how(record: control_pb2.DeployRecord) -> str:
    if record.is_scaling:
        return "scale"
    if record.is_restore:
        return "restore"
    return "rollback" if record.is_rollback else _DEPLOYERS[record.deployer]


def _time(unix_time_s: float) -> str:
    return datetime.fromtimestamp(unix_time_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
