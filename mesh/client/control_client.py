"""The client of the Control service: blocking calls that are retried while the controller restarts."""

from __future__ import annotations

import asyncio
import getpass
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from mesh.client.grpc_channel import ControllerNotReadyError, GrpcChannel
from mesh.exceptions import ChangeConflictError, ControllerUnavailableError, MeshException
from mesh.settings import settings
from mesh.v1 import control_pb2
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import as_utf8

logger = logging.getLogger("mesh")

_RETRY_DELAY_S = 0.1
"""Pause before a call of the controller is repeated."""
_RETRIED = (
    grpc.StatusCode.UNAVAILABLE,
    # The address or token may belong to an earlier controller.
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
)

Reply = TypeVar("Reply", bound=Message)

_Change = (
    control_pb2.ApplyRequest
    | control_pb2.RollbackRequest
    | control_pb2.PromoteRequest
    | control_pb2.ScaleRequest
    | control_pb2.PauseRequest
    | control_pb2.RestoreRequest
    | control_pb2.DeleteRequest
)


class Channel(Protocol):
    """The connection to one controller process, used on the I/O loop. Implemented by `GrpcChannel`."""

    async def call(self, method: str, request: Message, reply: type[Message], timeout_s: float) -> Message:
        """Raises ControllerNotReadyError where there is no connection yet, and grpc.aio.AioRpcError."""

    async def close(self) -> None:
        """Drops the connection; the next call looks the controller up again."""
        ...

    async def start_failure(self) -> str:
        """The error with which the controller fails to start; empty if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class ConfigText:
    """A configuration file that is deployed."""

    text: str
    name: str = ""
    """Without directories."""
    prunes: bool = True
    """Applications of files with other names are deleted too."""


@dataclass(frozen=True, slots=True)
class RunOwner:
    """The `mesh run` that deploys."""

    run_id: str
    may_replace: bool = False
    """Otherwise it is refused where it would replace applications that something else deployed."""


class ControlClient:
    """Calls from any thread but the I/O thread. All calls are safe to repeat, so a broken one is retried.

    Each raises ControllerUnavailableError when no controller answers within `settings().process.control_timeout_s`,
    and MeshException with the controller's message when it refuses the call. Those that take `expected` revisions raise
    ChangeConflictError if they would change an application that has another one now; None: whatever is there.
    """

    def __init__(self, channel: Channel | None = None) -> None:
        self._channel: Channel = channel or GrpcChannel()

    def __repr__(self) -> str:
        return f"ControlClient({self._channel!r})"

    def apply(
        self,
        applications: Iterable[control_pb2.ApplicationSpec],
        config_file: ConfigText | None = None,
        target_capacity: float | None = None,
        run: RunOwner | None = None,
        is_dry_run: bool = False,
        expected: Mapping[str, int] | None = None,
    ) -> list[control_pb2.ApplicationChange]:
        """Deploy these in one step; with `config_file` they are all that it names, and others that it owns go.

        `target_capacity` is the percentage that this file sets. `run` is the `mesh run` that asks. `expected`: the
        revisions that the caller has read of all applications.

        Returns when they are stored, before they run, what changes, or would change if it is a dry run, in which
        nothing is stored.
        """
        request = control_pb2.ApplyRequest(
            applications=applications,
            config_file=config_file.text if config_file is not None else None,
            config_name=as_utf8(config_file.name) if config_file is not None else "",
            keeps_other_files=config_file is not None and not config_file.prunes,
            target_capacity=target_capacity,
            run_id=run.run_id if run is not None else "",
            may_replace=run is not None and run.may_replace,
            is_dry_run=is_dry_run,
        )
        return self._change("Apply", request, expected)

    def rollback(
        self, application: str, is_dry_run: bool = False, expected: Mapping[str, int] | None = None
    ) -> list[control_pb2.ApplicationChange]:
        """Deploy its proven version before again. Returns what changes, or would change if it is a dry run.

        Raises MeshException if there is no such version.
        """
        request = control_pb2.RollbackRequest(application=application, is_dry_run=is_dry_run)
        return self._change("Rollback", request, expected)

    def promote(
        self, application: str, is_dry_run: bool = False, expected: Mapping[str, int] | None = None
    ) -> list[control_pb2.ApplicationChange]:
        """Deploy its canary in its place. Returns what changes, or would change if it is a dry run.

        Raises MeshException if it has no canary.
        """
        request = control_pb2.PromoteRequest(application=application, is_dry_run=is_dry_run)
        return self._change("Promote", request, expected)

    def scale(
        self,
        application: str,
        deployment: str,
        num_replicas: int = 0,
        change: int = 0,
        expected: Mapping[str, int] | None = None,
    ) -> list[control_pb2.ApplicationChange]:
        """Run another number of replicas until the next deploy, or `change` more than there are. Returns what changes.

        Raises MeshException if the deployment autoscales.
        """
        request = control_pb2.ScaleRequest(
            application=application, deployment=deployment, num_replicas=num_replicas, change=change
        )
        return self._change("Scale", request, expected)

    def pause(
        self, application: str, deployment: str, *, is_paused: bool, expected: Mapping[str, int] | None = None
    ) -> list[control_pb2.ApplicationChange]:
        """Stop the rollouts of a deployment where they are, or let them go on; "": of all. Returns what changes."""
        request = control_pb2.PauseRequest(application=application, deployment=deployment, is_paused=is_paused)
        return self._change("Pause", request, expected)

    def backup(self) -> control_pb2.MeshBackup:
        """The desired state of all applications with their code."""
        return self._call("Backup", control_pb2.BackupRequest(author=author()), control_pb2.MeshBackup)

    def restore(
        self,
        backup: control_pb2.MeshBackup,
        *,
        may_replace: bool = False,
        is_dry_run: bool = False,
        expected: Mapping[str, int] | None = None,
    ) -> list[control_pb2.ApplicationChange]:
        """Deploy the applications of a backup in one step. Returns what changes, or would change if it is a dry run.

        Raises MeshException where an application that runs would change, unless it may be replaced.
        """
        request = control_pb2.RestoreRequest(backup=backup, may_replace=may_replace, is_dry_run=is_dry_run)
        return self._change("Restore", request, expected)

    def cordon(self, node: str, *, is_draining: bool = False) -> control_pb2.CordonReply:
        """Start no new replica on a node, and move those that it has if it is to be drained.

        `node`: its id, the beginning of it, or its address. Raises MeshException if that is not one node.
        """
        request = control_pb2.CordonRequest(node=node, is_draining=is_draining, request_id=_new_id(), author=author())
        return self._call("Cordon", request, control_pb2.CordonReply)

    def uncordon(self, node: str) -> control_pb2.CordonReply:
        """Take back a cordon or a drain. Raises MeshException if that is not one node."""
        request = control_pb2.UncordonRequest(node=node, request_id=_new_id(), author=author())
        return self._call("Uncordon", request, control_pb2.CordonReply)

    def configure_gateways(self, options: control_pb2.GatewayOptions, expected: control_pb2.GatewayOptions) -> None:
        """Returns when the options are stored. Raises MeshException if they are not `expected` any more."""
        request = control_pb2.ConfigureGatewaysRequest(
            options=options, expected=expected, request_id=_new_id(), author=author()
        )
        self._call("ConfigureGateways", request, control_pb2.ConfigureGatewaysReply)

    def history(self, application: str) -> control_pb2.HistoryReply:
        """Its last deploys."""
        return self._call("History", control_pb2.HistoryRequest(application=application), control_pb2.HistoryReply)

    def events(self, after: int = 0) -> list[control_pb2.Event]:
        """What the controller has decided and seen lately, oldest first; only after the event of that number."""
        return list(self._call("Events", control_pb2.EventsRequest(after_number=after), control_pb2.EventsReply).events)

    def config_file(self) -> str | None:
        """The configuration file that was applied last."""
        reply = self._call("Config", control_pb2.ConfigRequest(), control_pb2.ConfigReply)
        return reply.config_file if reply.HasField("config_file") else None

    def delete(self, application: str, run_id: str = "", expected: Mapping[str, int] | None = None) -> None:
        """Returns when the deletion is stored, before the replicas are gone.

        With `run_id` the application stays if that `mesh run` is not the one that deployed it.
        """
        request = control_pb2.DeleteRequest(application=application, run_id=run_id)
        _show(self._call("Delete", _signed(request, expected), control_pb2.DeleteReply).warnings)

    def status(self, *applications: str) -> control_pb2.StatusReply:
        """The status with these applications, or with all if none is named."""
        return self._call("Status", control_pb2.StatusRequest(applications=applications), control_pb2.StatusReply)

    def shutdown(self, mesh_id: bytes = b"", expected: Mapping[str, int] | None = None) -> None:
        """Returns when the shutdown is stored; `status` lists what is left.

        Raises ChangeConflictError if the mesh of that id has ended and another one has started.
        """
        revisions = None if expected is None else control_pb2.ExpectedRevisions(revisions=expected)
        request = control_pb2.ShutdownRequest(request_id=_new_id(), mesh_id=mesh_id, expected=revisions)
        self._call("Shutdown", request, control_pb2.ShutdownReply)

    def close(self) -> None:
        io_thread().run(self._channel.close())

    def _change(
        self, method: str, request: _Change, expected: Mapping[str, int] | None
    ) -> list[control_pb2.ApplicationChange]:
        reply = self._call(method, _signed(request, expected), control_pb2.ApplyReply)
        _show(reply.warnings)
        return list(reply.changes)

    def _call(self, method: str, request: Message, reply: type[Reply]) -> Reply:
        if threading.current_thread() is io_thread().thread:
            raise RuntimeError(
                "This call blocks and would stall the I/O thread. "
                "Make it from a `def` method, or leave isolate_user_loop on."
            )
        timeout_s = settings().process.control_timeout_s
        answer = until_answered(self._channel, method, request, reply, timeout_s, time.monotonic)
        return cast(Reply, io_thread().run(answer))


def revisions_of(reply: control_pb2.StatusReply) -> dict[str, int]:
    """The revisions of all applications, which a change that is computed from this status expects."""
    return {app.name: app.revision for app in reply.applications}


def _show(warnings: Iterable[str]) -> None:
    for warning in warnings:
        logger.warning("%s", warning)


def _signed(request: _Change, expected: Mapping[str, int] | None) -> _Change:
    """With its id, who asks, and the revisions that were read."""
    request.request_id, request.author = _new_id(), author()
    if expected is not None:
        request.expected.CopyFrom(control_pb2.ExpectedRevisions(revisions=expected))
    return request


def _new_id() -> str:
    """The id of one request. A request that is sent again keeps it."""
    return uuid.uuid4().hex


def author() -> str:
    """Who runs this program, for the history of deploys: "user@host"."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        user = f"uid {os.getuid()}"
    return as_utf8(f"{user}@{socket.gethostname()}")


async def until_answered(
    channel: Channel, method: str, request: Message, reply: type[Message], timeout_s: float, clock: Callable[[], float]
) -> Message:
    """One call, repeated while the controller cannot be reached."""
    deadline_at_s = clock() + timeout_s
    reason = "no attempt was made"
    while (left_s := deadline_at_s - clock()) > 0:
        try:
            return await channel.call(method, request, reply, left_s)
        except ControllerNotReadyError as error:
            reason = str(error)
        except grpc.aio.AioRpcError as error:
            reason = f"{error.code().name}: {error.details()}"
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                break
            if error.code() is grpc.StatusCode.ABORTED:
                raise ChangeConflictError(error.details() or "") from error
            if error.code() not in _RETRIED:
                raise MeshException(error.details() or error.code().name) from error
        await channel.close()
        await asyncio.sleep(_RETRY_DELAY_S)
    raise ControllerUnavailableError.after(timeout_s, await channel.start_failure() or reason)
