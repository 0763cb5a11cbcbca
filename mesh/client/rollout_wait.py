"""The waits of API calls for rollouts, gateways and deletions, and the errors they raise."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence

from mesh.client.control_client import ControlClient
from mesh.client.polling import poll
from mesh.settings import settings
from mesh.status import (
    ApplicationStatus,
    DeploymentStatus,
    DeploymentStatusTrigger,
    GatewayStatus,
    find_application,
    serves_fully,
)
from mesh.v1 import control_pb2

logger = logging.getLogger("mesh")

_RESIZING = (DeploymentStatus.UPSCALING, DeploymentStatus.DOWNSCALING)

_NO_PORT = "cannot listen on"
"""So begins the error of a gateway whose port is taken or forbidden, or whose host is not one of its node."""

_NUMBER = re.compile(r"[0-9]+")

Show = Callable[[control_pb2.ApplicationStatus], None]


def until_gateways_healthy(client: ControlClient) -> None:
    """Returns immediately if gateways are disabled. Raises TimeoutError naming the gateways that are not healthy.

    A gateway may wait long for a process; one that reports an error is given much less time. A warning says every ten
    seconds what is waited for.
    """
    started_at_s = time.monotonic()
    wait = _GatewayWait(time.monotonic)
    poll(lambda: wait.is_over(client.status()), settings().client.gateways_timeout_s)
    reply = wait.status
    if _are_healthy(reply):
        return
    waited_s = time.monotonic() - started_at_s
    raise TimeoutError(
        f"The gateways were not healthy within {waited_s:.0f} s ({_states(reply.gateways)}). {_advice(reply)}"
    )


def until_gateways_changed(client: ControlClient) -> None:
    """Until a gateway with the wanted options serves in the place of each one. There is no timeout while some start.

    Raises TimeoutError with the reason where they fail; those with the former options that serve go on then. A warning
    says every ten seconds what is waited for.
    """
    wait = _GatewayWait(time.monotonic, _have_changed)
    poll(lambda: wait.is_over(client.status()), timeout_s=None)
    reply = wait.status
    if not _have_changed(reply):
        reasons = "; ".join(
            f"node {each.node_id[:8]}: {_headline(each.message)}" for each in reply.gateways if each.message
        )
        others = any(each.status == GatewayStatus.HEALTHY and not _is_wanted(each, reply) for each in reply.gateways)
        raise TimeoutError(
            f"No gateway starts with the new options ({reasons}). "
            f"{'Those with the former ones serve on' if others else 'None serves'}. Correct the options and call "
            "again, or call with the former ones to give the change up; `mesh status` shows both."
        )


def _states(gateways: Iterable[control_pb2.GatewayStatus]) -> str:
    states = (f"node {each.node_id[:8]}: {each.status} {_headline(each.message)}".rstrip() for each in gateways)
    return "; ".join(states) or "none was started"


def _advice(reply: control_pb2.StatusReply) -> str:
    if any(_NO_PORT in each.message for each in reply.gateways):
        return (
            "Choose another port or host: grpc_options and http_options of mesh.start(), --grpc-port and --http-port "
            "of `mesh run`."
        )
    return "`mesh logs` shows what they logged."


def until_running(client: ControlClient, name: str, show: Show | None = None) -> None:
    """Waits without a timeout. Raises RuntimeError when the application failed or was deleted in the meantime.

    `show` gets every status; by default a warning says every ten seconds what the rollout waits for.
    """
    show = show or ProgressLogger(time.monotonic)
    poll(lambda: _is_running(client.status(name), name, show), timeout_s=None)


def until_all_running(client: ControlClient, names: Sequence[str], show: Show) -> None:
    """Like `until_running` for several applications, and until they have the requested number of replicas.

    Raises RuntimeError with all failures, once the other applications run.
    """
    failures: dict[str, str] = {}
    poll(lambda: _are_settled(client.status(*names), names, show, failures), timeout_s=None)
    if failures:
        raise RuntimeError("\n".join(failures[name] for name in names if name in failures))


def until_canaries_run(client: ControlClient, names: Sequence[str]) -> None:
    """Until all replicas of these canaries run and get requests. Raises RuntimeError with the reason if one cannot."""
    poll(lambda: all(_canary_runs(find_application(client.status(name), name)) for name in names), timeout_s=None)


def _canary_runs(application: control_pb2.ApplicationStatus | None) -> bool:
    """True also when someone ended it meanwhile."""
    if application is None:
        return True
    if application.rolled_back_because:
        raise RuntimeError(f"The canary of {application.name!r} was ended: {application.rolled_back_because}")
    for each in application.canary.deployments:
        if each.is_given_up:
            raise RuntimeError(f"The canary of {application.name!r} does not run: {each.name}: {each.message}")
    return serves_fully(application.canary)


def until_settled(client: ControlClient, name: str | None, timeout_s: float) -> bool:
    """Until all applications, or only the one called `name`, and the gateways run, or have failed for good.

    Returns False if that takes longer.
    """
    return poll(lambda: _is_settled(client.status(*([name] if name else ())), name), timeout_s)


def until_deleted(client: ControlClient, name: str) -> None:
    """Wait for the end of a deletion, or until the application is deployed again. Raises TimeoutError."""
    timeout_s = settings().client.delete_timeout_s
    if not poll(lambda: not _is_being_deleted(client.status(name), name), timeout_s):
        raise TimeoutError(
            f"Application {name!r} was not gone after {timeout_s:.0f} s; it is still being deleted. "
            "See `mesh status` for the replicas that are left."
        )


def _is_being_deleted(reply: control_pb2.StatusReply, name: str) -> bool:
    application = find_application(reply, name)
    return application is not None and application.status == ApplicationStatus.DELETING


class _GatewayWait:
    """Decides when the wait is over: gateways are healthy, or the same errors have lasted for some seconds."""

    def __init__(
        self, clock: Callable[[], float], is_done: Callable[[control_pb2.StatusReply], bool] | None = None
    ) -> None:
        self._clock = clock
        self._is_done = is_done or _are_healthy
        self._show = GatewayProgressLogger(clock)
        self._errors: set[str] = set()
        self._since_at_s = clock()
        self.status = control_pb2.StatusReply()
        """The last one: a later one may be of a turn of the control loop that has more to do."""

    def is_over(self, reply: control_pb2.StatusReply) -> bool:
        self.status = reply
        wanted = [each for each in reply.gateways if _is_wanted(each, reply) and not _leaves(each)]
        errors = {_kind(each.message) for each in wanted if each.message}
        if errors != self._errors:
            self._errors, self._since_at_s = errors, self._clock()
        is_stuck = bool(errors) and self._clock() - self._since_at_s >= settings().client.gateways_failing_timeout_s
        if is_stuck or self._is_done(reply):
            return True
        self._show(reply)
        return False


_ENDED = (ApplicationStatus.RUNNING, ApplicationStatus.DEPLOY_FAILED)
"""Where a rollout does not wait for anything."""


class ProgressLogger:
    """Logs what a rollout waits for, every ten seconds by default."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._interval = _Interval(clock)

    def __call__(self, application: control_pb2.ApplicationStatus) -> None:
        if application.status in _ENDED or (waited_s := self._interval.elapsed()) is None:
            return
        # Lines of tracebacks are indented.
        lines = [line for line in application.message.splitlines() if not line.startswith(" ")]
        message = "; ".join(lines) or "its replicas are starting"
        logger.warning(
            "application %r has been %s for %.0f s: %s", application.name, application.status, waited_s, message
        )


class GatewayProgressLogger:
    """Logs which gateways are waited for, every ten seconds by default."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._interval = _Interval(clock)

    def __call__(self, reply: control_pb2.StatusReply) -> None:
        waiting = [each for each in reply.gateways if each.status != GatewayStatus.HEALTHY]
        if (waiting or not reply.gateways) and (waited_s := self._interval.elapsed()) is not None:
            logger.warning("still waiting for gateways after %.0f s: %s", waited_s, _states(waiting))


class _Interval:
    """Says when the next line about a wait is due."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started_at_s = clock()
        self._next_at_s = self._started_at_s + settings().client.progress_interval_s

    def elapsed(self) -> float | None:
        """How long the wait has taken; None while the last line is recent."""
        now_s = self._clock()
        if now_s < self._next_at_s:
            return None
        self._next_at_s = now_s + settings().client.progress_interval_s
        return now_s - self._started_at_s


def _are_healthy(reply: control_pb2.StatusReply) -> bool:
    if reply.gateway_options.location == control_pb2.GATEWAY_LOCATION_DISABLED:
        return True
    staying = [each for each in reply.gateways if not _leaves(each)]
    places = {(each.node_id, each.index) for each in staying}
    serving = {(each.node_id, each.index) for each in staying if each.status == GatewayStatus.HEALTHY}
    # A gateway that is wanted and whose start has not begun is not in the list.
    return bool(places) and places == serving and len(serving) >= reply.gateways_wanted


def _have_changed(reply: control_pb2.StatusReply) -> bool:
    """Whether all gateways have the wanted options. Those before them may still drain."""
    if reply.gateway_options.location == control_pb2.GATEWAY_LOCATION_DISABLED:
        return True
    others = [each for each in reply.gateways if not _is_wanted(each, reply)]
    return all(map(_leaves, others)) and _are_healthy(reply)


def _is_wanted(gateway: control_pb2.GatewayStatus, reply: control_pb2.StatusReply) -> bool:
    """Whether it has the wanted options, or is a failed start with them."""
    return gateway.revision == reply.gateways_revision


def _leaves(gateway: control_pb2.GatewayStatus) -> bool:
    return gateway.status == GatewayStatus.DRAINING


def _headline(message: str) -> str:
    return message.partition("\n")[0]


def _kind(message: str) -> str:
    """The same for the same failure of another process: without its id and other numbers."""
    return _NUMBER.sub("", _headline(message))


def _is_running(reply: control_pb2.StatusReply, name: str, show: Show) -> bool:
    application = find_application(reply, name)
    if application is None or application.status == ApplicationStatus.DELETING:
        raise RuntimeError(f"Application {name!r} was deleted while it was being deployed.")
    show(application)
    if application.status == ApplicationStatus.DEPLOY_FAILED:
        raise RuntimeError(f"Deploying application {name!r} failed: {application.message}")
    if application.rolled_back_because:
        raise RuntimeError(
            f"Deploying application {name!r} failed, and it went back to the version before:"
            f" {application.rolled_back_because}"
        )
    return application.status == ApplicationStatus.RUNNING or _stands_still(application)


def _stands_still(application: control_pb2.ApplicationStatus) -> bool:
    """All that is missing waits for `mesh resume`."""
    updating = [each for each in application.deployments if each.status == DeploymentStatus.UPDATING]
    return bool(updating) and all(each.is_paused for each in updating)


def _are_settled(reply: control_pb2.StatusReply, names: Sequence[str], show: Show, failures: dict[str, str]) -> bool:
    """Whether each application runs or is now in `failures` with the reason."""
    running = []
    for name in names:
        try:
            running.append(_is_running(reply, name, show) and not _is_resizing(find_application(reply, name)))
            failures.pop(name, None)
        except RuntimeError as error:
            failures[name] = str(error)
            running.append(True)
    return all(running)


def _is_settled(reply: control_pb2.StatusReply, name: str | None) -> bool:
    return _are_healthy(reply) and all(
        each.status == ApplicationStatus.DEPLOY_FAILED
        or (each.status == ApplicationStatus.RUNNING and not _is_resizing(each))
        for each in reply.applications
        if name in (None, each.name)
    )


def _is_resizing(application: control_pb2.ApplicationStatus | None) -> bool:
    """Whether it still changes to another number of replicas. Such an application runs all the time."""
    return application is not None and any(
        each.status in _RESIZING and each.trigger == DeploymentStatusTrigger.CONFIG_UPDATE_STARTED
        for each in application.deployments
    )
