"""The JSON dialect of a listener: it knows the requests that call typed methods, checks them and opens their calls."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.dialects.compression import request_decompression
from gateway.dialects.grpc_status import fit_details
from gateway.dialects.json_http.json_bodies import LINE_MAX_BYTES, MessageArray, MessageLines, RawPieces, WholeBody
from gateway.dialects.json_http.json_call import JsonCall, JsonStreamCall, MessageBody
from gateway.dialects.json_http.json_headers import JsonHead, read_json_head, with_query
from gateway.dialects.json_http.json_methods import JsonMethods, JsonTarget, OtherMethods
from gateway.dialects.method_lookup import ServedMethods
from gateway.dialects.served_method import ServedMethod
from gateway.requests.dialect_list import retry_after_field
from gateway.requests.equal_heads import EqualHeads
from gateway.requests.exchange import Exchange, ExchangeReceiver, Fields, HttpHead, answer
from gateway.requests.mesh_headers import request_id_of
from gateway.requests.routes import Refusal, Routes
from gateway.transcoding.field_error import FieldError
from gateway.transcoding.response_json import JSON_TYPE
from gateway.transcoding.status_json import CODE_OF_FAULT, field_error_json, status_json
from gateway.transcoding.stream_forms import JSON_ARRAY, LINE_TYPES, StreamForm, stream_form
from mesh.rpc.status_codes import HTTP_STATUS, INVALID_ARGUMENT, UNIMPLEMENTED

_METHOD_NOT_ALLOWED, _UNSUPPORTED_MEDIA_TYPE = 405, 415
_KEPT_MAX = 1_024
_KEPT_MAX_CHARS = 256
_TYPE_OF_FORMS = "application/x-www-form-urlencoded"
"""What curl says of a body by default."""
_ENCODINGS = ("", "identity", "gzip", "x-gzip")

_Found = JsonTarget | OtherMethods | Refusal | FieldError | None


@dataclass(slots=True, eq=False)
class _ReadRequest:
    """What all requests with one head have in common; made once for a connection that repeats it."""

    target: JsonTarget
    """Another one when the routes have changed."""
    head: JsonHead
    form: StreamForm
    """Of a streamed response."""
    encoding: str
    """Of the body; empty: none."""


class JsonDialect:
    """Serves the requests of one listener. I/O loop only."""

    def __init__(self, methods: ServedMethods) -> None:
        self._methods = methods
        self.json_methods = JsonMethods()
        """For WebSockets too."""
        self._heads = EqualHeads(read_json_head)
        self._web_prefixes: list[str] = []
        self._known: dict[tuple[str, str, str | None], _Found] = {}
        """What was found, also where it was nothing: clients ask for the same again and again."""

    def set_routes(self, routes: Routes) -> None:
        """Use these for new requests."""
        self.json_methods.set_routes(routes)
        self._known = {}
        self._web_prefixes = [each.route_prefix.rstrip("/") for each in routes.applications.values() if each.serves_web]

    def claims(self, head: HttpHead) -> bool:
        """Whether the path is one of a typed method.

        One that only other HTTP methods have, or that is not UTF-8, is left to a web application if one may serve it.
        """
        if head.is_websocket:
            return False
        found = self._find(head)
        if isinstance(found, OtherMethods | FieldError):
            return not any(head.path == each or head.path.startswith(f"{each}/") for each in self._web_prefixes)
        return found is not None or (head.method == "POST" and self.json_methods.knows_service(head.path))

    def open(self, exchange: Exchange) -> ExchangeReceiver | None:
        """The receiver of a request; None if it is answered."""
        head = exchange.head
        match self._find(head):
            case JsonTarget() as found:
                return self._open(exchange, found)
            case OtherMethods() as found:
                self._refuse_method(exchange, found)
            case FieldError() as found:
                answer_refused(exchange, HTTP_STATUS[INVALID_ARGUMENT], field_error_json(found))
            case Refusal() as found:
                self._refuse(exchange, self._methods.shown(found, exchange))
            case None:
                missing = self._methods.find(application_of(head), head.path)
                assert isinstance(missing, Refusal), "methods of the routes are found"
                self._refuse(exchange, self._methods.shown(missing, exchange))
        return None

    def answer_fault(self, exchange: Exchange, status: int, text: str) -> bool:
        """See `FaultDialect`."""
        answer_refused(exchange, status, status_json(CODE_OF_FAULT.get(status, INVALID_ARGUMENT), text))
        return True

    def _find(self, head: HttpHead) -> _Found:
        asked = head.method, head.path, application_of(head)
        try:
            return self._known[asked]
        except KeyError:
            found = self._look_up(*asked)
        if sum(len(each or "") for each in asked) <= _KEPT_MAX_CHARS and not isinstance(found, FieldError):
            if len(self._known) >= _KEPT_MAX:
                self._known.clear()
            self._known[asked] = found
        return found

    def _look_up(self, http_method: str, path: str, application: str | None) -> _Found:
        try:
            return self.json_methods.find(http_method, path, application)
        except FieldError as error:
            return error

    def _open(self, exchange: Exchange, target: JsonTarget) -> ExchangeReceiver | None:
        translation = target.translation
        method = self._methods.find_for(translation.application, translation.full_name, exchange)
        if isinstance(method, Refusal):
            self._refuse(exchange, method)
            return None
        known: _ReadRequest | None = exchange.head.readings.get(self)
        if known is None or known.target is not target:
            known = self._read(exchange, target, method)
            if known is None:
                return None
            exchange.head.readings[self] = known
        max_bytes = LINE_MAX_BYTES if method.streams_request else method.json_max_bytes
        body = WholeBody(max_bytes, request_decompression(exchange.share, known.encoding, max_bytes))
        if method.streams_request:
            messages = _messages(exchange.head, target, body)
            return JsonStreamCall(exchange, target, method, known.head, known.form, messages)
        return JsonCall(exchange, target, method, known.head, known.form, body)

    def _read(self, exchange: Exchange, target: JsonTarget, method: ServedMethod) -> _ReadRequest | None:
        """None: the request has been refused."""
        head, request = exchange.head, target.translation.request
        unsupported = _unsupported(head, method, is_raw=request.is_raw)
        if unsupported:
            self._refuse_type(exchange, method, unsupported)
            return None
        try:
            json_head = self._heads.read(head)
            if head.query:
                json_head = with_query(json_head, head.query, request.mesh_parameters)
        except ValueError as error:
            self._refuse(exchange, Refusal(INVALID_ARGUMENT, str(error), method.application))
            return None
        form = JSON_ARRAY
        if method.streams_response:
            form = stream_form(head.all_of(b"accept").decode("latin-1")) or JSON_ARRAY
        return _ReadRequest(target, json_head, form, "gzip" if _encoding(head).endswith("gzip") else "")

    def _refuse_method(self, exchange: Exchange, found: OtherMethods) -> None:
        allowed = ", ".join(sorted(found.allowed | {"HEAD"} if "GET" in found.allowed else found.allowed))
        text = f"This path is served for {allowed}, not for {exchange.head.method[:20]}."
        fields = [(b"allow", allowed.encode())]
        answer_refused(exchange, _METHOD_NOT_ALLOWED, status_json(UNIMPLEMENTED, text), fields)

    def _refuse_type(self, exchange: Exchange, method: ServedMethod, text: str) -> None:
        self._methods.count_refusal(Refusal(INVALID_ARGUMENT, text, method.application))
        fields = [(b"accept-encoding", b"gzip, identity"), (b"accept-post", JSON_TYPE.encode())]
        answer_refused(exchange, _UNSUPPORTED_MEDIA_TYPE, status_json(INVALID_ARGUMENT, text), fields)

    def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        self._methods.count_refusal(refusal)
        body = status_json(refusal.code, fit_details(refusal.message))
        fields = None if refusal.retry_after_s is None else [retry_after_field(refusal.retry_after_s)]
        answer_refused(exchange, HTTP_STATUS[refusal.code], body, fields)


def _messages(head: HttpHead, target: JsonTarget, whole: WholeBody) -> MessageBody:
    """The body of a request that streams its messages. `whole`: where it is an array."""
    request, variables = target.translation.request, target.variables
    if request.is_raw:
        content_type = head.by_name.get(b"content-type", b"").decode("latin-1")
        return RawPieces(lambda piece: request.bind_raw(variables, head.query, content_type, piece))
    if head.content_type in LINE_TYPES:
        return MessageLines(lambda line: request.bind(variables, head.query, line))
    return MessageArray(lambda element: request.bind(variables, head.query, element), whole)


def _unsupported(head: HttpHead, method: ServedMethod, *, is_raw: bool) -> str:
    """Why a body of this type cannot be read; empty if it can."""
    if not head.has_body:
        return ""
    encoding, kind = _encoding(head), head.content_type
    if encoding not in _ENCODINGS:
        return f"Bodies compressed with {encoding[:40]!r} cannot be read here; send gzip, or as they are."
    if method.streams_request and encoding.endswith("gzip") and (is_raw or kind in LINE_TYPES):
        return "Bodies that are read piece by piece cannot be compressed here: send them as they are."
    if is_raw:
        return ""
    if kind in LINE_TYPES:
        return "" if method.streams_request else f"{method.full_name} takes one message: send it as {JSON_TYPE}."
    if kind in ("", JSON_TYPE, "text/json") or kind.endswith("+json"):
        return ""
    advice = " With curl, use --json." if kind == _TYPE_OF_FORMS else ""
    return f"Bodies are {JSON_TYPE}, or application/x-ndjson for streams of messages, not {kind[:80]!r}.{advice}"


def _encoding(head: HttpHead) -> str:
    return head.all_of(b"content-encoding").strip().lower().decode("latin-1")


def application_of(head: HttpHead) -> str | None:
    """The application that a request names."""
    name = head.by_name.get(b"application") or head.by_name.get(b"grpc-metadata-application")
    return name.decode("utf-8", "replace") if name else None


def answer_refused(exchange: Exchange, http_status: int, body: bytes, fields: Fields | None = None) -> None:
    """Answer a request that became no call."""
    request_id = request_id_of(exchange.head.fields)
    own = [(b"content-type", JSON_TYPE.encode()), (b"x-request-id", request_id.encode()), *(fields or [])]
    answer(exchange, http_status, own, body)
