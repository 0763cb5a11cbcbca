"""Which typed method a path of HTTP calls, and how its messages are translated. Rebuilt when the routes change.

Every method with descriptors has the path "/package.Service/Method" and those of its rules; both also below the route
prefix of its application. Translations are compiled at the first call and kept as long as their descriptors are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from gateway.requests.descriptors import Descriptors
from gateway.requests.routes import NO_ROUTES, Refusal, RoutedApplication, Routes
from gateway.transcoding.field_error import FieldError
from gateway.transcoding.http_rules import TranscodingRule, method_rule, read_rules
from gateway.transcoding.json_reader import JsonReaders
from gateway.transcoding.json_writer import JsonWriters
from gateway.transcoding.path_template import PathTemplate
from gateway.transcoding.request_binding import RequestBinding
from gateway.transcoding.response_json import ResponseForm
from gateway.transcoding.rule_index import Owner, RuleIndex
from mesh.rpc.status_codes import NOT_FOUND, UNIMPLEMENTED

logger = logging.getLogger("mesh.gateway")

_ANNOTATIONS_FILE = "google/api/annotations.proto"


@dataclass(frozen=True, slots=True, eq=False)
class Translation:
    """How one rule of a method of an application is served."""

    application: str
    full_name: str
    rule: TranscodingRule
    request: RequestBinding
    response: ResponseForm
    pool: DescriptorPool


@dataclass(frozen=True, slots=True)
class JsonTarget:
    """What a request calls."""

    translation: Translation
    variables: tuple[str, ...]
    """Decoded, in the order of the template."""


@dataclass(frozen=True, slots=True)
class OtherMethods:
    """The path is served, by other HTTP methods."""

    allowed: frozenset[str]


class JsonMethods:
    """The methods of all applications. I/O loop only."""

    def __init__(self) -> None:
        self._routes = NO_ROUTES
        self._codecs: dict[str, _Codecs] = {}
        self._indexes: dict[str | None, RuleIndex[_PlacedRule]] = {}
        """By application; None: of all."""
        self._entries: dict[str, list[_IndexedRule]] = {}
        self._conflicts: frozenset[str] = frozenset()
        """Rules of different methods for the same paths, as the log has them."""
        self._services: frozenset[str] = frozenset()
        """The paths of services: "/package.Service", and the same below the route prefix of their application."""

    def set_routes(self, routes: Routes) -> None:
        """Use these for new requests."""
        self._routes = routes
        self._indexes = {}
        self._entries = {}
        self._services = frozenset(_service_paths(routes))
        digests = {each.descriptors.digest for each in routes.applications.values()}
        self._codecs = {digest: each for digest, each in self._codecs.items() if digest in digests}

    def find(self, http_method: str, path: str, application: str | None) -> JsonTarget | OtherMethods | Refusal | None:
        """What a path calls; None if no method has it. Raises FieldError for a path that cannot be decoded."""
        if path in self._routes.unnamed:
            return self._find_method(http_method, path, application)
        index = self._index(application)
        if index is None:
            return None
        try:
            found = index.find(http_method, path)
            if found is None or found.best is None:
                return None if found is None else OtherMethods(found.methods)
            template, (_, entry), owner, applications = found.best
            if not owner.order and len(applications) > 1:
                return _ambiguous(path, sorted(applications))
            variables = tuple(each.value(found.segments) for each in template.variables)
        except ValueError as error:
            raise FieldError(str(error)) from None
        return JsonTarget(entry.translation(), variables)

    def knows_service(self, path: str) -> bool:
        """Whether a path has the form of a method of a service that is deployed."""
        service, _, method = path.rpartition("/")
        return bool(method) and service in self._services

    def _find_method(
        self, http_method: str, full_name: str, application: str | None
    ) -> JsonTarget | OtherMethods | Refusal | None:
        if http_method != "POST":
            return OtherMethods(frozenset({"POST"}))
        route = self._routes.find(application, full_name, advises=False)
        if isinstance(route, Refusal):
            return None  # `ServedMethods` has the words, and a limit on those that take long to find
        chosen = self._routes.applications[route.deployment.app]
        translation = self._codecs_of(chosen.descriptors).translation(chosen.name, full_name)
        if translation is None:
            text = f"{full_name} has no descriptors at this gateway: call it by gRPC."
            return Refusal(UNIMPLEMENTED, text, chosen.name)
        return JsonTarget(translation, ())

    def _index(self, application: str | None) -> RuleIndex[_PlacedRule] | None:
        index = self._indexes.get(application)
        if index is None:
            if application is not None and application not in self._routes.applications:
                return None
            names = self._routes.applications if application is None else (application,)
            # Of two methods with one rule, the index serves the one that comes first.
            entries = sorted((each for name in names for each in self._entries_of(name)), key=lambda each: each.order)
            index = self._indexes[application] = RuleIndex(_placed(entries), _owner_of)
            if application is None:
                self._warn_of_conflicts(index)
        return index

    def _warn_of_conflicts(self, index: RuleIndex[_PlacedRule]) -> None:
        """Once for each, as long as it is there."""
        conflicts = frozenset(_conflicts(index))
        for text in sorted(conflicts - self._conflicts):
            logger.warning("%s", text)
        self._conflicts = conflicts

    def _entries_of(self, name: str) -> list[_IndexedRule]:
        entries = self._entries.get(name)
        if entries is None:
            application = self._routes.applications[name]
            entries = self._entries[name] = list(self._codecs_of(application.descriptors).entries(application))
        return entries

    def _codecs_of(self, descriptors: Descriptors) -> _Codecs:
        codecs = self._codecs.get(descriptors.digest)
        if codecs is None:
            codecs = self._codecs[descriptors.digest] = _Codecs(descriptors)
        return codecs


class _Codecs:
    """What is compiled from one set of descriptors."""

    def __init__(self, descriptors: Descriptors) -> None:
        self._descriptors = descriptors
        self._readers = JsonReaders(descriptors.pool)
        self._writers = JsonWriters(descriptors.pool)
        self._translations: dict[tuple[str, str, TranscodingRule | None], Translation] = {}
        self._has_warned = False

    def translation(self, application: str, full_name: str, rule: TranscodingRule | None = None) -> Translation | None:
        """By a rule, else by the path of the method itself; None if the descriptors do not have it."""
        key = application, full_name, rule
        known = self._translations.get(key)
        if known is None:
            messages = self._descriptors.method(full_name)
            if messages is None:
                return None
            known = self._translations[key] = self._compiled(
                application, full_name, messages.descriptor, rule or method_rule(full_name)
            )
        return known

    def entries(self, application: RoutedApplication) -> Iterator[_IndexedRule]:
        """All rules of the methods of an application, and below its route prefix their own paths."""
        prefix = application.route_prefix.rstrip("/")
        if not prefix and _ANNOTATIONS_FILE not in self._descriptors.files:
            return
        problems: list[str] = []
        for full_name, route in application.methods.items():
            messages = self._descriptors.method(full_name)
            if messages is None:
                continue
            found = read_rules(messages.descriptor)
            problems += found.problems
            for rule in found.rules:
                yield _IndexedRule(application.name, full_name, route.order, rule, prefix, self)
            if prefix:
                yield _IndexedRule(application.name, full_name, route.order, None, prefix, self)
        if problems and not self._has_warned:
            self._has_warned = True
            logger.warning("application %s: HTTP rules left out: %s", application.name, "; ".join(problems))

    def _compiled(
        self, application: str, full_name: str, method: MethodDescriptor, rule: TranscodingRule
    ) -> Translation:
        return Translation(
            application,
            full_name,
            rule,
            RequestBinding(method, rule, self._readers),
            ResponseForm(method, rule, self._writers),
            self._descriptors.pool,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _IndexedRule:
    """A rule in an index."""

    application: str
    full_name: str
    order: int
    """Of its method."""
    rule: TranscodingRule | None
    """None: the path of the method itself."""
    prefix: str
    codecs: _Codecs

    def translation(self) -> Translation:
        translation = self.codecs.translation(self.application, self.full_name, self.rule)
        assert translation is not None, "entries are made of methods that have descriptors"
        return translation


_PlacedRule = tuple[Owner, _IndexedRule]


def _service_paths(routes: Routes) -> Iterator[str]:
    for application in routes.applications.values():
        for service in application.services:
            yield f"/{service}"
            yield f"{application.route_prefix.rstrip('/')}/{service}"


def _placed(entries: Iterable[_IndexedRule]) -> Iterator[tuple[PathTemplate, str, _PlacedRule]]:
    """A path below a route prefix belongs to the application of that prefix, the longest one, and not to the first."""
    for entry in entries:
        rule = entry.rule
        if rule is not None:
            yield rule.template, rule.http_method, (Owner(entry.order, entry.application), entry)
        if entry.prefix:
            own = rule or method_rule(entry.full_name)
            owner = Owner(-len(entry.prefix), entry.application)
            yield own.template.below(entry.prefix), own.http_method, (owner, entry)


def _owner_of(placed: _PlacedRule) -> Owner:
    return placed[0]


def _conflicts(index: RuleIndex[_PlacedRule]) -> Iterator[str]:
    """Not of one method in several applications: a request names the one that it means."""
    for http_method, placed in index.equal_rules():
        _, served = placed[0]
        for _, other in placed[1:]:
            if other.full_name != served.full_name and served.rule is not None:
                yield (
                    f"HTTP rule {http_method} {served.rule.path} of {served.full_name} (application"
                    f" {served.application}) hides that of {other.full_name} (application {other.application})"
                )


def _ambiguous(path: str, applications: list[str]) -> Refusal:
    names = ", ".join(applications[:20])
    return Refusal(
        NOT_FOUND, f"Several applications serve {path[:100]}; send header 'application' with one of: {names}."
    )
