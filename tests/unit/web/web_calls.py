"""Web calls without a gateway: a replica's executor behind a link that keeps what it is given."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import httpx

from mesh.exceptions import CancelReason
from mesh.link.callee_link import IncomingCall
from mesh.link.outgoing_call import CallRequest
from mesh.replica.executor import Executor
from mesh.replica.replica_metrics import ReplicaCounts
from mesh.replica.user_loop import UserLoop
from mesh.replica.user_methods import MethodTable
from mesh.replica.user_object import UserObject
from mesh.usercode import user_code
from mesh.usercode.user_code import UserCode
from mesh.v1 import web_pb2
from mesh.wire.outcome import Outcome
from mesh.wire.payload import RAW, Payload
from mesh.wire.request_context import RequestContext
from mesh.wire.web_messages import WEB_METHOD, decode_response, decode_websocket_event, flat_headers, header_pairs
from tests.unit.fakes.small_mesh import do_on_io, until

CREDIT = 1000
DEADLINE_S = 30.0


def web_request(path: str = "/", method: str = "GET", body: bytes = b"", **fields: Any) -> web_pb2.WebRequest:
    """A request as a gateway writes it; `headers` are pairs of text."""
    headers = [(name.encode(), value.encode()) for name, value in fields.pop("headers", {}).items()]
    raw_path, _, query = path.partition("?")
    return web_pb2.WebRequest(
        method=method,
        raw_path=raw_path.encode(),
        query_string=query.encode(),
        scheme="http",
        http_version="1.1",
        headers=flat_headers([(b"host", b"test"), *headers]),
        client_host="10.0.0.1",
        client_port=4711,
        server_host="10.0.0.2",
        server_port=8000,
        body=body,
        **fields,
    )


class Link:
    """Takes the place of the link and of the admission behind it."""

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.outcome: Outcome | None = None
        self.granted = 0
        self.has_place = True

    def send(self, packed: Any, call_id: int = 0) -> None:
        raise AssertionError("calls send through IncomingCall, which this test replaces")

    def finish(self, call: IncomingCall, outcome: Outcome) -> None:
        assert self.outcome is None, "a call ends once"
        self.outcome = outcome
        self.has_place = call.keeps_place

    def leave_place(self) -> None:
        assert self.has_place
        self.has_place = False


class WebCall(IncomingCall):
    """One call, and what a gateway would see of it."""

    def __init__(self, request: CallRequest, credit: int) -> None:
        self.answers = Link()
        link: Any = self.answers
        super().__init__(link, 1, request, credit)

    def send_item(self, payload: Payload) -> None:
        if self.cancel_reason is None:
            self.answers.items.append(bytes(payload.data))

    def grant(self, credits: int) -> None:
        self.answers.granted += credits

    def push(self, *items: bytes) -> None:
        for item in items:
            assert self.running is not None
            do_on_io(self.running.on_item, Payload(RAW, item))

    def half_close(self) -> None:
        assert self.running is not None
        do_on_io(self.running.on_half_close)

    def give_credit(self, credits: int) -> None:
        assert self.running is not None
        do_on_io(self.running.on_credit, credits)

    def leave(self, reason: CancelReason = CancelReason.CLIENT) -> None:
        """The client goes."""

        def cancel() -> None:
            self.cancel_reason = reason
            if self.running is not None:
                self.running.cancel(reason)

        do_on_io(cancel)

    def ended(self) -> Outcome:
        until(lambda: self.answers.outcome is not None, "the end of the call")
        assert self.answers.outcome is not None
        return self.answers.outcome

    def wait_items(self, number: int) -> list[bytes]:
        until(lambda: len(self.answers.items) >= number, f"{number} items")
        return self.answers.items

    def response(self) -> Response:
        """The response, once it is complete."""
        outcome = self.ended()
        assert outcome.is_ok, outcome.message
        if outcome.payload is not None:
            assert not self.answers.items
            return Response(bytes(outcome.payload.data), [])
        return Response(self.answers.items[0], self.answers.items[1:])

    def events(self) -> list[web_pb2.WebSocketEvent]:
        return [decode_websocket_event(item) for item in self.answers.items]


class Response:
    def __init__(self, head: bytes, pieces: list[bytes]) -> None:
        message = decode_response(head)
        self.status = message.status
        self.headers = dict(header_pairs(message.headers))
        self.route = message.route
        self.pieces = [message.body, *pieces]
        self.body = b"".join(self.pieces)

    @property
    def text(self) -> str:
        return self.body.decode()


class WebReplica:
    """The data plane of one replica, around a class or function that was pickled as for a deploy."""

    def __init__(self, code: Callable[..., Any], *args: Any, threads_max: int = 10, is_isolated: bool = True) -> None:
        self.user_loop = UserLoop(is_isolated=is_isolated, threads_max=threads_max)
        self.object = UserObject(user_code.unpack(user_code.pack(UserCode(code, args))))
        self.counts = ReplicaCounts("app", "Front", SimpleNamespace(), set())  # type: ignore[arg-type]
        try:
            self.on_user_loop(self.object.construct())
            self.on_user_loop(self.object.start_web(self.user_loop))
        except BaseException:
            self.user_loop.stop()
            raise
        methods = MethodTable(self.object.target, {})
        self.executor = do_on_io(lambda: Executor(methods, self.user_loop, self.counts, self.object.web))

    def on_user_loop(self, coroutine: Any) -> Any:
        return self.user_loop.submit(coroutine).result(DEADLINE_S)

    def start(
        self,
        request: web_pb2.WebRequest | None = None,
        *,
        is_streamed: bool = False,
        credit: int = CREDIT,
        **fields: Any,
    ) -> WebCall:
        request = request or web_request(**fields)
        context = RequestContext("request-1", request.root_path or "/", "app")
        payload = None if is_streamed else Payload(RAW, request.SerializeToString())
        call = WebCall(CallRequest(WEB_METHOD, payload, context, None, is_streamed, True), credit)

        def start() -> None:
            call.running = self.executor.start(call)

        do_on_io(start)
        if is_streamed:
            call.push(request.SerializeToString())
        return call

    def ask(self, path: str = "/", **fields: Any) -> Response:
        """One request, complete in one piece, and its response."""
        return self.start(web_request(path, **fields)).response()

    def connect(self, path: str = "/", **fields: Any) -> WebCall:
        """Begin a WebSocket."""
        request = web_request(path, is_websocket=True, **fields)
        request.scheme = "ws"
        return self.start(request, is_streamed=True)

    def delete(self) -> None:
        self.on_user_loop(self.object.delete())

    def close(self) -> None:
        self.user_loop.stop()


@contextmanager
def web_replica(code: Callable[..., Any], *args: Any, **options: Any) -> Iterator[WebReplica]:
    replica = WebReplica(code, *args, **options)
    try:
        yield replica
    finally:
        replica.delete()
        replica.close()


def ask(replica: WebReplica, method: str, path: str, **content: Any) -> Response:
    """`content`: what httpx makes the body and the headers of."""
    request = httpx.Request(method, f"http://test{path}", **content)
    headers = {name: value for name, value in request.headers.items() if name != "host"}
    return replica.ask(request.url.raw_path.decode(), method=method, body=request.read(), headers=headers)


def answer(replica: WebReplica, method: str, path: str, **content: Any) -> tuple[int, Any]:
    """Status and JSON."""
    response = ask(replica, method, path, **content)
    return response.status, json.loads(response.body)


def wrong_places(replica: WebReplica, method: str, path: str, **content: Any) -> list[list[Any]]:
    """Where validation found a request to be wrong."""
    code, tree = answer(replica, method, path, **content)
    assert code == 422, tree
    return [each["loc"] for each in tree["detail"]]


async def sleep_until_cancelled() -> None:
    """Until it is cancelled."""
    await asyncio.Event().wait()
