"""The index of rules by path: a look-up takes a time that depends on the path's length, not on the number of rules.

Templates form a tree of segments. A look-up follows all branches that fit at once: the set of nodes after a segment is
a state, and what follows a state for each literal is worked out once and kept. Of several rules that fit, the one wins
that has a literal where the other has `*`, or `*` where the other has `**`, at the first segment that differs.
Before that, of several applications with rules that fit, the one wins that was deployed with such a rule first: another
application, whatever its rules are, takes no path away from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from gateway.transcoding.path_template import DOUBLE_STAR, STAR, PathTemplate, decode_segment

T = TypeVar("T")

SEGMENTS_MAX = 256
"""Segments of a path; longer ones fit no rule."""

_STATES_KEPT_MAX = 4096
"""Rules with many wildcards can have as many states as there are subsets of them; the rest is worked out each time."""

ANY_METHOD = "*"
"""The HTTP method of a rule that takes all of them. GET takes HEAD as well (RFC 9110 §9.3.2)."""


class Owner(NamedTuple):
    """The application of a rule. Compared by age: that of the lower order was deployed first."""

    order: int
    application: str


_NO_OWNER = Owner(0, "")


class OwnedRule(NamedTuple, Generic[T]):
    """What serves a path, of all that fits."""

    template: PathTemplate
    rule: T
    owner: Owner
    """With the lowest order of its rules that fit."""
    applications: frozenset[str]
    """All that have rules that fit."""


@dataclass(frozen=True, slots=True)
class FoundRule(Generic[T]):
    """What an index knows of a path."""

    best: OwnedRule[T] | None
    """None: the path has rules, and none for this HTTP method."""
    segments: list[str]
    """The segments of the path, still encoded, without the verb."""
    methods: frozenset[str]
    """All HTTP methods that the path has rules for."""


class RuleIndex(Generic[T]):
    """Rules by path and HTTP method."""

    def __init__(
        self, rules: Iterable[tuple[PathTemplate, str, T]], owner_of: Callable[[T], Owner] = lambda rule: _NO_OWNER
    ) -> None:
        self._owner_of = owner_of
        self._verbs: set[str] = set()
        self._kept = 1
        root: _Node[T] = _Node()
        for template, method, rule in rules:
            node = root
            for segment in template.segments:
                node = node.grow(segment)
            node.rules.setdefault(template.verb, {}).setdefault(method, []).append((template, rule))
            self._verbs.add(template.verb)
        self._root = root
        self._start = _State(_with_rests([root]))

    def find(self, method: str, path: str) -> FoundRule[T] | None:
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
        without = self._answer(self._after(state, last), "", method, segments)
        if with_verb is None or without is None:
            return with_verb or without
        if with_verb.best is None and without.best is None:
            return FoundRule(None, segments, with_verb.methods | without.methods)
        return without if _is_earlier(without.best, with_verb.best) else with_verb

    def equal_rules(self) -> Iterator[tuple[str, list[T]]]:
        """Rules of which one takes all the paths of the others, with their HTTP method; the first one is served."""
        waiting = [self._root]
        for node in waiting:
            waiting += node.children()
            for by_method in node.rules.values():
                for method, rules in by_method.items():
                    if len(rules) > 1:
                        yield method, sorted((rule for _, rule in rules), key=self._owner_of)

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

    def _answer(self, state: _State[T], verb: str, method: str, segments: list[str]) -> FoundRule[T] | None:
        by_method = state.rules(verb, self._owner_of)
        if not by_method:
            return None
        best = by_method.get(method)
        if best is None and method == "HEAD":
            best = by_method.get("GET")
        return FoundRule(best or by_method.get(ANY_METHOD), segments, frozenset(by_method))


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

    def children(self) -> list[_Node[T]]:
        """The nodes of all next segments."""
        return [*self.literals.values(), *(each for each in (self.star, self.rest) if each is not None)]

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
        self._rules: dict[str, dict[str, OwnedRule[T]]] | None = None

    def rules(self, verb: str, owner_of: Callable[[T], Owner]) -> dict[str, OwnedRule[T]]:
        """By HTTP method: of the templates with this verb that may end here, the one that serves the path."""
        if self._rules is None:
            found: dict[str, dict[str, list[tuple[PathTemplate, T]]]] = {}
            for node in self.nodes:
                for each, by_method in node.rules.items():
                    for method, rules in by_method.items():
                        found.setdefault(each, {}).setdefault(method, []).extend(rules)
            self._rules = {each: _owned_rules(by_method, owner_of) for each, by_method in found.items()}
        return self._rules.get(verb, {})


def _owned_rules(
    found: dict[str, list[tuple[PathTemplate, T]]], owner_of: Callable[[T], Owner]
) -> dict[str, OwnedRule[T]]:
    """By HTTP method, from all rules for it that fit a path, in the order of precedence."""
    return {
        method: _owned([*rules, *(rule for each in _also_served_by(method) for rule in found.get(each, ()))], owner_of)
        for method, rules in found.items()
    }


def _also_served_by(method: str) -> tuple[str, ...]:
    """The methods of rules that take this HTTP method too, the best one first."""
    match method:
        case "HEAD":
            return "GET", ANY_METHOD
        case "*":
            return ()
    return (ANY_METHOD,)


def _owned(rules: list[tuple[PathTemplate, T]], owner_of: Callable[[T], Owner]) -> OwnedRule[T]:
    owners = [owner_of(rule) for _, rule in rules]
    first = min(owners)
    template, rule = next(
        each for each, owner in zip(rules, owners, strict=True) if owner.application == first.application
    )
    return OwnedRule(template, rule, first, frozenset(owner.application for owner in owners))


def _is_earlier(one: OwnedRule[T] | None, other: OwnedRule[T] | None) -> bool:
    """Whether `one` belongs to another application, which was there before that of `other`."""
    if one is None or other is None:
        return other is None
    return one.owner.application != other.owner.application and one.owner < other.owner


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
