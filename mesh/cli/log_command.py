"""The command `mesh logs`, and the logs that `mesh run` shows."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from mesh.cli.command_errors import ADDRESS_HELP, one_line_errors, require_ray
from mesh.client.cluster_logs import ClusterLogs
from mesh.logs.log_files import LogName
from mesh.logs.log_records import LogQuery
from mesh.options import option_checks

_FOLLOW_POLL_S = 0.5
"""Pause between two readings of the log files."""
_LAST_LOGS_TIMEOUT_S = 2.0
"""How long the last lines of a program that ends may take to arrive."""


@click.command()
@click.argument("app", required=False)
@click.argument("deployment", required=False)
@click.option(
    "--replica", "replica_id", metavar="ID", default="", help="Only this replica; `mesh status` shows the ids."
)
@click.option("--request", "request_id", metavar="ID", default="", help="Only records of this request.")
@click.option("--follow", "-f", is_flag=True, help="Go on with new records until Ctrl-C.")
@click.option(
    "--last",
    "-n",
    "records_max",
    type=click.IntRange(1),
    default=1000,
    help="Only the latest records.",
    show_default=True,
)
@click.option("--address", "-a", help=ADDRESS_HELP)
@one_line_errors
def logs(app: str | None, deployment: str | None, follow: bool, address: str | None, **given: Any) -> None:
    """Show what replicas logged, printed and raised, on all nodes, also of replicas that are gone.

    \b
    mesh logs shop                       an application, and what the controller says about it
    mesh logs shop Pricer --follow       one deployment; goes on until Ctrl-C
    mesh logs shop --replica a1b2c3d4    one replica
    mesh logs --request 7f1c6a04-...     one request through all applications that it passed
    mesh logs                            everything, with the gateways and the controller

    The id of a request is in the trailing metadata `request_id` of each gRPC call. Records of all nodes are in the
    order of time. Files of replicas that are gone stay until their space is needed; those of nodes that are gone are
    lost.
    """
    require_ray(address)
    query = LogQuery(apps=(app,) if app else (), deployment=deployment or "", **given)
    reader = ClusterLogs(query)
    records = reader.read()
    _check_names(query, reader.names)
    _show(records)
    if not follow:
        if not records:
            raise ValueError(_nothing_found(query))
        return
    try:
        while True:
            time.sleep(_FOLLOW_POLL_S)
            _show(reader.read())
    except KeyboardInterrupt:
        click.echo()


@contextmanager
def shown_logs(apps: Sequence[str]) -> Iterator[None]:
    """Show what the replicas of these applications log and print, from now to the end of the block."""
    reader = ClusterLogs(LogQuery(apps=tuple(apps), is_console=True))
    reader.skip()
    is_over = threading.Event()

    def show() -> None:
        with contextlib.suppress(Exception):  # when Ray is gone, the command itself says so
            while not is_over.wait(_FOLLOW_POLL_S):
                _show(reader.read())
            _show(reader.read(sees_new_nodes=False))

    thread = threading.Thread(target=show, name="mesh-logs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(_LAST_LOGS_TIMEOUT_S)


def _show(records: Iterable[str]) -> None:
    for record in records:
        click.echo(record)


def _check_names(query: LogQuery, names: Iterable[LogName]) -> None:
    """Raises ValueError for a name that no log file has."""
    of_apps = [name for name in names if name.app]
    for app in query.apps:
        _check_known("application", app, {name.app for name in of_apps})
        of_apps = [name for name in of_apps if name.app == app]
    if query.deployment:
        _check_known("deployment", query.deployment, {name.deployment for name in of_apps})
        of_apps = [name for name in of_apps if name.deployment == query.deployment]
    if query.replica_id:
        _check_known("replica", query.replica_id, {name.process_id for name in of_apps if name.process_id})


def _check_known(kind: str, name: str, known: set[str]) -> None:
    if name not in known:
        advice = option_checks.did_you_mean(name, known)
        there = ", ".join(sorted(known)) or "none"
        raise ValueError(f"There are no logs of {kind} {name!r}. There are logs of: {there}.{advice}")


def _nothing_found(query: LogQuery) -> str:
    if query.request_id:
        return (
            f"No record of request {query.request_id!r}. The calls of a request that log nothing leave none, unless "
            "they fail."
        )
    return "No records yet."
