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
from mesh.routing.custom.router_contract import PendingRequest, RequestRouter, RunningReplica
from mesh.routing.snapshot import RouterSpec
from mesh.wire.io_thread import Mailbox, io_thread

logger = logging.getLogger("mesh")

_LOG_INTERVAL_S = 10.0

Ranking = tuple[frozenset[str], ...] | None
"""Groups of replica ids; None: the router has no say, because it failed."""


class HostedRouter:
    """One user's router in its thread. Methods are called on the I/O loop; none of them blocks or raises."""

    def __init__(self, spec: RouterSpec, key: DeploymentKey, node_id: str, zone: str) -> None:
        self._spec = spec
        self._key = key
        self._place = node_id, zone
        self._router: RequestRouter | None = None
        self._has_failed = False
        """It could not be made: it is not tried again."""
        self._logged_at_s = -_LOG_INTERVAL_S

    def __repr__(self) -> str:
        return f"<HostedRouter {self._spec.import_path} of {self._key}>"

    def rank(
        self, candidates: list[RunningReplica], pending: PendingRequest, on_ranked: Callable[[Ranking], None]
    ) -> None:
        """Have the candidates ranked; `on_ranked` is called on the I/O loop, possibly never if user code is stuck."""
        _thread().post(self._rank(candidates, pending, on_ranked))

    def tell_routed(self, pending: PendingRequest, replica_id: str) -> None:
        """Tell the router where the call was sent."""
        _thread().post(self._tell_routed(pending, replica_id))

    def report(self, what: str, error: BaseException | None) -> None:
        """Log a failure of the router, at most once in a while. From any thread."""
        now_s = time.monotonic()
        if now_s - self._logged_at_s >= _LOG_INTERVAL_S:
            self._logged_at_s = now_s
            logger.warning(
                "the request router %s of %s %s; calls go by the usual rules",
                self._spec.import_path,
                self._key,
                what,
                exc_info=error,
            )

    # ---- In the thread -----------------------------------------------------------------------------------------------

    async def _rank(
        self, candidates: list[RunningReplica], pending: PendingRequest, on_ranked: Callable[[Ranking], None]
    ) -> None:
        ranking: Ranking = None
        router = self._made()
        if router is not None:
            try:
                groups = await router.choose_replicas(list(candidates), pending)
                ranking = read_ranking(groups, {each.replica_id for each in candidates})
            except Exception as error:  # code of the user
                self.report("failed", error)
        io_thread().post(on_ranked, ranking)

    async def _tell_routed(self, pending: PendingRequest, replica_id: str) -> None:
        if self._router is not None:
            try:
                self._router.on_request_routed(pending, replica_id)
            except Exception as error:  # code of the user
                self.report("failed in on_request_routed", error)

    def _made(self) -> RequestRouter | None:
        if self._router is None and not self._has_failed:
            try:
                self._router = self._make()
            except Exception as error:  # an import and code of the user
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
        router.deployment_id = self._key
        router.node_id, router.availability_zone = self._place
        router.initialize_state(**json.loads(self._spec.kwargs_json))
        return router


def read_ranking(groups: Sequence[Sequence[RunningReplica | str]], known: set[str]) -> tuple[frozenset[str], ...]:
    """The ids of the replicas in each group that is not empty. Raises TypeError for anything but groups of candidates.

    Replicas that are no candidates are ignored: a router may remember some that are gone.
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


class _RouterThread:
    """One event loop for all routers of this process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._mailbox = Mailbox(self._loop)
        self._tasks: set[asyncio.Task[None]] = set()
        threading.Thread(target=self._loop.run_forever, name="mesh-request-router", daemon=True).start()

    def post(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._mailbox.post(self._start, coroutine)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@cache
def _thread() -> _RouterThread:
    return _RouterThread()
