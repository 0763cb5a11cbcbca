"""`mesh nodes`, `mesh cordon`, `mesh uncordon` and `mesh drain`: which nodes get replicas, and how one becomes free."""

from __future__ import annotations

import json

import click

from mesh.cli import status_text
from mesh.cli.command_errors import ADDRESS_HELP, attached_status, interruptible_wait, one_line_errors, require_ray
from mesh.client import mesh_lifecycle
from mesh.client.drain_wait import NotDrainedError, progress_text, until_drained
from mesh.options import option_checks
from mesh.status import NodeStatus
from mesh.v1 import control_pb2


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of text for people.")
@click.option("--address", "-a", help=ADDRESS_HELP)
@one_line_errors
def nodes(as_json: bool, address: str | None) -> None:
    """Show the nodes of the cluster, and which of them take new replicas.

    \b
    mesh nodes
    mesh nodes --json                for programs

    CORDONED and DRAINED nodes take no new replicas, DRAINING ones lose those that they have, and LEAVING ones are
    drained by Ray and end after that.
    """
    reply = attached_status(address)
    if as_json:
        click.echo(json.dumps([status_text.as_dict(each) for each in reply.nodes], indent=2))
    else:
        click.echo(status_text.nodes_as_text(reply))


@click.command()
@click.argument("node")
@click.option("--address", "-a", help=ADDRESS_HELP)
@one_line_errors
def cordon(node: str, address: str | None) -> None:
    """Start no new replica on a node.

    \b
    mesh cordon 3f2a91bc             by four or more characters of its id: see `mesh nodes`
    mesh cordon 10.0.0.4             by its address

    Its replicas and its gateway stay and serve; when such a replica ends, another one starts on another node. It holds
    until `mesh uncordon`, also over restarts of the controller. A node that joins the cluster again is another one.
    """
    require_ray(address)
    reply = mesh_lifecycle.require().cordon(node)
    if not reply.is_new:
        click.echo(f"Nothing changes: {_title(reply.node)} is {reply.node.status}.")
        return
    click.echo(f"{_title(reply.node)} takes no new replicas. It has {status_text.replicas_text(reply.node.replicas)}.")


@click.command()
@click.argument("node")
@click.option("--address", "-a", help=ADDRESS_HELP)
@one_line_errors
def uncordon(node: str, address: str | None) -> None:
    """Let a node get replicas again: takes back `mesh cordon` and `mesh drain`.

    \b
    mesh uncordon 3f2a91bc           by its id, the beginning of it, or its address

    Replicas that have moved away do not come back by themselves; those that have not moved yet stay.
    """
    require_ray(address)
    reply = mesh_lifecycle.require().uncordon(node)
    if not reply.is_new:
        click.echo(f"Nothing changes: {_title(reply.node)} is not cordoned.")
        return
    click.echo(f"{_title(reply.node)} takes new replicas again.")


@click.command()
@click.argument("node")
@click.option("--no-wait", is_flag=True, help="Return when it is stored, without waiting until all have moved.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How long to wait at most.  [default: as long as it takes]",
)
@click.option("--address", "-a", help=ADDRESS_HELP)
@one_line_errors
def drain(node: str, no_wait: bool, timeout_s: float | None, address: str | None) -> None:
    """Move the replicas of a node to other nodes, so that it can be switched off.

    \b
    mesh drain 3f2a91bc              by its id, the beginning of it, or its address
    mesh drain 3f2a91bc --timeout 300

    The node takes no new replicas. Of each deployment as many others start at a time as max_surge_percent allows, at
    least one, and a replica ends its calls and stops only when another one serves in its place. Then the gateway of the
    node sends its clients away. No request fails. On the head only the replicas move: the cluster ends with it.

    The exit status is 1 when no other node has room, with the reason, when the time is over, or when the drain was
    called off. It goes on meanwhile, also after Ctrl-C; `mesh uncordon` ends it.
    """
    option_checks.seconds("--timeout", timeout_s)
    require_ray(address)
    client = mesh_lifecycle.require()
    status = client.cordon(node, is_draining=True).node
    short_id = status.node_id[:8]
    click.echo(f"{_title(status)} is being drained. It has {status_text.replicas_text(status.replicas)}.")
    if no_wait:
        return
    try:
        with interruptible_wait(f"It goes on; see `mesh nodes`. `mesh uncordon {short_id}` ends it."):
            until_drained(client, status.node_id, _Progress(), timeout_s)
    except NotDrainedError as error:
        raise RuntimeError(f"{error}\nThe drain goes on by itself; `mesh uncordon {short_id}` ends it.") from error
    rest = " Its gateway and the controller stay, because the cluster ends with its head." if status.is_head else ""
    click.echo(f"Node {short_id} is drained.{rest}")


class _Progress:
    """Shows each step of a drain once."""

    def __init__(self) -> None:
        self._shown = ""

    def __call__(self, status: control_pb2.NodeStatus) -> None:
        line = f"  {progress_text(status)}"
        if status.message:
            line += f"; {status.message}"
        elif status.status == NodeStatus.DRAINING and not status.replicas:
            line += "; its gateway sends its clients away"
        if line != self._shown:
            click.echo(line)
        self._shown = line


def _title(status: control_pb2.NodeStatus) -> str:
    where = f" ({status.address})" if status.address else ""
    return f"Node {status.node_id[:8]}{where}"
