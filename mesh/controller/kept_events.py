"""Which events are kept: the last ones, but no application and no kind of event pushes out all others. Pure.

A mass deploy makes an event for each of thousands of starts, and a deployment that crashes without end makes some for
each attempt. Where an application has more than half of the events, its most frequent kind loses its oldest one; where
a kind has more than a quarter, that loses its oldest one; otherwise the oldest of all goes.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from mesh.v1 import control_pb2

_SHARE_OF_APPLICATION, _SHARE_OF_KIND = 2, 4
"""One event in this number."""
_FIRST_WORDS = re.compile(r"(?:(?!application )[a-z']+ ){0,3}(?:application )?")
_NAMED = re.compile(r"(?:^|[ '\"])(?:([^ /'\":;,]+)/|application '?([^ /'\":;,]+))")

_Numbers = dict[int, None]
"""Of events, the oldest first."""


class KeptEvents:
    """Some events, the oldest first. Their numbers grow."""

    def __init__(self, most: int, events: Iterable[control_pb2.Event] = ()) -> None:
        self._most = most
        self._events: dict[int, tuple[control_pb2.Event, str, str]] = {}
        """With their kind and application."""
        self._of_kind: defaultdict[str, _Numbers] = defaultdict(dict)
        self._of_application: defaultdict[str, defaultdict[str, _Numbers]] = defaultdict(lambda: defaultdict(dict))
        """By kind."""
        self._counts: Counter[str] = Counter()
        """By application."""
        self._largest = ""
        """The application that was the last one to exceed its share: at most one does."""
        for event in events:
            self.add(event)

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[control_pb2.Event]:
        return (event for event, _, _ in self._events.values())

    def add(self, event: control_pb2.Event) -> None:
        """Does nothing for one whose number it has."""
        if event.number in self._events:
            return
        kind, app = kind_of(event.text), application_of(event.text)
        self._events[event.number] = event, kind, app
        self._of_kind[kind][event.number] = None
        if app:
            self._of_application[app][kind][event.number] = None
            self._counts[app] += 1
            if self._is_too_large(app):
                self._largest = app
        if len(self._events) > self._most:
            self._drop(next(iter(self._crowd())))

    def _crowd(self) -> Iterable[int]:
        """Of whom one goes."""
        if self._is_too_large(self._largest):
            return _longest(self._of_application[self._largest].values())
        longest = _longest(self._of_kind.values())
        return longest if len(longest) > self._most // _SHARE_OF_KIND else self._events

    def _is_too_large(self, app: str) -> bool:
        return self._counts[app] > self._most // _SHARE_OF_APPLICATION

    def _drop(self, number: int) -> None:
        _, kind, app = self._events.pop(number)
        _remove(self._of_kind, kind, number)
        if app:
            _remove(self._of_application[app], kind, number)
            self._counts[app] -= 1
            if not self._counts[app]:
                del self._of_application[app], self._counts[app]


def kind_of(text: str) -> str:
    """The first words of an event, up to the first name or number: "starting replica", "scaling"."""
    return _FIRST_WORDS.match(text)[0].rstrip()  # type: ignore[index]  # it also matches nothing


def application_of(text: str) -> str:
    """The application of the first deployment or replica that the event names; empty where it names none."""
    found = _NAMED.search(text)
    return found[1] or found[2] if found else ""


def _longest(groups: Iterable[_Numbers]) -> _Numbers:
    """Of some that are as long the one with the oldest event."""
    return max(groups, key=lambda numbers: (len(numbers), -next(iter(numbers))))


def _remove(groups: dict[str, _Numbers], kind: str, number: int) -> None:
    del groups[kind][number]
    if not groups[kind]:
        del groups[kind]
