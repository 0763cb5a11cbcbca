"""`mesh backup` and `mesh restore`: all applications in one file, and back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import click

from mesh.cli import status_text
from mesh.cli.command_errors import ADDRESS_HELP, interruptible_wait, one_line_errors, require_ray
from mesh.client import mesh_lifecycle, port_check, rollout_wait
from mesh.client.control_client import ControlClient, revisions_of
from mesh.options.gateway import gateway_options
from mesh.stored.backup_file import from_file, to_file
from mesh.v1 import control_pb2

_NODE_ID_SHOWN = 8
_CONTENT = (
    "It contains the code, bound arguments, user_config and environment variables of all applications, with the secrets"
    " in them, and no token, key or certificate of the mesh."
)


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--address", "-a", help=ADDRESS_HELP)
@one_line_errors
def backup(file: str, address: str | None) -> None:
    """Write all applications of the mesh to a file, from which `mesh restore` brings them back.

    \b
    mesh backup shop.backup

    The file has what the mesh has stored: code, options and history of each application, its version before, and its
    canary. Only you may read it, because it contains whatever secrets are in code, bound arguments, user_config and
    environment variables; it has no token, key or certificate of the mesh. Packages and files that a runtime_env names
    are not in it. A file that exists is not overwritten.
    """
    if os.path.exists(file):
        raise ValueError(f"{file} exists. Choose another file.")
    require_ray(address)
    saved = mesh_lifecycle.require().backup()
    data = to_file(saved)
    _write(file, data)
    names = ", ".join(app.name for app in saved.state.applications) or "no application"
    click.echo(f"Wrote {file}: {names}, {len(data):,} bytes. Only you may read it.\n{_CONTENT}")
    for line in sorted(set(_outside(saved.state))):
        click.echo(f"Not in the file: {line}")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--replace", is_flag=True, help="Also replace applications that run and differ from those in the file.")
@click.option("--no-wait", is_flag=True, help="Return when it is stored, without waiting until it runs.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--address", "-a", help=ADDRESS_HELP)
@one_line_errors
def restore(file: str, replace: bool, no_wait: bool, dry_run: bool, address: str | None) -> None:
    """Deploy all applications of a file that `mesh backup` wrote.

    \b
    mesh restore shop.backup                and wait until they run
    mesh restore shop.backup --dry-run      only shows what would change
    mesh restore shop.backup --replace      also replaces applications that run

    All are stored, or none is. Applications that run and are not in the file stay. Those that are in it and differ are
    refused without --replace; with it they are updated as by a deploy, without a gap. The mesh is started, with the
    gateways of the file, if the cluster has none.
    """
    saved = from_file(Path(file).read_bytes(), file)
    names = [app.name for app in saved.state.applications]
    require_ray(address)
    client = mesh_lifecycle.find()
    if client is None and dry_run:
        click.echo(f"No mesh is running. It would be started with {', '.join(names) or 'no application'}.")
        return
    expected: dict[str, int] = {}
    if client is None:
        client = _start(saved)
    else:
        present = client.status()
        expected = revisions_of(present)
        _show_other_gateways(saved, present)
    changes = client.restore(saved, may_replace=replace, is_dry_run=dry_run, expected=expected)
    lines = [line for each in changes for line in each.lines]
    click.echo("\n".join(lines) or ("Nothing would change." if dry_run else "Nothing changes."))
    if saved.state.cordons:
        nodes = ", ".join(each.node_id[:_NODE_ID_SHOWN] for each in saved.state.cordons)
        click.echo(f"Cordons are not restored. When the file was written there were some of: {nodes}.")
    if dry_run:
        return
    if no_wait:
        click.echo(f"Stored: {', '.join(names) or 'no application'}.")
        return
    with interruptible_wait("It goes on; see `mesh status`."):
        rollout_wait.until_all_running(client, names, status_text.Progress(click.echo))


def _write(path: str, data: bytes) -> None:
    """In one step, so that no part of a backup is ever taken for a whole one."""
    part = f"{path}.part"
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        os.fchmod(file.fileno(), 0o600)  # one that was left by an interrupted command may have another mode
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _start(saved: control_pb2.MeshBackup) -> ControlClient:
    click.echo("Starting the mesh ...")
    port_check.require_free(saved.state.gateways)
    client = mesh_lifecycle.start(saved.state.gateways, saved.servicer_functions)
    rollout_wait.until_gateways_healthy(client)
    return client


def _show_other_gateways(saved: control_pb2.MeshBackup, present: control_pb2.StatusReply) -> None:
    differing = gateway_options.differing_fields(saved.state.gateways, present.gateway_options)
    if differing:
        click.echo(f"The gateways go on with their own options, which differ in {', '.join(differing)}.")


def _outside(state: control_pb2.DesiredState) -> Iterator[str]:
    """What applications need that only this cluster has: packages that Ray keeps, and files of its nodes."""
    for app in state.applications:
        for spec in app.deployments:
            env = json.loads(spec.options.actor.runtime_env_json or "{}")
            packages = [env.get("working_dir"), *(env.get("py_modules") or ())]
            for package in packages:
                if isinstance(package, str) and (package.startswith("gcs://") or "://" not in package):
                    yield f"{package}, which {app.name}/{spec.name} runs in. Deploy it again where that is gone."
