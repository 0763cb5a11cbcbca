"""`/-/openapi.json` and `/-/docs`: the OpenAPI documents of applications, and the page on which to try them."""

from __future__ import annotations

import asyncio
import logging
from functools import cache
from importlib import resources
from urllib.parse import parse_qs, unquote

import msgspec

from gateway.openapi.openapi_document import DocumentedApplication, openapi_document
from gateway.openapi.source_comments import source_comments
from gateway.requests.exchange import BrokenBy, Exchange, ExchangeReceiver, Fields, HttpHead, answer
from gateway.requests.routes import NO_ROUTES, RoutedApplication, Routes
from mesh.wire.blocking_work import Work, run_blocking

logger = logging.getLogger("mesh.gateway")

_DOCUMENT = "/-/openapi.json"
_DOCUMENTS = "/-/openapi/"
_JSON = "application/json"
_ASSETS = {
    "/-/docs": ("docs.html", "text/html; charset=utf-8"),
    "/-/docs/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/-/docs/page.css": ("page.css", "text/css; charset=utf-8"),
}
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'none'; "
    b"base-uri 'none'; frame-ancestors 'none'"
)
"""The page loads nothing from elsewhere, calls only this gateway, and no other page can put it into a frame."""
_NAMES_LISTED_MAX = 100


class ApiDocsDialect:
    """Serves them for one gateway. I/O loop only."""

    def __init__(self, root_path: str = "") -> None:
        """`root_path`: where a proxy has mounted the gateway."""
        self._root_path = root_path
        self._routes = NO_ROUTES
        self._documents: dict[str, bytes] = {}
        """Documents of the current routes, by application."""
        self._builds: dict[str, asyncio.Task[bytes]] = {}
        """Tasks that make documents."""

    def set_routes(self, routes: Routes) -> None:
        """Describe these."""
        self._routes = routes
        self._documents, self._builds = {}, {}

    def claims(self, head: HttpHead) -> bool:
        return head.path in _ASSETS or head.path == _DOCUMENT or head.path.startswith(_DOCUMENTS)

    def open(self, exchange: Exchange) -> ExchangeReceiver | None:
        """The receiver of a request; None if it is answered."""
        head = exchange.head
        if head.method not in ("GET", "HEAD"):
            _answer(exchange, 405, _JSON, b'{"error":"Only GET is served here."}', [(b"allow", b"GET, HEAD")])
            return None
        if head.path in _ASSETS:
            name, content_type = _ASSETS[head.path]
            _answer(exchange, 200, content_type, _asset(name), [(b"content-security-policy", _POLICY)])
            return None
        if head.path == _DOCUMENTS:
            _answer(exchange, 200, _JSON, msgspec.json.encode({"applications": self._names}))
            return None
        return self._open_document(exchange, _named(head))

    @property
    def _names(self) -> list[str]:
        """Names of applications with methods that have descriptors."""
        return sorted(each.name for each in self._routes.applications.values() if each.methods and each.descriptors)

    @property
    def _first(self) -> str:
        """The application that was deployed first with a method of those; empty where routes do not say which."""
        found = sorted((self._routes.applications[name].order, name) for name in self._names)
        return found[0][1] if len(found) == 1 or (found and found[0][0]) else ""

    def _open_document(self, exchange: Exchange, name: str) -> ExchangeReceiver | None:
        names = self._names
        name = name or self._first
        if name not in names:
            error = f"Say which application: {_DOCUMENTS}NAME.json or {_DOCUMENT}?application=NAME."
            body = {"error": error, "applications": names[:_NAMES_LISTED_MAX]}
            _answer(exchange, 404, _JSON, msgspec.json.encode(body))
            return None
        known = self._documents.get(name)
        if known is None:
            return _Waiting(exchange, self._build(self._routes.applications[name]))
        _answer(exchange, 200, _JSON, known)
        return None

    def _build(self, application: RoutedApplication) -> asyncio.Task[bytes]:
        """Make the document of an application, once for all that ask for it meanwhile."""
        name, builds = application.name, self._builds
        task = builds.get(name)
        if task is None:
            task = builds[name] = asyncio.get_running_loop().create_task(
                _make(application, self._root_path, self._documents)
            )
            task.add_done_callback(lambda _: builds.pop(name))
        return task


async def _make(application: RoutedApplication, root_path: str, documents: dict[str, bytes]) -> bytes:
    """Empty if it cannot be made."""
    try:
        document = await run_blocking(Work.TRANSLATE, _document, application, root_path)
    except Exception:
        logger.exception("application %s was not described", application.name)
        return b""
    documents[application.name] = document
    return document


class _Waiting:
    """A request for a document that has to be made first, in a thread."""

    def __init__(self, exchange: Exchange, document: asyncio.Task[bytes]) -> None:
        self._exchange = exchange
        self._task = asyncio.get_running_loop().create_task(self._run(document))

    def on_body(self, data: bytes) -> None:
        self._exchange.give_room(len(data))

    def on_end(self) -> None: ...

    def on_broken(self, by: BrokenBy) -> None:
        self._task.cancel()

    def on_writable(self) -> None: ...

    async def _run(self, making: asyncio.Task[bytes]) -> None:
        document = await asyncio.shield(making)
        if document:
            _answer(self._exchange, 200, _JSON, document)
        else:
            _answer(self._exchange, 500, _JSON, b'{"error":"The gateway failed; its log has the reason."}')


def _document(application: RoutedApplication, root_path: str) -> bytes:
    descriptors = application.descriptors
    found = ((full_name, descriptors.method(full_name)) for full_name in sorted(application.methods))
    documented = DocumentedApplication(
        name=application.name,
        methods=tuple((full_name, messages.descriptor) for full_name, messages in found if messages is not None),
        comments=source_comments(descriptors.files.values()),
        root_path=root_path,
    )
    return msgspec.json.encode(openapi_document(documented))


def _named(head: HttpHead) -> str:
    """The application that a path or its query names; empty if none."""
    if head.path == _DOCUMENT:
        return parse_qs(head.query.decode("latin-1")).get("application", [""])[0]
    return unquote(head.path.removeprefix(_DOCUMENTS)).removesuffix(".json")


@cache
def _asset(name: str) -> bytes:
    return (resources.files("gateway.openapi") / "assets" / name).read_bytes()


def _answer(exchange: Exchange, status: int, content_type: str, body: bytes, fields: Fields | None = None) -> None:
    own = [(b"content-type", content_type.encode()), (b"x-content-type-options", b"nosniff"), *(fields or [])]
    answer(exchange, status, own, body)
