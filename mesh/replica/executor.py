"""The way of an admitted call into user code and its end: the CallService of a replica. I/O loop only."""

from __future__ import annotations

import time

from mesh.cluster.ray_objects import load_buffers
from mesh.exceptions import DeadlineExceededError, MeshException
from mesh.link.callee_link import IncomingCall, RunningCall
from mesh.link.outgoing_call import RESERVE_METHOD
from mesh.link.reservation import Reservation
from mesh.replica.access_log import log_access
from mesh.replica.execution import Conclude, Execution
from mesh.replica.failure_log import failure_log
from mesh.replica.replica_metrics import ReplicaCounts
from mesh.replica.user_loop import UserLoop
from mesh.replica.user_methods import MethodTable
from mesh.replica.web_execution import WebExecution
from mesh.settings import settings
from mesh.web.asgi_types import WebService
from mesh.wire.blocking_work import Work, run_blocking
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import Outcome, failed, failed_in_user_code
from mesh.wire.payload import PICKLE_BUFFERS, Payload
from mesh.wire.web_messages import WEB_METHOD


class Executor:
    """Runs calls on the user loop or in its threads."""

    execution_type = Execution
    web_execution_type = WebExecution

    def __init__(
        self, methods: MethodTable, user_loop: UserLoop, counts: ReplicaCounts, web: WebService | None = None
    ) -> None:
        """`web` answers web calls; None: the deployment takes none."""
        self._methods = methods
        self._web = web
        self._user = user_loop
        self._counts = counts
        self._conclude: Conclude = self._end

    def log_accesses(self, is_wanted: bool) -> None:
        """Whether calls that begin from now on are logged when they end."""
        self._conclude = self._end_and_log if is_wanted else self._end

    def start(self, call: IncomingCall) -> RunningCall | None:
        """Run the call; None if it could not begin and has ended already."""
        try:
            execution = self._prepare(call)
        except MeshException as error:
            self._conclude(call, failed(error))
            return None
        except BaseException as error:  # a property of the user's class
            failure_log.record(call.request.method, call.request.context.request_id, error)
            self._conclude(call, failed_in_user_code(error))
            return None
        payload = call.request.payload
        if payload is not None and payload.stored is not None and isinstance(execution, Execution):
            execution.waiting = io_thread().spawn(self._fetch_and_run(execution, payload), "fetch-stored-arguments")
        else:
            self._hand_over(execution)
        return execution

    def _prepare(self, call: IncomingCall) -> Execution | WebExecution | Reservation:
        if call.request.deadline_at_s is not None and call.request.deadline_at_s <= time.monotonic():
            raise DeadlineExceededError
        if call.request.method == WEB_METHOD:
            if self._web is None:
                raise MeshException("The deployment takes no web requests: it has no ASGI application and no __call__.")
            return self.web_execution_type(call, self._web, self._user, self._counts, self._conclude)
        if call.request.method == RESERVE_METHOD:
            return Reservation(call, self._conclude)
        method = self._methods.find(call.request.method)
        return self.execution_type(call, method, self._user, self._counts, self._conclude)

    async def _fetch_and_run(self, execution: Execution, payload: Payload) -> None:
        assert payload.stored is not None
        call = execution.call
        try:
            buffers = await run_blocking(Work.FETCH, load_buffers, payload.stored, call.request.deadline_at_s)
        except Exception as error:  # the caller or its node is gone, in whichever way Ray says so
            self._conclude(call, failed(MeshException(f"An argument was lost on its way: {error}")))
            return
        call.request.payload = Payload(PICKLE_BUFFERS, payload.data, buffers)
        self._hand_over(execution)

    def _hand_over(self, execution: Execution | WebExecution | Reservation) -> None:
        """If this fails the call still ends, because it holds a place."""
        call = execution.call
        try:
            if call.request.streams_request:
                call.grant(settings().payload.stream_credits)
            execution.hand_over()
        except Exception as error:  # a thread pool that is closed
            self._conclude(call, failed_in_user_code(error))

    def _end_and_log(self, call: IncomingCall, outcome: Outcome) -> None:
        running = call.running
        title, route = call.request.method, call.request.context.route
        if isinstance(running, WebExecution):
            title, route = running.request.title, running.request.route
        self._end(call, outcome)
        log_access(call, title, route, outcome)

    def _end(self, call: IncomingCall, outcome: Outcome) -> None:
        self._counts.methods[call.request.method].count(outcome.code, time.monotonic() - call.started_at_s)
        call.link.finish(call, outcome)
