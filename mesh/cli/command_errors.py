"""How commands of `mesh` reach a cluster, and the exit status of their errors."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import click

from mesh.client import mesh_lifecycle
from mesh.cluster import ray_core
from mesh.exceptions import MeshException
from mesh.options import option_checks
from mesh.status import find_application
from mesh.v1 import control_pb2

F = TypeVar("F", bound=Callable[..., Any])

ADDRESS_HELP = "Ray cluster to use. Default: RAY_ADDRESS, or the one on this machine."
INTERRUPTED = 130
"""Exit status after Ctrl-C, as in shells."""


def one_line_errors(command: F) -> F:
    """Errors of the mesh and of its input end the command with their message and status 1.

    The message is one line, unless user code failed: then it includes the error and its place.
    """

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (click.Abort, BrokenPipeError):  # handled by click: a declined prompt, or a closed pipe
            raise
        except KeyboardInterrupt:
            click.echo("\nInterrupted.", err=True)
            sys.exit(INTERRUPTED)
        except (MeshException, ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
            if click.get_current_context().find_root().params.get("verbose"):
                raise
            raise click.ClickException(str(error).strip() or type(error).__name__) from error

    return guarded  # type: ignore[return-value]


@contextmanager
def interruptible_wait(text: str) -> Iterator[None]:
    """Inside, Ctrl-C ends the command with this text. What the command waits for goes on."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"\n{text}")  # behind the terminal's ^C
        sys.exit(INTERRUPTED)


def require_ray(address: str | None) -> None:
    """Attach to Ray, and let SIGTERM end the command quietly. Raises ConnectionError if no cluster is running."""
    if not ray_core.attach_ray(address):
        raise ConnectionError(
            "No Ray cluster is running here. Start one with `ray start --head`, or let `mesh run` start one for as long"
            " as it runs. To use another cluster, give its --address."
        )
    signal.signal(signal.SIGTERM, _end)  # Ray's handler prints a stack trace


def _end(number: int, frame: object) -> NoReturn:
    """With the status that shells show of a program that a signal has ended."""
    sys.exit(128 + number)


def attached_status(address: str | None) -> control_pb2.StatusReply:
    """The status of the mesh. Raises ConnectionError or MeshException if none is running."""
    require_ray(address)
    return mesh_lifecycle.require().status()


def require_application(reply: control_pb2.StatusReply, name: str) -> control_pb2.ApplicationStatus:
    """The status of that application. Raises ValueError with the names of all if there is none of that name."""
    found = find_application(reply, name)
    if found is None:
        names = [each.name for each in reply.applications]
        advice = option_checks.did_you_mean(name, names)
        raise ValueError(f"There is no application {name!r}. There are: {', '.join(names) or 'none'}.{advice}")
    return found
