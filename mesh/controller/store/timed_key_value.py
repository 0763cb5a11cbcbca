"""A KeyValue that counts the requests to another one, their failures and their time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from mesh.controller.store.desired_store import KeyValue, StoreError

T = TypeVar("T")


@dataclass(slots=True)
class StoreUsage:
    calls: int = 0
    failures: int = 0
    seconds: float = 0.0


class TimedKeyValue:
    """Blocking, from any thread."""

    def __init__(self, kv: KeyValue, stopwatch: Callable[[], float] = time.perf_counter) -> None:
        self._kv = kv
        self._stopwatch = stopwatch
        self._lock = threading.Lock()
        self.usage = {name: StoreUsage() for name in ("get", "put", "delete", "keys")}
        """By operation."""

    def get(self, key: str) -> bytes | None:
        return self._timed("get", lambda: self._kv.get(key))

    def put(self, key: str, value: bytes) -> None:
        self._timed("put", lambda: self._kv.put(key, value))

    def delete(self, key: str) -> None:
        self._timed("delete", lambda: self._kv.delete(key))

    def keys(self, prefix: str) -> list[str]:
        return self._timed("keys", lambda: self._kv.keys(prefix))

    def _timed(self, operation: str, request: Callable[[], T]) -> T:
        began_at_s = self._stopwatch()
        failures = 0
        try:
            return request()
        except StoreError:
            failures = 1
            raise
        finally:
            with self._lock:
                usage = self.usage[operation]
                usage.calls += 1
                usage.failures += failures
                usage.seconds += self._stopwatch() - began_at_s
