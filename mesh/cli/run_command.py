"""The command `mesh run`: it deploys applications, serves them until Ctrl-C, and deletes what it deployed."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from mesh import api
from mesh.cli.command_errors import ADDRESS_HELP, INTERRUPTED, one_line_errors
from mesh.cli.config_commands import follow, require_free_ports, start_mesh
from mesh.cli.gateway_flags import GRPC_PORT_HELP, HTTP_PORT_HELP, LOCATION, LOCATION_HELP, PORT
from mesh.cli.log_command import shown_logs
from mesh.cli.run_target import Target, is_file, read_target, read_target_again, target_options
from mesh.cli.source_watch import SourceWatch
from mesh.client import mesh_lifecycle, rollout_wait
from mesh.client.control_client import ControlClient, RunOwner, revisions_of
from mesh.client.early_end import ending_at_once
from mesh.client.ray_guard import RayGuard
from mesh.cluster import ray_core, ray_watch
from mesh.exceptions import ControllerUnavailableError, MeshException
from mesh.status import ApplicationStatus
from mesh.v1 import control_pb2

_POLL_S = 0.5
"""Pause between two looks at the status and at the code."""
_LISTED_MAX = 5


@click.command()
@target_options
@click.option("--grpc-port", type=PORT, help=GRPC_PORT_HELP)
@click.option("--http-port", type=PORT, help=HTTP_PORT_HELP)
@click.option("--proxy-location", type=LOCATION, help=LOCATION_HELP)
@click.option("--reload", "-r", "reloads", is_flag=True, help="Deploy again whenever code below --app-dir changes.")
@click.option(
    "--working-dir",
    metavar="DIR|URI",
    help="Directory whose files replicas on all nodes get, or the URI of a .zip file of it.",
)
@click.option("--replace", is_flag=True, help="Replace running applications that something else deployed.")
@click.option(
    "--address", "-a", help=f"{ADDRESS_HELP} If there is none, one is started for as long as this command runs."
)
@one_line_errors
def run(target: str, pairs: tuple[str, ...], app_dir: str, address: str | None, **given: Any) -> None:
    """Deploy applications and keep them running until Ctrl-C.

    \b
    mesh run shop.app:app               `app = Front.bind(Stock.bind())` in shop/app.py
    mesh run shop.app:build size=3      the application that `build` returns for these arguments
    mesh run mesh.yaml                  all applications of a configuration file
    mesh run shop.app:app --reload      after each change of the code, deploy what it concerns again

    What replicas log, print and raise is shown; see also `mesh logs`.

    At the end the applications are deleted, unless another client has deployed them again. The mesh is shut down if
    this command started it and no other application runs. An application of the same name that something else
    deployed is not replaced without --replace.
    """
    job = _job_of(given)
    asked = read_target(target, pairs, app_dir, given)
    if not asked.names:
        raise ValueError(f"{target} has no application: there is nothing to run.")
    watch = SourceWatch(app_dir, [target] if is_file(target) else []) if given["reloads"] else None
    _end_as_on_ctrl_c()
    if not ray_core.attach_ray(address, **job):
        require_free_ports(asked, **given)
        click.echo("Starting Ray ...")
        with ending_at_once():
            ray_core.ensure_ray(address, **job)
    _end_as_on_ctrl_c()  # again, because Ray installed a handler that prints a stack trace
    starts_mesh = mesh_lifecycle.find() is None
    serving = _Serving(
        asked, _new_run_id(), given["replace"], starts_ray=ray_watch.owns_ray(), starts_mesh=starts_mesh, watch=watch
    )
    try:
        with RayGuard() as guard, shown_logs(asked.names):
            serving.run(given, guard, lambda: read_target_again(target, pairs, given))
    except KeyboardInterrupt:
        click.echo(f"\n{serving.interrupted_text}", err=True)
        sys.exit(INTERRUPTED)


def _job_of(given: dict[str, Any]) -> dict[str, Any]:
    """What `--working-dir` means: for a directory, options of the Ray job, whose deployments inherit it.

    A URI becomes a part of the runtime environment in which the application is imported. Raises ValueError.
    """
    working_dir = given["working_dir"]
    if working_dir is None:
        return {}
    if given["reloads"]:
        raise ValueError("--reload deploys what --app-dir has now, --working-dir what it had at the start: choose one.")
    if "://" in working_dir:
        given["working_dir_uri"] = working_dir
        return {}
    if not os.path.isdir(working_dir):
        raise ValueError(f"--working-dir: there is no directory {os.path.abspath(working_dir)}.")
    sys.path.insert(0, os.path.abspath(working_dir))
    return {"runtime_env": {"working_dir": os.path.abspath(working_dir)}}


class _ChangedError(Exception):
    """The code has changed again while a deploy was being waited for."""


@dataclass(slots=True)
class _Serving:
    """What one `mesh run` serves, and what it has started and so must end."""

    asked: Target
    run_id: str
    may_replace: bool
    starts_ray: bool
    starts_mesh: bool
    watch: SourceWatch | None = None
    """Watches the code, which is deployed again when it changes."""
    changed: list[str] = field(default_factory=list)
    """Files that have changed and are not deployed yet."""
    looked_at_s: float = 0.0
    deployed: set[str] = field(default_factory=set)
    """The names of all applications that were deployed."""
    serves_others: bool = False
    """None of them is left, and it has said that it serves those of other clients."""

    def run(self, given: dict[str, Any], guard: RayGuard, read_again: Callable[[], Target]) -> None:
        """Serve until Ctrl-C, then clean up. Raises KeyboardInterrupt if another Ctrl-C interrupts that."""
        try:
            start_mesh(self.asked, **given)
            self._deploy_first()
            while self._is_there():
                _pause()
                if self.has_changed():
                    self._deploy_again(read_again)
            self._report_end()
        except KeyboardInterrupt:
            guard.expect_end()
            click.echo()  # behind the terminal's ^C
        finally:
            if self._has_started():
                click.echo("Stopping ...")
            self._clean_up(guard)

    def has_changed(self) -> bool:
        """Whether a file has changed that is not deployed yet, and none was changed since the last look."""
        self.looked_at_s = time.monotonic()
        latest = self.watch.changed() if self.watch is not None else []
        self.changed += latest
        return bool(self.changed) and not latest

    @property
    def interrupted_text(self) -> str:
        if self.starts_ray:
            return "Interrupted. Ray, which this command started, ends with it, and so does everything that runs on it."
        return "Interrupted. `mesh status` shows what is left, `mesh shutdown` stops it."

    def _deploy_first(self) -> None:
        try:
            self._deploy()
        except (RuntimeError, _ChangedError) as error:
            if self.watch is None:
                raise
            click.echo(f"{error}\nThe next change is tried again; Ctrl-C ends this.", err=True)

    def _deploy(self) -> None:
        client = mesh_lifecycle.require()
        present = client.status()
        config, specs = self.asked.config, self.asked.specs()
        if not self.starts_mesh:
            _check_capacity(config.target_capacity, present)
        if self.watch is not None:
            for deployment in (each for spec in specs for each in spec.deployments):
                if not deployment.options.HasField("min_ready_s"):
                    deployment.options.min_ready_s = 0.0  # a developer wants to see a change now
        before = set(self.deployed)
        self.deployed.update(self.asked.names)
        try:
            changes = client.apply(
                specs,
                target_capacity=config.target_capacity,
                run=RunOwner(self.run_id, may_replace=self.may_replace),
                expected=revisions_of(present),
            )
        except ControllerUnavailableError:  # it may be stored
            raise
        except MeshException:
            self.deployed = before
            raise
        changed = {each.application for each in changes if each.lines}
        follow(self.asked, [name for name in self.asked.names if name not in changed], self._check)
        click.echo("Running; Ctrl-C ends it.")

    def _deploy_again(self, read_again: Callable[[], Target]) -> None:
        """Deploy what the changed files say. What runs goes on running where that fails."""
        click.echo(f"Changed: {_listed(self.changed)}.")
        self.changed.clear()
        try:
            self.asked = read_again()
            self._deploy()
        except _ChangedError:
            return
        except (MeshException, ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
            click.echo(f"{error}\nWhat was running goes on; the next change is tried again.", err=True)
            return
        for name in self.deployed - set(self.asked.names):
            click.echo(f"Deleting {name}, which is no longer in the file.")
            mesh_lifecycle.require().delete(name, self.run_id)
        self.deployed &= set(self.asked.names)

    def _check(self) -> None:
        """Raises _ChangedError once there is something newer to deploy."""
        if self.watch is not None and time.monotonic() - self.looked_at_s >= _POLL_S and self.has_changed():
            raise _ChangedError("It has changed again.")

    def _is_there(self) -> bool:
        """Whether an application is left that would end with this run.

        True during a shutdown, which must not be disturbed.
        """
        client = mesh_lifecycle.find()
        if client is None:
            return False
        try:
            reply = client.status()
        except ControllerUnavailableError:  # replicas and gateways keep serving
            return True
        staying = [each for each in reply.applications if each.status != ApplicationStatus.DELETING]
        if reply.is_shutting_down:
            return True
        if any(map(self._is_own, staying)):
            self.serves_others = False
            return True
        if self.starts_ray and staying and not self.serves_others:
            self.serves_others = True
            others = ", ".join(each.name for each in staying)
            click.echo(f"{self._taken_text} Ray, which this command started, runs on for {others} until Ctrl-C.")
        return self.serves_others and bool(staying)

    def _report_end(self) -> None:
        if mesh_lifecycle.find() is not None:
            click.echo(self._taken_text)
            return
        names = ", ".join(self.asked.names)
        self.deployed.clear()  # they have ended with the mesh
        click.echo(
            f"The mesh was shut down, and {names} with it: by another client, or with the Ray that another `mesh run` "
            "had started."
        )

    @property
    def _taken_text(self) -> str:
        return f"Deleted or replaced by another client: {', '.join(self.asked.names)}."

    def _has_started(self) -> bool:
        """Whether there is something to stop. There is nothing where all that was asked for has been refused."""
        return self.starts_ray or bool(self.deployed) or (self.starts_mesh and mesh_lifecycle.find() is not None)

    def _is_own(self, application: control_pb2.ApplicationStatus) -> bool:
        return self.run_id in (application.run_id, application.canary.run_id)

    def _clean_up(self, guard: RayGuard) -> None:
        client = mesh_lifecycle.find()
        if client is None:
            if self.starts_ray:
                guard.wait_for_end()
            return
        others = self._others(client) if self.starts_mesh else []
        if self.starts_mesh and (self.starts_ray or not others):
            if others:
                click.echo(f"This also ends {', '.join(others)}, because this command started Ray.")
            api.shutdown()
            return
        for name in self.deployed:
            client.delete(name, self.run_id)
        for name in set(self.deployed) - set(self.asked.canaries):
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


def _listed(files: Sequence[str]) -> str:
    names = list(dict.fromkeys(files))
    more = len(names) - _LISTED_MAX
    return ", ".join(names[:_LISTED_MAX]) + (f" and {more} more" if more > 0 else "")


def _pause() -> None:
    time.sleep(_POLL_S)
