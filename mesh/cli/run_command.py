"""The command `mesh run`: it deploys applications, serves them until Ctrl-C, and deletes what it deployed."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import uuid
from dataclasses import dataclass
from typing import Any

import click

from mesh import api
from mesh.cli.command_errors import ADDRESS_HELP, INTERRUPTED, one_line_errors
from mesh.cli.config_commands import follow, start_mesh
from mesh.cli.gateway_flags import GRPC_PORT_HELP, HTTP_PORT_HELP, LOCATION, LOCATION_HELP, PORT
from mesh.cli.log_command import shown_logs
from mesh.cli.run_target import Target, read_target, target_options
from mesh.client import mesh_lifecycle, rollout_wait
from mesh.client.control_client import ControlClient
from mesh.client.ray_guard import RayGuard
from mesh.cluster import ray_core, ray_watch
from mesh.exceptions import ControllerUnavailableError
from mesh.status import ApplicationStatus
from mesh.v1 import control_pb2

_POLL_S = 1.0


@click.command()
@target_options
@click.option("--grpc-port", type=PORT, help=GRPC_PORT_HELP)
@click.option("--http-port", type=PORT, help=HTTP_PORT_HELP)
@click.option("--proxy-location", type=LOCATION, help=LOCATION_HELP)
@click.option("--replace", is_flag=True, help="Replace running applications that something else deployed.")
@click.option("--address", help=f"{ADDRESS_HELP} If there is none, one is started for as long as this command runs.")
@one_line_errors
def run(target: str, pairs: tuple[str, ...], app_dir: str, replace: bool, address: str | None, **given: Any) -> None:
    """Deploy applications and keep them running until Ctrl-C.

    \b
    mesh run shop.app:app               `app = Front.bind(Stock.bind())` in shop/app.py
    mesh run shop.app:build size=3      the application that `build` returns for these arguments
    mesh run mesh.yaml                  all applications of a configuration file

    What replicas log, print and raise is shown; see also `mesh logs`.

    At the end the applications are deleted, unless another client has deployed them again. The mesh is shut down if
    this command started it and no other application runs. An application of the same name that something else
    deployed is not replaced without --replace.
    """
    asked = read_target(target, pairs, app_dir, given)
    if not asked.names:
        raise ValueError(f"{target} has no application: there is nothing to run.")
    _end_as_on_ctrl_c()
    if not ray_core.attach_ray(address):
        click.echo("Starting Ray ...")
        ray_core.ensure_ray()
    _end_as_on_ctrl_c()  # again, because Ray installed a handler that prints a stack trace
    starts_mesh = mesh_lifecycle.find() is None
    serving = _Serving(asked, _new_run_id(), replace, starts_ray=ray_watch.owns_ray(), starts_mesh=starts_mesh)
    try:
        with RayGuard() as guard, shown_logs(asked.names):
            serving.run(given, guard)
    except KeyboardInterrupt:
        click.echo(f"\n{serving.interrupted_text}", err=True)
        sys.exit(INTERRUPTED)


@dataclass(frozen=True, slots=True)
class _Serving:
    """What one `mesh run` serves, and what it has started and so must end."""

    asked: Target
    run_id: str
    may_replace: bool
    starts_ray: bool
    starts_mesh: bool

    def run(self, given: dict[str, Any], guard: RayGuard) -> None:
        """Serve until Ctrl-C, then clean up. Raises KeyboardInterrupt if another Ctrl-C interrupts that."""
        try:
            self._deploy(given)
            click.echo("Running; Ctrl-C ends it.")
            while self._is_there():
                _pause()
            click.echo(f"Deleted or replaced by another client: {', '.join(self.asked.names)}.")
        except KeyboardInterrupt:
            guard.expect_end()
            click.echo()  # behind the terminal's ^C
        finally:
            click.echo("Stopping ...")
            self._clean_up()

    @property
    def interrupted_text(self) -> str:
        if self.starts_ray:
            return "Interrupted. Ray, which this command started, ends with it, and so does everything that runs on it."
        return "Interrupted. `mesh status` shows what is left, `mesh shutdown` stops it."

    def _deploy(self, given: dict[str, Any]) -> None:
        start_mesh(self.asked, **given)
        client = mesh_lifecycle.require()
        if not self.starts_mesh:
            _check_capacity(self.asked.config.target_capacity, client.status())
        client.apply(
            self.asked.specs(),
            target_capacity=self.asked.config.target_capacity,
            run_id=self.run_id,
            may_replace=self.may_replace,
        )
        follow(self.asked)

    def _is_there(self) -> bool:
        """Whether an application of this run is left; True during a shutdown, which must not be disturbed."""
        client = mesh_lifecycle.find()
        if client is None:
            return False
        try:
            reply = client.status()
        except ControllerUnavailableError:  # replicas and gateways keep serving
            return True
        return reply.is_shutting_down or any(self._is_own(each) for each in reply.applications)

    def _is_own(self, application: control_pb2.ApplicationStatus) -> bool:
        return application.run_id == self.run_id and application.status != ApplicationStatus.DELETING

    def _clean_up(self) -> None:
        client = mesh_lifecycle.find()
        if client is None:
            return
        others = self._others(client) if self.starts_mesh else []
        if self.starts_mesh and (self.starts_ray or not others):
            if others:
                click.echo(f"This also ends {', '.join(others)}, because this command started Ray.")
            api.shutdown()
            return
        for name in self.asked.names:
            client.delete(name, self.run_id)
        for name in self.asked.names:
            rollout_wait.until_deleted(client, name)
        if others:
            click.echo(f"The mesh keeps running for {', '.join(others)}.")

    def _others(self, client: ControlClient) -> list[str]:
        """Applications that other clients have deployed on the mesh that this run started."""
        try:
            return [each.name for each in client.status().applications if not self._is_own(each)]
        except ControllerUnavailableError:
            return []


def _new_run_id() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _end_as_on_ctrl_c() -> None:
    """SIGTERM and a closed terminal clean up too; nohup(1) still works."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def _check_capacity(asked: float | None, running: control_pb2.StatusReply) -> None:
    """The target capacity applies to all applications, so `mesh run` must not change it for others."""
    now = running.target_capacity if running.HasField("target_capacity") else None
    if asked not in (None, now):
        there = "not set" if now is None else f"{now:g}"
        raise ValueError(
            f"target_capacity is {asked:g} in the file and {there} in the running mesh. It applies to all "
            "applications: leave it out, or use `mesh deploy`, which changes it."
        )


def _pause() -> None:
    time.sleep(_POLL_S)
