"""The thread in which the request routers of users run, so that no event loop of the mesh waits for them."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import cache
from typing import Any

from mesh.cluster.keys import DeploymentKey
from mesh.context import ReplicaId
from mesh.routing.custom.router_contract import PendingRequest, RequestRouter, RunningReplica
from mesh.routing.snapshot import RouterSpec
from mesh.settings import settings
from mesh.wire.io_thread import Mailbox, io_thread

logger = logging.getLogger("mesh")

_LOG_INTERVAL_S = 10.0
"""Least time between two log lines about a router that fails."""

Ranking = tuple[frozenset[str], ...] | None
"""Groups of replica ids; None: the router has no say, because it failed."""


class HostedRouter:
    """One user's router in its thread. Methods are called on the I/O loop; none of them blocks or raises."""

    def __init__(self, spec: RouterSpec, key: DeploymentKey, node_id: str, zone: str) -> None:
        self._spec = spec
        self.key = key
        self._place = node_id, zone
        self._router: RequestRouter | None = None
        self._has_failed = False
        """It could not be made: it is not tried again."""
        self._logged_at_s = -_LOG_INTERVAL_S
        self._started = 0
        """Coroutines given to the thread; counted on the I/O loop."""
        self._ended = 0
        """Those of them that have ended; counted in the thread."""

    def __repr__(self) -> str:
        return f"<HostedRouter {self._spec.import_path} of {self.key}>"

    @property
    def open_count(self) -> int:
        """Questions and notices that the router has not dealt with yet."""
        return self._started - self._ended

    @property
    def is_overloaded(self) -> bool:
        """It is stuck or too slow, and is asked nothing more at the moment."""
        return self.open_count >= settings().routing.request_router_open_max

    def rank(
        self, candidates: list[RunningReplica], pending: PendingRequest, on_ranked: Callable[[Ranking], None]
    ) -> Callable[[], None]:
        """Have the candidates ranked; `on_ranked` is called on the I/O loop, possibly never if user code is stuck.

        It is called with None before this returns if the router is overloaded. Returns a function that withdraws the
        question.
        """
        if self.is_overloaded:
            self.report("has too many unanswered questions", None)
            on_ranked(None)
            return _nothing
        return self._start(self._rank(candidates, pending, on_ranked))

    def tell_routed(self, pending: PendingRequest, replica_id: str) -> None:
        """Tell the router where the call was sent, unless it is overloaded."""
        if not self.is_overloaded:
            self._start(self._tell_routed(pending, replica_id))

    def report(self, what: str, error: BaseException | None) -> None:
        """Log a failure of the router, at most once in a while. From any thread."""
        now_s = time.monotonic()
        if now_s - self._logged_at_s >= _LOG_INTERVAL_S:
            self._logged_at_s = now_s
            logger.warning(
                "the request router %s of %s %s; calls go by the usual rules",
                self._spec.import_path,
                self.key,
                what,
                exc_info=error,
            )

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> Callable[[], None]:
        self._started += 1
        return _thread().start(coroutine, self._on_end)

    # ---- In the thread -----------------------------------------------------------------------------------------------

    def _on_end(self) -> None:
        self._ended += 1

    async def _rank(
        self, candidates: list[RunningReplica], pending: PendingRequest, on_ranked: Callable[[Ranking], None]
    ) -> None:
        ranking: Ranking = None
        router = self._made()
        if router is not None:
            try:
                router.curr_replicas = {each.replica_id: each for each in candidates}
                groups = await router.choose_replicas(list(candidates), pending)
                ranking = read_ranking(groups, {each.replica_id for each in candidates})
            except asyncio.CancelledError:
                pass  # the question was withdrawn, or code of the user has cancelled itself
            except BaseException as error:  # code of the user, which may also call sys.exit
                self.report("failed", error)
        io_thread().post(on_ranked, ranking)

    async def _tell_routed(self, pending: PendingRequest, replica_id: str) -> None:
        if self._router is not None:
            try:
                self._router.on_request_routed(pending, ReplicaId(replica_id, self.key), None)
            except BaseException as error:  # code of the user
                self.report("failed in on_request_routed", error)

    def _made(self) -> RequestRouter | None:
        if self._router is None and not self._has_failed:
            try:
                self._router = self._make()
            except BaseException as error:  # an import and code of the user
                self._has_failed = True
                self.report("cannot be made in this process", error)
        return self._router

    def _make(self) -> RequestRouter:
        module, _, name = self._spec.import_path.partition(":")
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        if not (isinstance(found, type) and issubclass(found, RequestRouter)):
            raise TypeError(f"{self._spec.import_path} is not derived from mesh.request_router.RequestRouter.")
        router = found()
        router.deployment_id = self.key
        router.node_id, router.availability_zone = self._place
        router.initialize_state(**json.loads(self._spec.kwargs_json))
        return router


def read_ranking(groups: Sequence[Sequence[RunningReplica | str]], known: set[str]) -> tuple[frozenset[str], ...]:
    """The ids of the replicas in each group that is not empty. Raises TypeError for anything but groups of candidates.

    Replicas that are not candidates are ignored: a router may remember some that are gone.
    """
    if isinstance(groups, str) or not isinstance(groups, Sequence):
        raise TypeError(f"choose_replicas must return a list of lists of replicas, not {groups!r}.")
    ranking: list[frozenset[str]] = []
    for group in groups:
        if isinstance(group, str | RunningReplica) or not isinstance(group, Sequence):
            raise TypeError(f"choose_replicas must return a list of lists of replicas; a group is {group!r}.")
        ids = [each.replica_id if isinstance(each, RunningReplica) else each for each in group]
        chosen = frozenset(each for each in ids if each in known)
        if chosen:
            ranking.append(chosen)
    return tuple(ranking)


def _nothing() -> None:
    """Withdraws a question that was never asked."""


class _RouterThread:
    """One event loop for all routers of this process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._mailbox = Mailbox(self._loop)
        self._tasks: set[asyncio.Task[None]] = set()
        threading.Thread(target=self._run, name="mesh-request-router", daemon=True).start()

    def start(self, coroutine: Coroutine[Any, Any, None], on_end: Callable[[], None]) -> Callable[[], None]:
        """Run a coroutine, then `on_end` in the thread. Returns a function that cancels it, for any thread."""
        tasks: list[asyncio.Task[None]] = []

        def begin() -> None:
            task = self._loop.create_task(coroutine)
            tasks.append(task)
            self._tasks.add(task)
            task.add_done_callback(end)

        def end(task: asyncio.Task[None]) -> None:
            tasks.clear()
            self._tasks.discard(task)
            on_end()

        def cancel() -> None:
            for task in tasks:
                task.cancel()

        self._mailbox.post(begin)
        return lambda: self._mailbox.post(cancel)

    def _run(self) -> None:
        while True:
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                # asyncio lets these out of the loop when a task that user code has started raises them.
                logger.exception("a task of a request router tried to end the process")


@cache
def _thread() -> _RouterThread:
    return _RouterThread()
