"""The index of rules by path: a look-up takes a time that depends on the path's length, not on the number of rules.

Templates form a tree of segments. A look-up follows all branches that fit at once: the set of nodes after a segment is
a state, and what follows a state for each literal is worked out once and kept. Of several rules that fit, the one wins
that has a literal where the other has `*`, or `*` where the other has `**`, at the first segment that differs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from gateway.transcoding.path_template import DOUBLE_STAR, STAR, PathTemplate, decode_segment

T = TypeVar("T")

SEGMENTS_MAX = 256
"""Segments of a path; longer ones fit no rule."""

_STATES_KEPT_MAX = 4096
"""Rules with many wildcards can have as many states as there are subsets of them; the rest is worked out each time."""

ANY_METHOD = "*"
"""The HTTP method of a rule that takes all of them. GET takes HEAD as well (RFC 9110 §9.3.2)."""


@dataclass(frozen=True, slots=True)
class FoundRules(Generic[T]):
    """What serves a path."""

    rules: tuple[tuple[PathTemplate, T], ...]
    """Equal in precedence. Empty: the path has rules, and none for this HTTP method."""
    segments: list[str]
    """The segments of the path, still encoded, without the verb."""
    methods: frozenset[str]
    """All HTTP methods that the path has rules for."""


class RuleIndex(Generic[T]):
    """Rules by path and HTTP method."""

    def __init__(self, rules: Iterable[tuple[PathTemplate, str, T]]) -> None:
        self._verbs: set[str] = set()
        self._kept = 1
        root: _Node[T] = _Node()
        for template, method, rule in rules:
            node = root
            for segment in template.segments:
                node = node.grow(segment)
            node.rules.setdefault(template.verb, {}).setdefault(method, []).append((template, rule))
            self._verbs.add(template.verb)
        self._start = _State(_with_rests([root]))

    def find(self, method: str, path: str) -> FoundRules[T] | None:
        """None: no rule has this path. Raises ValueError for a path that cannot be decoded."""
        segments = path.split("/", SEGMENTS_MAX + 1)[1:]
        if len(segments) > SEGMENTS_MAX:
            return None
        state = self._start
        for segment in segments[:-1]:
            if not state.nodes:
                return None
            state = self._after(state, segment)
        last = segments[-1]
        before, colon, verb = last.rpartition(":")
        with_verb = None
        if colon and (verb := decode_segment(verb)) in self._verbs and verb:
            with_verb = self._answer(self._after(state, before), verb, method, [*segments[:-1], before])
            if with_verb is not None and with_verb.rules:
                return with_verb
        without = self._answer(self._after(state, last), "", method, segments)
        if without is not None and with_verb is not None and not without.rules:
            return FoundRules((), segments, with_verb.methods | without.methods)
        return without or with_verb

    def _after(self, state: _State[T], segment: str) -> _State[T]:
        segment = decode_segment(segment)
        known = state.next.get(segment)
        if known is not None:
            return known
        is_literal = any(segment in node.literals for node in state.nodes)
        if not is_literal:
            segment = STAR if segment else ""
            known = state.next.get(segment)
            if known is not None:
                return known
        following = _State(_following(state.nodes, segment))
        if self._kept < _STATES_KEPT_MAX:
            self._kept += 1
            state.next[segment] = following
        return following

    @staticmethod
    def _answer(state: _State[T], verb: str, method: str, segments: list[str]) -> FoundRules[T] | None:
        by_method = state.rules(verb)
        if not by_method:
            return None
        rules = by_method.get(method)
        if rules is None and method == "HEAD":
            rules = by_method.get("GET")
        rules = rules or by_method.get(ANY_METHOD) or []
        return FoundRules(tuple(rules), segments, frozenset(by_method))


class _Node(Generic[T]):
    """One segment of the tree of templates."""

    __slots__ = ("is_rest", "literals", "rest", "rules", "star")

    def __init__(self, *, is_rest: bool = False) -> None:
        self.literals: dict[str, _Node[T]] = {}
        self.star: _Node[T] | None = None
        self.rest: _Node[T] | None = None
        self.is_rest = is_rest
        self.rules: dict[str, dict[str, list[tuple[PathTemplate, T]]]] = {}
        """By verb, then by HTTP method: of templates that end here."""

    def grow(self, segment: str) -> _Node[T]:
        """The node of the next segment of a template."""
        if segment == DOUBLE_STAR:
            self.rest = self.rest or _Node(is_rest=True)
            return self.rest
        if segment == STAR:
            self.star = self.star or _Node()
            return self.star
        return self.literals.setdefault(segment, _Node())


class _State(Generic[T]):
    """The nodes that fit a path so far, in the order of precedence."""

    __slots__ = ("_rules", "next", "nodes")

    def __init__(self, nodes: list[_Node[T]]) -> None:
        self.nodes = nodes
        self.next: dict[str, _State[T]] = {}
        """By decoded segment; STAR stands for all that no template has as a literal, "" for an empty one."""
        self._rules: dict[str, dict[str, list[tuple[PathTemplate, T]]]] | None = None

    def rules(self, verb: str) -> dict[str, list[tuple[PathTemplate, T]]]:
        """By HTTP method: of the templates with this verb that may end here, the best ones."""
        if self._rules is None:
            self._rules = {}
            for node in self.nodes:
                for each, by_method in node.rules.items():
                    best = self._rules.setdefault(each, {})
                    for method, rules in by_method.items():
                        best.setdefault(method, rules)
        return self._rules.get(verb, {})


def _following(nodes: list[_Node[T]], segment: str) -> list[_Node[T]]:
    following: list[_Node[T]] = []
    for node in nodes:
        literal = node.literals.get(segment)
        if literal is not None:
            following.append(literal)
        if node.star is not None and segment:
            following.append(node.star)
        if node.is_rest:
            following.append(node)
    return _with_rests(following)


def _with_rests(nodes: list[_Node[T]]) -> list[_Node[T]]:
    """`**` also fits no segment at all."""
    return [each for node in nodes for each in (node, node.rest) if each is not None]
