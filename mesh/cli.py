"""Owns the `mesh` command: run an application in the foreground, show what runs, delete it, end it all."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

import click

from mesh import api, cli_report, control_plane, ray_core, rollout_wait
from mesh.deployment import Application
from mesh.exceptions import ControllerUnavailableError, MeshException
from mesh.status import ApplicationStatus
from mesh.v1 import control_pb2

F = TypeVar("F", bound=Callable[..., Any])

_LOOK_AGAIN_S = 1.0
_PORT = click.IntRange(0, 65_535)
_ADDRESS_HELP = "Ray cluster to use. Default: RAY_ADDRESS, or the one on this machine."


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="raymesh")
@click.option("--verbose", "-v", is_flag=True, help="Show log messages below warnings, and tracebacks of errors.")
def main(verbose: bool) -> None:
    """Run Python microservices on a Ray cluster and look after them.

    \b
    mesh run shop.app:app    run the application `app` of shop/app.py until Ctrl-C
    mesh status              what runs, where, and why something does not
    """
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(message)s")


def _one_line_errors(command: F) -> F:
    """Errors of the mesh, and of what it was given, end the command with their message and status 1.

    That is one line, except when a deployment fails: then what its own code raised, on the replica, comes with it.
    """

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except click.Abort:  # a RuntimeError by descent, and click's own way to say that somebody declined
            raise
        except (MeshException, ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
            if click.get_current_context().find_root().params.get("verbose"):
                raise
            raise click.ClickException(str(error).strip() or type(error).__name__) from error

    return guarded  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class _RunRequest:
    """What `mesh run` was asked, under the names of its options."""

    import_path: str
    name: str
    route_prefix: str
    grpc_port: int
    http_port: int
    proxy_location: str
    address: str | None
    app_dir: str


@main.command()
@click.argument("import_path", metavar="MODULE:APP")
@click.option("--name", default="default", show_default=True, help="Name of the application.")
@click.option("--route-prefix", default="/", show_default=True, help="HTTP path below which it is served.")
@click.option("--grpc-port", type=_PORT, default=9000, show_default=True, help="Port for gRPC clients; 0: none.")
@click.option(
    "--http-port", type=_PORT, default=8000, show_default=True, help="Port for health, routes and metrics; 0: none."
)
@click.option(
    "--proxy-location",
    type=click.Choice(["EveryNode", "HeadOnly", "Disabled"]),
    default="EveryNode",
    show_default=True,
    help="Nodes that run a gateway.",
)
@click.option(
    "--address", help=f"{_ADDRESS_HELP} Where there is none, one is started for as long as this command runs."
)
@click.option(
    "--app-dir",
    type=click.Path(exists=True, file_okay=False),
    default=".",
    show_default=True,
    help="Directory from which MODULE is imported.",
)
@_one_line_errors
def run(**given: Any) -> None:
    """Deploy an application and keep it running until Ctrl-C.

    MODULE:APP names a bound application, for instance `app` in shop/app.py with `app = Front.bind(Stock.bind())` as
    shop.app:app. At the end the application is deleted; the mesh too, if this command started it.
    """
    asked = _RunRequest(**given)
    application = load_application(asked.import_path, asked.app_dir)
    # From here on kill(1) and a closed terminal clean up as Ctrl-C does; nohup(1) keeps its meaning.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    if not ray_core.attach_ray(asked.address):
        click.echo("Starting Ray ...")
        ray_core.ensure_ray()
    with contextlib.ExitStack() as cleanup:
        is_ours = control_plane.find() is None
        if is_ours:
            click.echo("Starting the mesh ...")
            cleanup.callback(api.shutdown)
        try:
            api.start(asked.proxy_location, {"port": asked.http_port}, {"port": asked.grpc_port})
            api._run(application, name=asked.name, route_prefix=asked.route_prefix, _blocking=False)
            if not is_ours:
                cleanup.callback(_delete_if_there, asked.name)
            _follow(asked.name)
            _until_gone(asked.name)
        except KeyboardInterrupt:
            click.echo()  # behind the terminal's ^C
        finally:
            click.echo("Stopping ...")


def _follow(name: str) -> None:
    client = control_plane.require()
    click.echo(f"Application {name}:")
    rollout_wait.until_running(client, name, cli_report.Progress(click.echo))
    for line in cli_report.listening_lines(client.status()):
        click.echo(line)
    click.echo("Running; Ctrl-C ends it.")


def _until_gone(name: str) -> None:
    while _is_there(name):
        _pause()
    click.echo(f"Somebody else has deleted {name}.")


def _is_there(name: str) -> bool:
    """Also while the mesh is being ended: whoever does that must not be disturbed."""
    client = control_plane.find()
    if client is None:
        return False
    try:
        reply = client.status()
    except ControllerUnavailableError:  # replicas and gateways serve on
        return True
    wanted = [each.name for each in reply.applications if each.status != ApplicationStatus.DELETING]
    return reply.is_shutting_down or name in wanted


def _delete_if_there(name: str) -> None:
    if _is_there(name):
        api.delete(name)


def _pause() -> None:
    time.sleep(_LOOK_AGAIN_S)


def load_application(import_path: str, app_dir: str) -> Application:
    """The bound application that MODULE:APP names, imported with `app_dir` first on the search path."""
    module_name, separator, attribute = import_path.partition(":")
    if not (module_name and separator and attribute):
        raise ValueError(f"{import_path!r} is not MODULE:APP: write for instance shop.app:app.")
    directory = os.path.abspath(app_dir)
    sys.path.insert(0, directory)
    target: Any = _import(module_name, directory)
    module = target
    for part in attribute.split("."):
        if not hasattr(target, part):
            raise ValueError(f"Module {module_name!r} has no {attribute!r}. {_applications_in(module)}")
        target = getattr(target, part)
    if not isinstance(target, Application):
        raise TypeError(
            f"{import_path} is a {type(target).__name__}, not an application: name the result of .bind(...). "
            f"{_applications_in(module)}"
        )
    return target


def _applications_in(module: ModuleType) -> str:
    names = sorted(name for name, value in vars(module).items() if isinstance(value, Application))
    return f"Applications in it: {', '.join(names) or 'none'}."


def _import(module_name: str, directory: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise ImportError(
                f"There is no module {error.name!r} in {directory} or on Python's path. "
                "Name the directory it is in with --app-dir."
            ) from error
        raise ImportError(
            f"Importing {module_name!r} failed: {type(error).__name__}: {error}{_place_in_user_code(error)}"
        ) from error


def _place_in_user_code(error: Exception) -> str:
    """Where the innermost line is that raised; empty for errors that name their place themselves."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) or not frames:
        return ""
    users = [frame for frame in frames if "importlib" not in frame.filename]
    return f" ({users[-1].filename}, line {users[-1].lineno})"


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of text for people.")
@click.option("--address", help=_ADDRESS_HELP)
@_one_line_errors
def status(as_json: bool, address: str | None) -> None:
    """Show applications, their replicas and the gateways."""
    reply = _attached_status(address)
    if as_json:
        click.echo(json.dumps(cli_report.as_dict(reply), indent=2))
    else:
        click.echo(cli_report.as_text(reply))


@main.command()
@click.argument("name")
@click.option("--address", help=_ADDRESS_HELP)
@_one_line_errors
def delete(name: str, address: str | None) -> None:
    """Delete one application.

    Returns when its replicas are gone.
    """
    known = [application.name for application in _attached_status(address).applications]
    if name not in known:
        raise ValueError(f"There is no application {name!r}. There are: {', '.join(known) or 'none'}.")
    api.delete(name)
    click.echo(f"Deleted {name}.")


@main.command()
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--address", help=_ADDRESS_HELP)
@_one_line_errors
def shutdown(yes: bool, address: str | None) -> None:
    """Delete everything the mesh runs on the cluster.

    Ray itself keeps running.
    """
    applications = [application.name for application in _attached_status(address).applications]
    if not yes:
        click.confirm(
            f"This deletes {', '.join(applications) or 'no application'} and the gateways. Go on?", abort=True
        )
    api.shutdown()
    click.echo("The mesh has ended.")


def _attached_status(address: str | None) -> control_pb2.StatusReply:
    if not ray_core.attach_ray(address):
        raise ConnectionError(
            "No Ray cluster is running here. `mesh run` starts one; to use another, name it with --address."
        )
    return control_plane.require().status()
