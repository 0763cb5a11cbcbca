"""The Control service: changes, status and the Sync streams. Calls without the token are rejected before this."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import grpc
import grpc.aio

from mesh.controller.backups import restoration
from mesh.controller.control_loop import ControlLoop
from mesh.controller.desired.changes.change_text import changes_by_application
from mesh.controller.desired.changes.deploy_history import recorded
from mesh.controller.desired.changes.desired_change import (
    ConfigSource,
    Run,
    rolled_back,
    scaled,
    shutting_down,
    with_applications,
    with_pause,
    with_promoted,
    without_application,
)
from mesh.controller.desired.changes.gateway_generations import with_gateways
from mesh.controller.desired.changes.hidden_rules import new_hidden_rules
from mesh.controller.desired.changes.invalid_change import InvalidChangeError
from mesh.controller.desired.changes.shared_services import new_warnings
from mesh.controller.desired.changes.state_edits import Edit
from mesh.controller.event_log import EventLog
from mesh.controller.expected_revisions import expecting, revisions_of
from mesh.controller.nodes.cordons import cordoned, uncordoned
from mesh.controller.nodes.node_names import find_node, title_of
from mesh.controller.plan.cluster_picture import Node
from mesh.controller.report.mesh_picture import ControllerIdentity, SharedPicture
from mesh.controller.report.node_statuses import node_status, replicas_on
from mesh.controller.report.publisher import Publisher, Subscriber
from mesh.controller.report.status_report import build_status, controller_status, has_running, healthy_gateways
from mesh.controller.store.descriptor_sets import new_sets
from mesh.controller.store.desired_store import StoreError
from mesh.options.gateway.gateway_options import differing_fields
from mesh.options.logging_options import logging_of_mesh
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import common_pb2, control_pb2, control_pb2_grpc
from mesh.wire.duplex import converse

logger = logging.getLogger("mesh")

_Context = Any  # grpcio has no types
_Change = (
    control_pb2.ApplyRequest
    | control_pb2.RollbackRequest
    | control_pb2.ScaleRequest
    | control_pb2.PromoteRequest
    | control_pb2.PauseRequest
    | control_pb2.DeleteRequest
    | control_pb2.RestoreRequest
)


class ControlServicer(control_pb2_grpc.ControlServicer):
    def __init__(
        self,
        loop: ControlLoop,
        publisher: Publisher,
        unix_clock: Callable[[], float],
        identity: ControllerIdentity,
        events: EventLog,
        configure_logs: Callable[[control_pb2.LoggingOptions], None] = lambda options: None,
    ) -> None:
        """`configure_logs` lets the controller's own logs be as options of the mesh say."""
        self._loop = loop
        self._publisher = publisher
        self._unix_clock = unix_clock
        self._identity = identity
        self._events = events
        self._configure_logs = configure_logs
        self._shown = SharedPicture(loop.picture, time.monotonic, time.thread_time)

    async def Deploy(self, request: control_pb2.DeployRequest, context: _Context) -> control_pb2.DeployReply:
        """Apply of one application: earlier versions of the mesh call this."""
        one = control_pb2.ApplyRequest(
            applications=[request.application], request_id=request.request_id, author=request.author
        )
        reply = await self._add(one, context)
        return control_pb2.DeployReply(state_version=reply.state_version, warnings=reply.warnings)

    async def Apply(self, request: control_pb2.ApplyRequest, context: _Context) -> control_pb2.ApplyReply:
        return await self._add(request, context)

    async def Rollback(self, request: control_pb2.RollbackRequest, context: _Context) -> control_pb2.ApplyReply:
        back = functools.partial(rolled_back, name=request.application, unix_time_s=self._unix_clock())
        edit = self._recorded(back, request, is_rollback=True)
        return await self._apply(edit, (), request, context, is_dry_run=request.is_dry_run)

    async def Scale(self, request: control_pb2.ScaleRequest, context: _Context) -> control_pb2.ApplyReply:
        key = DeploymentKey(request.application, request.deployment)
        scale: Edit = functools.partial(scaled, key=key, num_replicas=request.num_replicas, change=request.change)
        return await self._apply(self._recorded(scale, request, is_scaling=True), (), request, context)

    async def Promote(self, request: control_pb2.PromoteRequest, context: _Context) -> control_pb2.ApplyReply:
        promote = functools.partial(with_promoted, name=request.application, unix_time_s=self._unix_clock())
        edit = self._recorded(promote, request)
        return await self._apply(edit, (), request, context, is_dry_run=request.is_dry_run)

    async def Pause(self, request: control_pb2.PauseRequest, context: _Context) -> control_pb2.ApplyReply:
        pause: Edit = functools.partial(
            with_pause, application=request.application, deployment=request.deployment, is_paused=request.is_paused
        )
        return await self._apply(self._recorded(pause, request), (), request, context)

    async def Backup(self, request: control_pb2.BackupRequest, context: _Context) -> control_pb2.MeshBackup:
        async with _refusals(context):
            backup = await self._loop.backup(self._unix_clock())
        names = ", ".join(app.name for app in backup.state.applications) or "none"
        logger.info("a backup of the applications was made: %s%s", names, _by(request.author))
        return backup

    async def Restore(self, request: control_pb2.RestoreRequest, context: _Context) -> control_pb2.ApplyReply:
        async with _refusals(context):
            restored = restoration(request, self._unix_clock())
        edit = expecting(restored.recorded_edit(request.author), _expected(request))
        return await self._apply(edit, restored.applications, request, context, is_dry_run=request.is_dry_run)

    async def Cordon(self, request: control_pb2.CordonRequest, context: _Context) -> control_pb2.CordonReply:
        node = await self._named_node(request.node, context)
        cordon = control_pb2.Cordon(
            node_id=node.node_id,
            unix_time_s=self._unix_clock(),
            author=request.author,
            is_draining=request.is_draining,
            replicas=replicas_on(node.node_id, self._loop.picture()) if request.is_draining else 0,
        )
        what = "is being drained" if request.is_draining else "takes no new replicas"
        return await self._change_cordons(functools.partial(cordoned, cordon=cordon), node, request, what, context)

    async def Uncordon(self, request: control_pb2.UncordonRequest, context: _Context) -> control_pb2.CordonReply:
        node = await self._named_node(request.node, context)
        edit = functools.partial(uncordoned, node_ids=(node.node_id,))
        return await self._change_cordons(edit, node, request, "takes new replicas again", context)

    async def ConfigureGateways(
        self, request: control_pb2.ConfigureGatewaysRequest, context: _Context
    ) -> control_pb2.ConfigureGatewaysReply:
        edit = functools.partial(with_gateways, options=request.options, expected=request.expected)
        version, states = await self._states(edit, (), request.request_id, context)
        # Not those of the request, which may be an old one that is repeated.
        self._configure_logs(logging_of_mesh(self._loop.picture().desired.gateways))
        if states and (names := differing_fields(states[-1].gateways, states[0].gateways)):
            logger.info("change of the gateways is stored: %s%s", ", ".join(names), _by(request.author))
        return control_pb2.ConfigureGatewaysReply(state_version=version)

    async def History(self, request: control_pb2.HistoryRequest, context: _Context) -> control_pb2.HistoryReply:
        return self._loop.history(request.application)

    async def Events(self, request: control_pb2.EventsRequest, context: _Context) -> control_pb2.EventsReply:
        return control_pb2.EventsReply(events=self._events.since(request.after_number))

    async def Config(self, request: control_pb2.ConfigRequest, context: _Context) -> control_pb2.ConfigReply:
        return control_pb2.ConfigReply(config_file=self._loop.config_file)

    async def Delete(self, request: control_pb2.DeleteRequest, context: _Context) -> control_pb2.DeleteReply:
        delete: Edit = functools.partial(without_application, name=request.application, run_id=request.run_id)
        reply = await self._apply(self._recorded(delete, request), (), request, context)
        return control_pb2.DeleteReply(warnings=reply.warnings)

    async def Status(self, request: control_pb2.StatusRequest, context: _Context) -> control_pb2.StatusReply:
        reply = build_status(self._shown.get(), request.applications)
        if request.applications and has_running(reply):
            # Who has waited for these calls them next, perhaps through gateways that come back from another controller.
            await self._publisher.gateways_know(healthy_gateways(reply))
        reply.controller.CopyFrom(controller_status(self._identity, self._unix_clock()))
        reply.controller.message = self._loop.waits_for
        return reply

    async def Shutdown(self, request: control_pb2.ShutdownRequest, context: _Context) -> control_pb2.ShutdownReply:
        if request.mesh_id and request.mesh_id != self._identity.mesh_id:
            await context.abort(
                grpc.StatusCode.ABORTED, "The mesh that was to end has ended; another one has started and goes on."
            )
        await self._change(expecting(shutting_down, _expected(request)), (), request.request_id, context)
        return control_pb2.ShutdownReply()

    async def Sync(self, request_iterator: Any, context: _Context) -> None:
        report = await context.read()
        if report is grpc.aio.EOF or not report.HasField("hello"):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The first Report of a Sync stream must say hello.")
        # A first write that is cancelled would leave the stream without a status, so its headers go before.
        await context.send_initial_metadata(())
        subscriber = self._publisher.open(report.hello)
        try:
            await converse(self._read(subscriber, report, context), self._write(subscriber, context))
        finally:
            self._publisher.close(subscriber)
            self._loop.autoscaler.forget_stream(subscriber)

    async def _add(self, request: control_pb2.ApplyRequest, context: _Context) -> control_pb2.ApplyReply:
        add: Edit = functools.partial(
            with_applications,
            applications=request.applications,
            unix_time_s=self._unix_clock(),
            config_file=_config_source(request),
            target_capacity=request.target_capacity if request.HasField("target_capacity") else None,
            run=Run(request.run_id, request.may_replace) if request.run_id else None,
        )
        edit = self._recorded(add, request)
        return await self._apply(edit, request.applications, request, context, is_dry_run=request.is_dry_run)

    def _recorded(self, change: Edit, request: _Change, *, is_rollback: bool = False, is_scaling: bool = False) -> Edit:
        """The change with a record in the history, refused where the request expects other revisions."""
        now_s = self._unix_clock()
        edit = recorded(change, now_s, request.author, is_rollback=is_rollback, is_scaling=is_scaling)
        return expecting(edit, _expected(request))

    async def _apply(
        self,
        change: Edit,
        code_of: Sequence[control_pb2.ApplicationSpec],
        request: _Change,
        context: _Context,
        *,
        is_dry_run: bool = False,
    ) -> control_pb2.ApplyReply:
        if is_dry_run:
            previewed = await self._preview(change, context)
            return control_pb2.ApplyReply(changes=_changes(previewed), warnings=self._warnings(previewed, code_of))
        version, states = await self._states(change, code_of, request.request_id, context)
        if not states:  # stored by an earlier attempt
            return control_pb2.ApplyReply(state_version=version)
        changes = _changes(states)
        for each in changes:
            if each.lines:
                by = _by(request.author)
                logger.info("change of application %s is stored: %s%s", each.application, "; ".join(each.lines), by)
        return control_pb2.ApplyReply(state_version=version, changes=changes, warnings=self._warnings(states, code_of))

    def _warnings(
        self, states: Sequence[control_pb2.DesiredState], code_of: Sequence[control_pb2.ApplicationSpec]
    ) -> list[str]:
        """What users are to know of a change. `states`: before and after it."""
        before, after = states
        sets = {**self._loop.descriptor_sets, **new_sets(code_of)}
        return new_warnings(before, after) + new_hidden_rules(before, after, sets)

    async def _change_cordons(
        self,
        edit: Edit,
        node: Node,
        request: control_pb2.CordonRequest | control_pb2.UncordonRequest,
        what: str,
        context: _Context,
    ) -> control_pb2.CordonReply:
        """`what`: what the node does from now on, in words."""
        _, states = await self._states(edit, (), request.request_id, context)
        is_new = bool(states) and states[0].cordons != states[-1].cordons
        if is_new:
            logger.info("node %s %s%s", title_of(node), what, _by(request.author))
        status = node_status(node.node_id, self._loop.picture()) or control_pb2.NodeStatus(node_id=node.node_id)
        return control_pb2.CordonReply(node=status, is_new=is_new)

    async def _named_node(self, name: str, context: _Context) -> Node:
        async with _refusals(context):
            return find_node(self._loop.nodes, name)

    async def _states(
        self, change: Edit, code_of: Sequence[control_pb2.ApplicationSpec], request_id: str, context: _Context
    ) -> tuple[int, Sequence[control_pb2.DesiredState]]:
        """The stored version, and the states before and after the change; none if an earlier attempt has stored it."""
        states: list[control_pb2.DesiredState] = []

        def edit(state: control_pb2.DesiredState) -> control_pb2.DesiredState:
            states[:] = state, change(state)
            return states[-1]

        return await self._change(edit, code_of, request_id, context), states

    async def _preview(self, edit: Edit, context: _Context) -> Sequence[control_pb2.DesiredState]:
        async with _refusals(context):
            return self._loop.preview(edit)

    async def _change(
        self, edit: Edit, code_of: Sequence[control_pb2.ApplicationSpec], request_id: str, context: _Context
    ) -> int:
        try:
            async with _refusals(context):
                return await self._loop.change(edit, code_of=code_of, request_id=request_id)
        finally:
            self._shown.forget()

    async def _read(self, subscriber: Subscriber, report: Any, context: _Context) -> None:
        while report is not grpc.aio.EOF:
            if report.unsubscribe:
                self._publisher.unsubscribe(subscriber, _keys(report.unsubscribe))
            self._publisher.subscribe(subscriber, _keys(report.subscribe))
            self._loop.autoscaler.report_load(subscriber.hello.process_id, subscriber, report.loads)
            if report.HasField("health"):
                self._loop.health.take(report.health)
            report = await context.read()

    async def _write(self, subscriber: Subscriber, context: _Context) -> None:
        """Write updates until the stream ends. Changes during a write are sent with the next one."""
        while True:
            await context.write(await self._publisher.next_update(subscriber))


@contextlib.asynccontextmanager
async def _refusals(context: _Context) -> AsyncIterator[None]:
    """End the call with the status of what is refused, or cannot be stored now."""
    try:
        yield
    except InvalidChangeError as error:
        await context.abort(error.code, str(error))
    except StoreError as error:
        # Clients treat this like an unavailable controller, and try again.
        await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))


def _by(author: str) -> str:
    return f" (by {author})" if author else ""


def _expected(request: _Change | control_pb2.ShutdownRequest) -> control_pb2.ExpectedRevisions | None:
    return request.expected if request.HasField("expected") else None


def _config_source(request: control_pb2.ApplyRequest) -> ConfigSource | None:
    if not request.HasField("config_file"):
        return None
    return ConfigSource(request.config_file, request.config_name, prunes=not request.keeps_other_files)


def _keys(names: Iterable[common_pb2.DeploymentId]) -> list[DeploymentKey]:
    return [DeploymentKey(each.app, each.name) for each in names]


def _changes(states: Sequence[control_pb2.DesiredState]) -> list[control_pb2.ApplicationChange]:
    before, after = states
    revisions = revisions_of(before)
    return [
        control_pb2.ApplicationChange(application=name, lines=lines, revision=revisions.get(name, 0))
        for name, lines in changes_by_application(before, after).items()
    ]
