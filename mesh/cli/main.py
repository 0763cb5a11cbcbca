"""The `mesh` command and its sub-commands start, status, delete and shutdown."""

from __future__ import annotations

import json
import logging
import signal
import sys
from typing import Any

import click

from mesh import api
from mesh.cli import status_text
from mesh.cli.backup_commands import backup, restore
from mesh.cli.cert_command import certs, token
from mesh.cli.command_errors import (
    ADDRESS_HELP,
    attached_status,
    interruptible_wait,
    one_line_errors,
    require_application,
    require_ray,
)
from mesh.cli.config_commands import build, config, deploy
from mesh.cli.deployment_commands import pause, resume, scale
from mesh.cli.diff_command import diff
from mesh.cli.events_command import events
from mesh.cli.gateway_flags import GRPC_PORT_HELP, HTTP_PORT_HELP, LOCATION, LOCATION_HELP, PORT, port_option
from mesh.cli.history_commands import history, promote, rollback
from mesh.cli.log_command import logs
from mesh.cli.node_commands import cordon, drain, nodes, uncordon
from mesh.cli.run_command import run
from mesh.client import mesh_lifecycle, rollout_wait
from mesh.options import option_checks
from mesh.status import ApplicationStatus, GatewayStatus
from mesh.v1 import control_pb2

_WAIT_S = 600.0
"""How long `--wait` without a number waits."""
_FAILED = (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="raymesh")
@click.option("--verbose", "-v", is_flag=True, help="Show log messages below warnings, and tracebacks of errors.")
def main(verbose: bool) -> None:
    """Run and operate Python microservices on a Ray cluster.

    \b
    mesh run shop.app:app         run the application `app` of shop/app.py until Ctrl-C
    mesh deploy mesh.yaml         deploy all applications of the file, and return
    mesh build shop.app:app       write such a file from code
    mesh status                   what runs and where, and why something does not run
    mesh rollback shop            go back to the version before, or end a canary
    mesh promote shop             give a canary all requests
    mesh logs shop                what its replicas logged, printed and raised
    mesh drain 10.0.0.4           move the replicas of a node, so that it can be switched off
    """
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(message)s")


def command() -> None:
    """The program `mesh`. At its end Ctrl-C is ignored, because it would make Ray print a traceback."""
    try:
        main()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


for _command in (
    backup, build, certs, config, cordon, deploy, diff, drain, events, history, logs, nodes, pause, promote, restore,
    resume, rollback, run, scale, token, uncordon,
):  # fmt: skip
    main.add_command(_command)


@main.command()
@click.option("--grpc-port", type=PORT, help=GRPC_PORT_HELP)
@click.option("--http-host", help="Interface for HTTP.  [default: localhost]")
@click.option("--http-port", type=PORT, help=HTTP_PORT_HELP)
@click.option("--proxy-location", type=LOCATION, help=LOCATION_HELP)
@click.option(
    "--grpc-servicer-functions",
    multiple=True,
    metavar="MODULE:FUNCTION",
    help="An add_XServicer_to_server whose methods every ingress serves if it has them. May be repeated.",
)
@click.option(
    "--grpc-enable-reflection/--grpc-disable-reflection",
    default=True,
    help="Whether clients without a .proto may list and call the services of all applications.  [default: enable]",
)
@click.option("--address", "-a", help=ADDRESS_HELP)
@one_line_errors
def start(
    grpc_port: int | str | None,
    http_host: str | None,
    http_port: int | str | None,
    proxy_location: str | None,
    grpc_servicer_functions: tuple[str, ...],
    grpc_enable_reflection: bool,
    address: str | None,
) -> None:
    """Start the mesh on a running cluster, without applications.

    \b
    mesh start --grpc-port 9100 --http-host 0.0.0.0
    mesh start --proxy-location HeadOnly

    Needed only to choose ports and gateways in advance: `mesh deploy` and `mesh run` start the mesh if necessary. A
    running mesh is not changed.
    """
    require_ray(address)
    http = {**({} if http_host is None else {"host": http_host}), **port_option(http_port)}
    grpc = {**port_option(grpc_port), "enable_reflection": grpc_enable_reflection}
    if grpc_servicer_functions:
        grpc["grpc_servicer_functions"] = list(grpc_servicer_functions)
    api.start(proxy_location, http, grpc)
    for line in status_text.listening_lines(mesh_lifecycle.require().status()):
        click.echo(line)


class _Seconds(click.FloatRange):
    """Of `--wait`, which may come without them: the next word is taken for them, also if it is an application."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            float(value)
        except ValueError:
            text = f"{value!r} is not a number of seconds. Name the application first: `mesh status {value} --wait`."
            self.fail(text, param, ctx)
        return super().convert(value, param, ctx)


@main.command()
@click.argument("app", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of text for people.")
@click.option("--name", help="The same as APP.")
@click.option("--replicas", "with_replicas", is_flag=True, help="List every replica, and the last deaths.")
@click.option(
    "--wait",
    "wait_s",
    type=_Seconds(min=0),
    is_flag=False,
    flag_value=_WAIT_S,
    metavar="[SECONDS]",
    help=f"Wait until everything runs, or something has failed for good, but not longer.  [{_WAIT_S:.0f}]",
)
@click.option("--address", "-a", help=ADDRESS_HELP)
@one_line_errors
def status(app: str | None, as_json: bool, with_replicas: bool, wait_s: float | None, **given: str | None) -> None:
    """Show applications, their replicas and the gateways.

    \b
    mesh status                      everything in one table, with the reasons why something does not run
    mesh status shop                 one application, with the tracebacks of failures
    mesh status --replicas           every replica, and the last five deaths of each deployment
    mesh status --json               for programs: always all keys, null for unset values
    mesh status --wait 60            for scripts: waits until everything runs

    Of a deployment with more than eight replicas the table lists eight, first those that do not run; --replicas and
    --json have all.

    The exit status is 1 if something has failed: an application is DEPLOY_FAILED or UNHEALTHY, or a gateway is
    UNHEALTHY. With --wait it is also 1 if not everything runs when the time is over.
    """
    option_checks.seconds("--wait", wait_s)
    name = app or given["name"]
    if given["name"] not in (None, name):
        raise ValueError(f"APP is {app!r} and --name is {given['name']!r}: name one application.")
    reply = attached_status(given["address"])
    is_in_time = True
    if name is not None:
        reply = _only(reply, name)
    if wait_s is not None:
        client = mesh_lifecycle.require()
        is_in_time = rollout_wait.until_settled(client, name, wait_s)
        reply = client.status() if name is None else _only(client.status(), name)
    if as_json:
        click.echo(json.dumps(status_text.as_dict(reply), indent=2))
    else:
        click.echo(status_text.as_text(reply, with_replicas=with_replicas))
        if name is not None and (failures := status_text.failures_in_full(reply)):
            click.echo(failures)
    if not is_in_time:
        click.echo(f"Not everything runs after {wait_s:g} s.", err=True)
    if not is_in_time or _has_failed(reply):
        sys.exit(1)


def _has_failed(reply: control_pb2.StatusReply) -> bool:
    return any(each.status in _FAILED for each in reply.applications) or any(
        each.status == GatewayStatus.UNHEALTHY for each in reply.gateways
    )


def _only(reply: control_pb2.StatusReply, name: str) -> control_pb2.StatusReply:
    """The status of one application only. Raises ValueError with the names of all if there is none of that name."""
    found = [require_application(reply, name)]
    part = control_pb2.StatusReply()
    part.CopyFrom(reply)
    del part.applications[:]
    part.applications.extend(found)
    return part


@main.command()
@click.argument("name")
@click.option("--address", "-a", help=ADDRESS_HELP)
@one_line_errors
def delete(name: str, address: str | None) -> None:
    """Delete one application.

    \b
    mesh delete shop

    Returns when its replicas are gone. Running calls get graceful_shutdown_timeout_s to end. Deploying a configuration
    file again brings its applications back: remove the application from the file too.
    """
    status = attached_status(address)
    revisions = {each.name: each.revision for each in _only(status, name).applications}
    client = mesh_lifecycle.require()
    client.delete(name, expected=revisions)
    with interruptible_wait("The deletion continues; see `mesh status`."):
        rollout_wait.until_deleted(client, name)
    click.echo(f"Deleted {name}.")


@main.command()
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--address", "-a", help=ADDRESS_HELP)
@one_line_errors
def shutdown(yes: bool, address: str | None) -> None:
    """Delete everything the mesh runs on the cluster.

    \b
    mesh shutdown                    asks first
    mesh shutdown --yes              does not ask

    What was deployed while it asked is not deleted: then it changes nothing and says so. Gateways stop first, then
    applications, each starting with its ingress. Ray itself keeps running.
    """
    require_ray(address)
    if mesh := mesh_lifecycle.leftover():
        if not yes:
            click.confirm("This deletes what is left of a mesh that has no controller. Continue?", abort=True)
        mesh_lifecycle.destroy_leftover(mesh)
        click.echo("The mesh is shut down.")
        return
    client = mesh_lifecycle.require()
    seen = None if yes else mesh_lifecycle.look(client)
    if seen is not None:
        names = ", ".join(application.name for application in seen.status.applications)
        click.confirm(f"This deletes {names or 'no application'} and the gateways. Continue?", abort=True)
    with interruptible_wait("Applications and gateways still end; `mesh shutdown` again removes what is left then."):
        mesh_lifecycle.destroy(client, seen)
    click.echo("The mesh is shut down.")
