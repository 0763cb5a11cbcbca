"""A limit on events of one kind per window of time, so that a flood of them cannot fill a log. Pure."""

from __future__ import annotations

from collections.abc import Hashable

_KINDS_MAX = 100


class FloodLimit:
    """Admits the first `per_window` events of each kind in a window and counts the others."""

    def __init__(self, per_window: int, window_s: float) -> None:
        self.per_window = per_window
        self.window_s = window_s
        self._began_at_s = float("-inf")
        self._admitted: dict[Hashable, int] = {}
        self._suppressed = 0

    def begin(self, now_s: float) -> int:
        """Begin a new window if the last one has passed; returns the number of events it suppressed, else 0."""
        if now_s - self._began_at_s < self.window_s:
            return 0
        suppressed, self._suppressed = self._suppressed, 0
        self._began_at_s = now_s
        self._admitted.clear()
        return suppressed

    def admit(self, kind: Hashable) -> int:
        """The number of this event among those of its kind in this window, from 1; 0: it is suppressed."""
        number = self._admitted.get(kind, 0) + 1
        is_new_kind_too_many = number == 1 and len(self._admitted) >= _KINDS_MAX
        if number > self.per_window or is_new_kind_too_many:
            self._suppressed += 1
            return 0
        self._admitted[kind] = number
        return number
