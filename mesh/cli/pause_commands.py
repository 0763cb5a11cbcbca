"""`mesh pause` and `mesh resume`: rollouts that stand still until someone has looked."""

from __future__ import annotations

import click

from mesh.cli.command_errors import ADDRESS_HELP, attached_status, one_line_errors, require_application
from mesh.client import mesh_lifecycle


@click.command()
@click.argument("name", metavar="APP")
@click.argument("deployment", default="")
@click.option("--address", help=ADDRESS_HELP)
@one_line_errors
def pause(name: str, deployment: str, address: str | None) -> None:
    """Stop the rollouts of an application where they are.

    \b
    mesh pause shop                  of all its deployments
    mesh pause shop Stock            of one

    No further replica of the new version starts, no old one stops for it, and no replica gets a new user_config. What
    serves goes on serving, the old version and the new one; replicas that die come back as they were, and `mesh scale`
    and autoscaling work. A deploy of a paused deployment is stored and waits. Nothing ends the pause but `mesh resume`;
    `mesh rollback` takes the rollout back meanwhile.
    """
    _set(name, deployment, address, is_paused=True)


@click.command()
@click.argument("name", metavar="APP")
@click.argument("deployment", default="")
@click.option("--address", help=ADDRESS_HELP)
@one_line_errors
def resume(name: str, deployment: str, address: str | None) -> None:
    """Let the rollouts of an application go on.

    \b
    mesh resume shop                 of all its deployments
    mesh resume shop Stock           of one

    See `mesh pause`. Returns at once; `mesh status --wait` waits until everything runs.
    """
    _set(name, deployment, address, is_paused=False)


def _set(name: str, deployment: str, address: str | None, *, is_paused: bool) -> None:
    require_application(attached_status(address), name)
    changes = mesh_lifecycle.require().pause(name, deployment, is_paused=is_paused)
    click.echo("\n".join(line for each in changes for line in each.lines) or "Nothing changes.")
