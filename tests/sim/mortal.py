"""A controller's life, counted in steps: every call to the cluster and to the KV is one before and one after it."""

import functools
from collections.abc import Callable
from typing import Any

from mesh.controller.store.desired_store import StoreError
from tests.sim.fake_cluster import FakeCluster
from tests.unit.controller.dict_kv import DictKeyValue


class ControllerCrashed(BaseException):
    """Like a SIGKILL: no `except Exception` of the controller gets to see it."""


class Life:
    """Ends at a given step: every task of the controller stops there."""

    def __init__(self, on_death: Callable[[], None]) -> None:
        self.steps = 0
        self.dies_at_step = 0
        """0: never."""
        self.is_over = False
        self._on_death = on_death

    def step(self) -> None:
        if not self.is_over:
            self.steps += 1
            if self.steps != self.dies_at_step:
                return
            self.is_over = True
            self._on_death()
        raise ControllerCrashed


class MortalRuntime:
    """The cluster, as a controller that may die at every step sees it."""

    def __init__(self, cluster: FakeCluster, life: Life) -> None:
        self._cluster = cluster
        self._life = life

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._cluster, name)
        if name == "nodes":
            method = functools.partial(method, self._life)

        async def call(*arguments: Any) -> Any:
            self._life.step()
            answer = await method(*arguments)
            self._life.step()
            return answer

        return call


class MortalKeyValue:
    """The KV, as a controller that may die at every step sees it. It may also fail to answer."""

    def __init__(self, kv: DictKeyValue, life: Life, is_failing: Callable[[], bool]) -> None:
        self._kv = kv
        self._life = life
        self._is_failing = is_failing

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._kv, name)

        def call(*arguments: Any) -> Any:
            self._life.step()
            if self._is_failing():
                raise StoreError("the request was lost")
            answer = method(*arguments)
            self._life.step()
            if self._is_failing():
                raise StoreError("the answer was lost")
            return answer

        return call
