"""`mesh scale`, `mesh pause` and `mesh resume`: changes of running deployments."""

from __future__ import annotations

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
from mesh.options import option_checks


@click.command()
@click.argument("name", metavar="APP")
@click.argument("deployment")
@click.argument("num_replicas", metavar="[N]", required=False, type=click.IntRange(0, option_checks.REPLICAS_MAX))
@click.option(
    "--by", "change", type=int, metavar="CHANGE", help="Instead of N: this many more than there are, or fewer."
)
@click.option("--no-wait", is_flag=True, help="Return when it is stored, without waiting until they run.")
@click.option("--address", "-a", help=ADDRESS_HELP)
@one_line_errors
def scale(
    name: str, deployment: str, num_replicas: int | None, change: int | None, no_wait: bool, address: str | None
) -> None:
    """Run another number of replicas of a deployment.

    \b
    mesh scale shop Stock 5          and wait until they run
    mesh scale shop Stock --by 2     two more than there are; --by -2: two fewer

    It holds until the next deploy of the application, which brings back the num_replicas of its file or code: write it
    there too. Other replicas are not restarted, and those above the number finish their calls. A `target_capacity`
    applies to the number as to that of a file. Ctrl-C ends the command, not the change.

    A deployment that autoscales is refused, because its load would change the number again: deploy it with other
    min_replicas and max_replicas. With `external_scaler` in its autoscaling_config this command sets the number within
    these bounds, and deploys keep it; a scaler calls it with --no-wait.
    """
    if (num_replicas is None) == (change is None) or change == 0:
        raise ValueError("Give either the number of replicas, or a change of it other than 0 with --by.")
    revision = require_application(attached_status(address), name).revision
    client = mesh_lifecycle.require()
    # A change of the number is right whatever the number is.
    expected = {name: revision} if change is None else None
    changes = client.scale(name, deployment, num_replicas or 0, change or 0, expected=expected)
    click.echo("\n".join(line for each in changes for line in each.lines) or "Nothing changes.")
    if no_wait:
        return
    with interruptible_wait("It goes on; see `mesh status`."):
        rollout_wait.until_all_running(client, [name], status_text.Progress(click.echo))


@click.command()
@click.argument("name", metavar="APP")
@click.argument("deployment", default="")
@click.option("--address", "-a", help=ADDRESS_HELP)
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
@click.option("--address", "-a", help=ADDRESS_HELP)
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
    expected = {name: require_application(attached_status(address), name).revision}
    changes = mesh_lifecycle.require().pause(name, deployment, is_paused=is_paused, expected=expected)
    click.echo("\n".join(line for each in changes for line in each.lines) or "Nothing changes.")
