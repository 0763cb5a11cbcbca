"""One JSON request and its call: receives the exchange, owns the PacedCall, translates in between.

Small messages are translated where they arrive, on the I/O loop. A body or a response that is large, or comes in a turn
of the loop in which much was translated already, is translated in a thread, so that no other call waits for it.
Messages of streams keep their order: see `paced_call`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

from gateway.dialects.grpc_status import fit_details
from gateway.dialects.json_http.json_bodies import BodyTooLargeError, WholeBody
from gateway.dialects.json_http.json_headers import JsonHead, answer_fields, details_of, trailer_fields
from gateway.dialects.json_http.json_methods import JsonTarget
from gateway.dialects.method_call import GATEWAY_FAILED, CallEnd, MethodCall
from gateway.dialects.request_flow import RequestFlow
from gateway.dialects.served_method import ServedMethod
from gateway.dialects.translation.large_response import NO_ROOM_FOR_RESPONSE, translate_response
from gateway.dialects.translation.paced_call import PacedCall
from gateway.dialects.translation.paced_reader import PacedReader
from gateway.dialects.translation.translation_thread import translate_in_thread
from gateway.dialects.translation.turn_budget import fits_turn
from gateway.requests.exchange import BrokenBy, Exchange
from gateway.requests.web_status import retry_after
from gateway.transcoding.field_error import FieldError
from gateway.transcoding.response_json import JSON_TYPE
from gateway.transcoding.status_json import field_error_json, status_json
from gateway.transcoding.stream_forms import StreamForm
from mesh.rpc.grpc_fields import Entry
from mesh.rpc.message_reader import MessageError
from mesh.rpc.status_codes import HTTP_STATUS, INTERNAL, INVALID_ARGUMENT, RESOURCE_EXHAUSTED

logger = logging.getLogger("mesh.gateway")

T = TypeVar("T")

_CONTENT_TOO_LARGE = 413
_JSON = JSON_TYPE.encode()


class _Answers:
    """What both kinds of request share: the answer, and the end."""

    __slots__ = ("_call", "_exchange", "_form", "_initial", "_problem", "_target", "_task")

    def __init__(
        self, exchange: Exchange, target: JsonTarget, method: ServedMethod, head: JsonHead, form: StreamForm
    ) -> None:
        """`form`: of a streamed response."""
        self._exchange = exchange
        self._target = target
        self._form = form
        self._initial: tuple[Entry, ...] = ()
        self._problem = _Problem()
        self._task: asyncio.Task[None] | None = None
        """Translates a large message."""
        kind = PacedCall if method.streams_response else MethodCall
        self._call = kind(exchange, method, self, head.invocation, timeout_s=head.timeout_s)

    # ---- From the client (ExchangeReceiver) --------------------------------------------------------------------------

    def on_broken(self, by: BrokenBy) -> None:
        self._call.cancel()
        if self._task is not None:
            self._task.cancel()

    def on_writable(self) -> None:
        self._call.grant()

    # ---- From the mesh (CallOwner) -----------------------------------------------------------------------------------

    def on_initial_metadata(self, entries: tuple[Entry, ...]) -> None:
        self._initial = entries

    def on_message(self, message: bytes | memoryview) -> bool:
        try:
            translated: tuple[bytes, bytes] | ValueError = self.translate(message)
        except ValueError as error:
            translated = error
        return self.send_translated(translated)

    def translate(self, message: bytes | memoryview) -> tuple[bytes, bytes]:
        """The content type and the body of a message."""
        response = self._target.translation.response
        if response.is_raw:
            content_type, body = response.raw(message)
            return content_type.encode(), body
        return _JSON, response.json(message)

    def send_translated(self, translated: tuple[bytes, bytes] | ValueError) -> bool:
        """Send one item of a streamed response."""
        if isinstance(translated, ValueError):
            self._call.refuse(INTERNAL, self._not_json(translated))
            return True
        content_type, body = translated
        is_first = not self._exchange.has_sent_head
        if not self._target.translation.response.is_raw:
            content_type, body = self._form.content_type.encode(), self._form.item(body, is_first=is_first)
        if is_first:
            fields = answer_fields(content_type, self._call.request_id, self._initial, ())
            self._exchange.send_head(200, [*fields, (b"cache-control", b"no-cache")])
        return not body or self._exchange.send_body(body)

    def on_request_room(self) -> None:
        """Overridden where requests are streamed."""

    def on_status(self, end: CallEnd) -> int | None:
        if self._exchange.has_sent_head:
            return self._end_stream(end)
        if not end.is_ok:
            return self._send_error(end)
        if end.response is None:
            return self._send_body(end, b"" if self._target.translation.response.is_raw else self._form.empty)
        if not fits_turn(len(end.response)):
            self._task = asyncio.get_running_loop().create_task(self._send_large(end))
            return end.code
        return self._send_response(end)

    # ---- Inside ------------------------------------------------------------------------------------------------------

    def _send_response(self, end: CallEnd) -> int | None:
        assert end.response is not None
        try:
            content_type, body = self.translate(end.response)
        except ValueError as error:
            return self._send_error(self._untranslatable(end, error))
        fields = answer_fields(content_type, self._call.request_id, self._initial, end.trailers)
        return end.code if self._exchange.send_whole(200, fields, body) else None

    async def _send_large(self, end: CallEnd) -> None:
        """The call is counted as a success already; its answer may still fail."""
        assert end.response is not None
        try:
            content_type, body = await translate_response(self._exchange.share, self.translate, end.response)
        except ValueError as error:
            end = self._untranslatable(end, error)
        except MessageError as error:
            end = CallEnd(error.code, error.text, end.trailers)
        except Exception:
            logger.exception("a response of %s was not translated", self._call.method.full_name)
            end = CallEnd(INTERNAL, GATEWAY_FAILED, end.trailers)
        else:
            fields = answer_fields(content_type, self._call.request_id, self._initial, end.trailers)
            if self._exchange.send_whole(200, fields, body):
                return
            end = CallEnd(RESOURCE_EXHAUSTED, NO_ROOM_FOR_RESPONSE, end.trailers)
        if self._send_error(end) is None:
            self._exchange.abort()

    def _untranslatable(self, end: CallEnd, error: ValueError) -> CallEnd:
        return CallEnd(INTERNAL, self._not_json(error), end.trailers)

    def _not_json(self, error: ValueError) -> str:
        return f"A response of {self._call.method.full_name} cannot be JSON: {error}"

    def _send_body(self, end: CallEnd, body: bytes) -> int | None:
        fields = answer_fields(self._form.content_type.encode(), self._call.request_id, self._initial, end.trailers)
        return end.code if self._exchange.send_whole(200, fields, body) else None

    def _send_error(self, end: CallEnd) -> int | None:
        http_status, body = self._status(end)
        fields = answer_fields(_JSON, self._call.request_id, self._initial, end.trailers)
        if end.backpressure is not None:
            http_status = end.backpressure.status_code
            fields.extend(retry_after(end.backpressure))
        return end.code if self._exchange.send_whole(http_status, fields, body) else None

    def _end_stream(self, end: CallEnd) -> int | None:
        is_raw = self._target.translation.response.is_raw
        if is_raw and not end.is_ok:
            self._exchange.abort()
            return end.code
        if not is_raw:
            last = self._form.end if end.is_ok else self._form.error(self._status(end)[1])
            if last and not self._exchange.send_body(last):
                return None
        self._exchange.end(trailer_fields(end.trailers))
        return end.code

    def _status(self, end: CallEnd) -> tuple[int, bytes]:
        if self._problem.answer is not None:
            return self._problem.answer
        pool = self._target.translation.pool
        return HTTP_STATUS[end.code], status_json(end.code, end.message, details_of(end.trailers), pool)

    def _refuse_request(self, problem: FieldError | BodyTooLargeError) -> None:
        self._call.refuse(self._problem.note(problem), str(problem))


class _Problem:
    """What is wrong with a request. The exception itself would refer to the call, which is to end without a cycle."""

    __slots__ = ("answer",)

    def __init__(self) -> None:
        self.answer: tuple[int, bytes] | None = None
        """Status and body."""

    def note(self, error: FieldError | BodyTooLargeError) -> int:
        """Returns gRPC's code of it."""
        if isinstance(error, FieldError):
            self.answer = HTTP_STATUS[INVALID_ARGUMENT], field_error_json(error)
            return INVALID_ARGUMENT
        self.answer = _CONTENT_TOO_LARGE, status_json(RESOURCE_EXHAUSTED, fit_details(str(error)))
        return RESOURCE_EXHAUSTED


class JsonCall(_Answers):
    """A call with one request message."""

    __slots__ = ("__weakref__", "_body")

    def __init__(
        self,
        exchange: Exchange,
        target: JsonTarget,
        method: ServedMethod,
        head: JsonHead,
        form: StreamForm,
        body: WholeBody,
    ) -> None:
        super().__init__(exchange, target, method, head, form)
        self._body = body

    def on_body(self, data: bytes) -> None:
        self._exchange.give_room(len(data))
        if self._call.is_over or self._problem.answer is not None:
            return
        try:
            self._body.feed(data)
        except BodyTooLargeError as error:
            self._body.data = bytearray()
            self._refuse_request(error)
        else:
            if not self._call.hold(len(self._body.data)):
                self._body.data = bytearray()

    def on_end(self) -> None:
        if not self._call.is_over and not self._body.must_wait(self._on_turn):
            self._start()

    def _on_turn(self) -> bool:
        if self._call.is_over:
            return False
        self._start()
        return True

    def _start(self) -> None:
        try:
            self._body.end()
            if not self._call.hold(len(self._body.data)):
                return
            if not fits_turn(len(self._body.data)):
                self._task = asyncio.get_running_loop().create_task(self._start_large())
            else:
                self._call.start(self._bound())
        except (FieldError, BodyTooLargeError) as error:
            self._refuse_request(error)
        except Exception:
            # Nothing else in a later turn of the loop ends the call.
            self._fail()

    async def _start_large(self) -> None:
        try:
            message = await translate_in_thread(len(self._body.data), self._bound)
        except FieldError as error:
            self._refuse_request(error)
        except Exception:
            self._fail()
        else:
            self._call.start(message)

    def _fail(self) -> None:
        logger.exception("a request of %s was not translated", self._call.method.full_name)
        self._call.refuse(INTERNAL, GATEWAY_FAILED)

    def _bound(self) -> bytes:
        request = self._target.translation.request
        # What is counted from now on is the message; the body goes with this translation.
        data, self._body.data = self._body.data, bytearray()
        head = self._exchange.head
        if data and not request.takes_body:
            raise FieldError("this path takes no body")
        if request.is_raw:
            content_type = head.by_name.get(b"content-type", b"").decode("latin-1")
            return request.bind_raw(self._target.variables, head.query, content_type, bytes(data))
        return request.bind(self._target.variables, head.query, data)


class JsonStreamCall(_Answers):
    """A call that streams its requests: as lines, or as an array that is not long."""

    __slots__ = ("_flow", "_paced")

    def __init__(
        self,
        exchange: Exchange,
        target: JsonTarget,
        method: ServedMethod,
        head: JsonHead,
        form: StreamForm,
        body: MessageBody,
    ) -> None:
        super().__init__(exchange, target, method, head, form)
        reader = _BodyReader(body, self._problem)
        self._paced = None if body.translate is None else PacedReader(reader, reader.translate)
        self._flow = RequestFlow(exchange, self._call, self._paced or reader)
        self._flow.begin()

    def on_broken(self, by: BrokenBy) -> None:
        super().on_broken(by)
        self._end_request()

    def on_status(self, end: CallEnd) -> int | None:
        self._end_request()
        return super().on_status(end)

    def on_body(self, data: bytes) -> None:
        self._flow.on_body(data)

    def on_end(self) -> None:
        self._flow.on_end()

    def on_request_room(self) -> None:
        self._flow.on_room()

    def _end_request(self) -> None:
        if self._paced is not None:
            self._paced.cancel()


class MessageBody(Protocol):
    """A body that holds several messages; implemented in json_bodies."""

    @property
    def translate(self) -> Callable[[bytes], bytes] | None:
        """Makes the message of what `next_message` has returned, in any thread; None where that is one already."""

    @property
    def kept_bytes(self) -> int: ...

    def must_wait(self, go_on: Callable[[], bool]) -> bool: ...

    def feed(self, data: bytes) -> None: ...

    def end(self) -> None: ...

    def next_message(self) -> bytes | None: ...


class _BodyReader:
    """A body as the flow of requests reads it: with one kind of error."""

    __slots__ = ("_body", "_problem")

    def __init__(self, body: MessageBody, problem: _Problem) -> None:
        self._body = body
        self._problem = problem

    @property
    def kept_bytes(self) -> int:
        return self._body.kept_bytes

    def must_wait(self, go_on: Callable[[], bool]) -> bool:
        return self._body.must_wait(go_on)

    def feed(self, data: bytes) -> None:
        self._attempt(lambda: self._body.feed(data))

    def end(self) -> None:
        self._attempt(self._body.end)

    def next_message(self) -> bytes | None:
        return self._attempt(self._body.next_message)

    def translate(self, text: bytes) -> bytes:
        translate = self._body.translate
        assert translate is not None
        return self._attempt(lambda: translate(text))

    def _attempt(self, step: Callable[[], T]) -> T:
        try:
            return step()
        except (FieldError, BodyTooLargeError) as error:
            raise MessageError(self._problem.note(error), str(error)) from None
        except Exception:
            # A later turn of the loop and the router are not the place for it: the call would have no end.
            logger.exception("a message of a streamed request was not translated")
            raise MessageError(INTERNAL, GATEWAY_FAILED) from None
