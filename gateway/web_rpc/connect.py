"""Connect: RPC with plain requests and answers for unary calls, and messages in envelopes for streams.

Every version of HTTP carries it. On HTTP/1.1 a bidirectional stream works as far as the client reads while it sends.
What a unary call answers is in HTTP itself: the status, header fields, and trailers as fields with a prefix. A stream
always answers 200; its last envelope says how it ended.
"""

from __future__ import annotations

import asyncio
import logging

from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.descriptor_pool import DescriptorPool

from gateway.dialects.compression import RequestDecompression, request_decompression
from gateway.dialects.grpc_metadata import REQUEST_ID_KEY, Invocation
from gateway.dialects.grpc_status import fit_details
from gateway.dialects.http_metadata import read_http_invocation, write_fields
from gateway.dialects.method_call import GATEWAY_FAILED, CallEnd, MethodCall
from gateway.dialects.method_lookup import ServedMethods
from gateway.dialects.request_flow import RequestFlow, RequestReader
from gateway.dialects.served_method import ServedMethod
from gateway.dialects.translation.large_response import NO_ROOM_FOR_RESPONSE, translate_response
from gateway.dialects.translation.paced_call import PacedCall
from gateway.dialects.translation.paced_reader import PacedReader
from gateway.dialects.translation.turn_budget import fits_turn
from gateway.requests.dialect_list import CHALLENGE, retry_after_field
from gateway.requests.equal_heads import EqualHeads
from gateway.requests.exchange import BrokenBy, Exchange, ExchangeReceiver, Fields, HttpHead, answer
from gateway.requests.mesh_headers import request_id_of
from gateway.requests.routes import Refusal
from gateway.transcoding.status_json import CODE_OF_FAULT
from gateway.web_rpc.connect_errors import end_of_stream, error_body, own_entries
from gateway.web_rpc.connect_request import (
    JSON,
    OWN_FIELDS,
    STREAM_TYPES,
    UNARY_TYPES,
    ConnectRequest,
    RequestForm,
    UnsupportedEncodingError,
    form_of,
    is_connect,
    read_request,
)
from gateway.web_rpc.envelope_reader import EnvelopeReader, envelope, sent_envelope
from gateway.web_rpc.message_codec import STREAMED_JSON_MAX_BYTES, JsonCodec, JsonCodecs
from gateway.web_rpc.whole_body_reader import WholeBodyReader
from mesh.rpc.grpc_fields import Entry
from mesh.rpc.message_reader import MessageError
from mesh.rpc.status_codes import (
    HTTP_STATUS,
    INTERNAL,
    INVALID_ARGUMENT,
    RESOURCE_EXHAUSTED,
    UNAUTHENTICATED,
    UNIMPLEMENTED,
)

logger = logging.getLogger("mesh.gateway")

_END_OF_STREAM = 2
"""The flag of the last envelope of a stream."""
_ERROR_TYPE = (b"content-type", b"application/json")


class ConnectDialect:
    """Serves the requests of one listener."""

    def __init__(self, methods: ServedMethods) -> None:
        self._methods = methods
        self._json = JsonCodecs()
        self._heads = EqualHeads(_read_head)
        """The heads of requests without a query."""

    def claims(self, head: HttpHead) -> bool:
        """Whether a request is one of Connect, valid or not."""
        return is_connect(head)

    def open(self, exchange: Exchange) -> ExchangeReceiver | None:
        """The receiver of a request; None if it is answered."""
        head = exchange.head
        form = form_of(head)
        if form is not RequestForm.GET and head.method != "POST":
            answer(exchange, 405, [(b"allow", b"POST")])
            return None
        try:
            request, invocation = _read_head(head) if form is RequestForm.GET else self._heads.read(head)
        except UnsupportedEncodingError as error:
            return self._refuse(exchange, Refusal(UNIMPLEMENTED, str(error)), is_known=True)
        except ValueError as error:  # of the request or its metadata
            return self._refuse(exchange, Refusal(INVALID_ARGUMENT, str(error)))
        if not request.codec:
            _refuse_type(exchange, streams=form is RequestForm.STREAM)
            return None
        method = self._methods.find_for(invocation.application, head.path, exchange)
        if isinstance(method, Refusal):
            return self._refuse(exchange, method)
        return self._call(exchange, method, request, invocation)

    def refuse(self, exchange: Exchange, refusal: Refusal) -> bool:
        """See `RefusingDialect`: an error of this protocol has its code as a word."""
        self._refuse(exchange, refusal)
        return True

    def answer_fault(self, exchange: Exchange, status: int, text: str) -> bool:
        """See `FaultDialect`. The call that the request has begun is counted already."""
        _answer_refusal(exchange, Refusal(CODE_OF_FAULT.get(status, INVALID_ARGUMENT), text), status)
        return True

    def _call(
        self, exchange: Exchange, method: ServedMethod, request: ConnectRequest, invocation: Invocation
    ) -> ExchangeReceiver | None:
        streams = method.streams_request or method.streams_response
        if streams != (request.form is RequestForm.STREAM):
            _refuse_type(exchange, streams=streams)
            return None
        if request.form is RequestForm.GET and not _is_safe(method):
            answer(exchange, 405, [(b"allow", b"POST")])
            return None
        codec = self._json.of(method.descriptors, method.full_name) if request.codec == JSON else None
        if request.codec == JSON and codec is None:
            text = f"This gateway has no descriptors of {method.full_name}, which JSON needs. Send application/proto."
            refusal = Refusal(UNIMPLEMENTED, text, method.application)
            return self._refuse(exchange, refusal, is_known=True)
        call_type = _StreamCall if streams else _UnaryCall
        return call_type(exchange, method, request, invocation, codec)

    def _refuse(self, exchange: Exchange, refusal: Refusal, *, is_known: bool = False) -> ExchangeReceiver | None:
        """`is_known`: the method exists, so UNIMPLEMENTED is not 404."""
        self._methods.count_refusal(refusal)
        status = 404 if refusal.code == UNIMPLEMENTED and not is_known else HTTP_STATUS[refusal.code]
        _answer_refusal(exchange, refusal, status)
        return None


def _answer_refusal(exchange: Exchange, refusal: Refusal, status: int) -> None:
    """`status`: of HTTP, for a unary call."""
    request_id = request_id_of(exchange.head.fields)
    end = CallEnd(refusal.code, fit_details(refusal.message), ((REQUEST_ID_KEY, request_id),))
    fields: Fields = [(b"x-request-id", request_id.encode())]
    if form_of(exchange.head) is RequestForm.STREAM:
        fields.append((b"content-type", exchange.head.content_type.encode()))
        answer(exchange, 200, fields, envelope(end_of_stream(end), _END_OF_STREAM))
        return
    fields += [_ERROR_TYPE, *write_fields(end.trailers, b"trailer-")]
    if refusal.retry_after_s is not None:
        fields.append(retry_after_field(refusal.retry_after_s))
    if refusal.code == UNAUTHENTICATED:
        fields.append(CHALLENGE)
    answer(exchange, status, fields, error_body(end))


class _ConnectCall:
    """What unary calls and streams have in common: the receiver of an exchange, and owner of a MethodCall.

    JSON that is large, or comes in a turn of the loop in which much was translated, is translated in a thread.
    """

    __slots__ = ("_call", "_codec", "_exchange", "_flow", "_initial", "_paced", "_request", "_task")

    def __init__(
        self,
        exchange: Exchange,
        method: ServedMethod,
        request: ConnectRequest,
        invocation: Invocation,
        codec: JsonCodec | None,
    ) -> None:
        """`codec` None: the client speaks Protobuf."""
        self._exchange = exchange
        self._request = request
        self._codec = codec
        self._initial: tuple[Entry, ...] = ()
        self._task: asyncio.Task[None] | None = None
        """Translates a large response."""
        accepts = request.accepted.__contains__ if request.accepted else None
        call_type = PacedCall if codec is not None and method.streams_response else MethodCall
        self._call = call_type(exchange, method, self, invocation, timeout_s=request.timeout_s, accepts=accepts)
        reader = self._make_reader(method.message_max_bytes)
        self._paced = None if codec is None else PacedReader(reader, codec.decode)
        self._flow = RequestFlow(exchange, self._call, self._paced or reader)
        if request.message is not None:
            self._flow.on_message_of_head(request.message)
        self._flow.begin()

    # ---- From the client (ExchangeReceiver) --------------------------------------------------------------------------

    def on_body(self, data: bytes) -> None:
        if self._request.message is None:
            self._flow.on_body(data)
        else:
            # A cache knows the answer by the query alone, and bytes behind a message change what it says.
            self._call.refuse(INVALID_ARGUMENT, "The message of a GET is in its query; a body came as well.")

    def on_end(self) -> None:
        self._flow.on_end()

    def on_broken(self, by: BrokenBy) -> None:
        self._call.cancel()
        if self._paced is not None:
            self._paced.cancel()
        if self._task is not None:
            self._task.cancel()

    def on_writable(self) -> None:
        self._call.grant()

    # ---- From the mesh (CallOwner) -----------------------------------------------------------------------------------

    def on_initial_metadata(self, entries: tuple[Entry, ...]) -> None:
        self._initial = entries

    def on_message(self, message: bytes | memoryview) -> bool:
        try:
            return self.send_translated(self.translate(message))
        except ValueError as error:
            return self.send_translated(error)

    def translate(self, message: bytes | memoryview) -> bytes | memoryview:
        """A response message as the client has it. Raises ValueError for one that cannot be JSON."""
        return message if self._codec is None else self._codec.encode(message)

    def send_translated(self, translated: bytes | memoryview | ValueError) -> bool:
        """Send one message of a streamed response."""
        raise AssertionError("the response of a unary call is part of its end")

    def on_request_room(self) -> None:
        self._flow.on_room()

    def on_status(self, end: CallEnd) -> int | None:
        if self._paced is not None:
            self._paced.cancel()
        if end.response is None or self._codec is None or fits_turn(len(end.response)):
            return self._answer(*self._translated(end))
        self._task = asyncio.get_running_loop().create_task(self._send_large(end))
        return end.code

    # ---- Inside ------------------------------------------------------------------------------------------------------

    def _make_reader(self, max_bytes: int) -> RequestReader:
        raise AssertionError("unary calls and streams read differently")

    def _answer(self, end: CallEnd, message: bytes | memoryview | None) -> int | None:
        raise AssertionError("unary calls and streams answer differently")

    def _decompression(self, max_bytes: int) -> RequestDecompression | None:
        max_bytes = min(max_bytes, self._call.method.decompressed_max_bytes)
        return request_decompression(self._exchange.share, self._request.encoding, max_bytes, INVALID_ARGUMENT)

    @property
    def _request_id(self) -> tuple[bytes, bytes]:
        return b"x-request-id", self._call.request_id.encode()

    @property
    def _pool(self) -> DescriptorPool:
        """Knows the types of details."""
        return self._call.method.descriptors.pool

    def _translated(self, end: CallEnd) -> tuple[CallEnd, bytes | memoryview | None]:
        """The end with its response message as the client has it; another end if that cannot be."""
        if end.response is None:
            return end, None
        try:
            return end, self.translate(end.response)
        except ValueError as error:
            return _untranslatable(end, error), None

    async def _send_large(self, end: CallEnd) -> None:
        """The call is counted as a success already; its answer may still fail."""
        assert end.response is not None
        message: bytes | memoryview | None = None
        try:
            message = await translate_response(self._exchange.share, self.translate, end.response)
        except ValueError as error:
            end = _untranslatable(end, error)
        except MessageError as error:
            end = CallEnd(error.code, error.text, end.trailers)
        except Exception:
            logger.exception("a response of %s was not translated", self._call.method.full_name)
            end = CallEnd(INTERNAL, GATEWAY_FAILED, end.trailers)
        if self._answer(end, message) is None:
            lost = CallEnd(RESOURCE_EXHAUSTED, NO_ROOM_FOR_RESPONSE, end.trailers)
            if self._answer(lost, None) is None:
                self._exchange.abort()


class _UnaryCall(_ConnectCall):
    """One message each way."""

    __slots__ = ()

    def _make_reader(self, max_bytes: int) -> RequestReader:
        if self._codec is not None:
            max_bytes = self._call.method.json_max_bytes
        return WholeBodyReader(max_bytes, self._decompression(max_bytes))

    def _answer(self, end: CallEnd, message: bytes | memoryview | None) -> int | None:
        if message is None:
            fields: Fields = [_ERROR_TYPE]
            status, message = HTTP_STATUS[end.code], error_body(end, self._pool)
        else:
            fields = [(b"content-type", self._request.content_type)]
            status, message = 200, self._compressed(message, fields)
        fields.append(self._request_id)
        fields += write_fields(own_entries(self._initial))
        fields += write_fields(own_entries(end.trailers), b"trailer-")
        return end.code if self._exchange.send_whole(status, fields, message) else None

    def _compressed(self, message: bytes | memoryview, fields: Fields) -> bytes | memoryview:
        compression = self._call.compression
        data = None if compression is None else compression.compress(message)
        if compression is None or data is None:
            return message
        fields += [(b"content-encoding", compression.encoding.encode()), (b"vary", b"accept-encoding")]
        return data


class _StreamCall(_ConnectCall):
    """Messages in envelopes, one or many each way."""

    __slots__ = ()

    def on_initial_metadata(self, entries: tuple[Entry, ...]) -> None:
        self._initial = entries
        if self._call.method.streams_response:
            self._exchange.send_head(200, self._head_fields())

    def send_translated(self, translated: bytes | memoryview | ValueError) -> bool:
        if isinstance(translated, ValueError):
            self._call.refuse(INTERNAL, str(translated))
            return True
        if not self._exchange.has_sent_head:
            self._exchange.send_head(200, self._head_fields())
        return self._exchange.send_body(sent_envelope(translated, self._call.compression))

    def _answer(self, end: CallEnd, message: bytes | memoryview | None) -> int | None:
        exchange = self._exchange
        body = envelope(end_of_stream(end, None if end.is_ok else self._pool), _END_OF_STREAM)
        if exchange.has_sent_head:
            if not exchange.send_body(body):
                return None
            exchange.end()
            return end.code
        if message is not None:
            body = sent_envelope(message, self._call.compression) + body
        return end.code if exchange.send_whole(200, self._head_fields(), body) else None

    def _make_reader(self, max_bytes: int) -> RequestReader:
        if self._codec is not None:
            max_bytes = min(max_bytes, STREAMED_JSON_MAX_BYTES)
        return EnvelopeReader(max_bytes, self._decompression(max_bytes), INVALID_ARGUMENT)

    def _head_fields(self) -> Fields:
        fields: Fields = [(b"content-type", self._request.content_type), self._request_id]
        compression = self._call.compression
        if compression is not None and compression.encoding:
            fields.append((b"connect-content-encoding", compression.encoding.encode()))
        return fields + write_fields(own_entries(self._initial))


def _read_head(head: HttpHead) -> tuple[ConnectRequest, Invocation]:
    """Raises UnsupportedEncodingError or another ValueError."""
    return read_request(head), read_http_invocation(head.fields, OWN_FIELDS)


def _untranslatable(end: CallEnd, error: ValueError) -> CallEnd:
    return CallEnd(INTERNAL, fit_details(str(error)), end.trailers)


def _is_safe(method: ServedMethod) -> bool:
    """Whether a GET may call it: its .proto says NO_SIDE_EFFECTS."""
    messages = method.descriptors.method(method.full_name)
    level = MethodOptions.NO_SIDE_EFFECTS
    return messages is not None and messages.descriptor.GetOptions().idempotency_level == level


def _refuse_type(exchange: Exchange, *, streams: bool) -> None:
    """415: the content type has a codec that is not served, or that of the other kind, unary or streaming."""
    accepted = ", ".join(STREAM_TYPES if streams else UNARY_TYPES).encode()
    answer(exchange, 415, [(b"accept-post", accepted)])
