"""The start of a call: from a handle's options and arguments to a request on its way to the router."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from mesh.caller.broadcast import BroadcastResponse
from mesh.caller.call_arguments import PENDING, STREAM, PendingArguments, UpstreamError, survey, take_stream
from mesh.caller.call_future import CallFuture, ItemStream
from mesh.caller.handle_options import HandleOptions
from mesh.caller.request_feed import RequestFeed
from mesh.caller.request_source import RequestSource, open_source
from mesh.caller.response import DeploymentResponse, DeploymentResponseGenerator
from mesh.caller.typed_messages import TypedMessages, messages_of
from mesh.context import REQUEST, Request
from mesh.exceptions import CancelReason, MeshException
from mesh.link.outgoing_call import RESERVE_METHOD, CallRequest, CallSink, OutgoingCall
from mesh.routing.router import Router
from mesh.routing.snapshot import DeploymentKey
from mesh.wire import request_context
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import Outcome, Trailers, failed, failed_in_user_code
from mesh.wire.payload import Payload, encode
from mesh.wire.request_context import RequestContext


def begin_call(
    key: DeploymentKey,
    router: Router,
    options: HandleOptions,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    replica_id: str = "",
) -> Any:
    """Start a call. Returns its response; the errors of what is called are raised by that, those of arguments here.

    `replica_id`: the one that has to run it, also where it has no free place.
    """
    if options.method_name.startswith("/"):
        return _begin_typed(router, options, messages_of(options.method_name), args, kwargs, replica_id)
    kinds = survey(args)
    if kwargs:
        kinds |= survey(kwargs.values())
    pending = payload = stream = None
    if kinds & PENDING and replica_id:
        raise TypeError(
            "A dispatched call takes neither responses nor object references as arguments, because its reserved place "
            "would be idle until they are there: await them before you choose a replica."
        )
    if kinds & STREAM:
        args, kwargs, stream = take_stream(args, kwargs)
    if kinds & PENDING:
        pending = PendingArguments(key, args, kwargs)
    else:
        payload = encode((args, kwargs), "arguments")
    if stream is None:
        future, call = _call(router, options, payload, options.stream)
    else:
        future, call = _streaming_call(router, options, payload, open_source(stream), _write_item, options.stream)
    if replica_id:
        _aim_at(call, replica_id)
    return _submit(router, future, call, pending)


def begin_reservation(router: Router, options: HandleOptions) -> tuple[CallFuture, OutgoingCall]:
    """Start a call that only holds a place at a replica, until its request ends."""
    parent = REQUEST.get()
    request = _request(options, parent, None, streams_response=False)
    request.method, request.streams_request, request.hedge, request.metadata = RESERVE_METHOD, True, None, ()
    future = CallFuture(router, parent)
    call = OutgoingCall(request, future)
    _submit(router, future, call, None)
    return future, call


def begin_broadcast(
    key: DeploymentKey, router: Router, options: HandleOptions, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> BroadcastResponse:
    """Start one call of each running replica."""
    if survey(args) | survey(kwargs.values()):
        raise TypeError("A broadcast takes values only: await responses, and collect streams, before.")
    payload = encode((args, kwargs), "arguments", store=False)
    parent = REQUEST.get()
    context = _context(parent, options.multiplexed_model_id, options.tenant)
    deadline_at_s = _deadline_at_s(parent, options.timeout_s)

    def call_replica(replica_id: str) -> Any:
        request = CallRequest(options.method_name, payload, context, deadline_at_s, metadata=options.metadata)  # type: ignore[arg-type]
        future = CallFuture(router, parent)
        call = OutgoingCall(request, future)
        _aim_at(call, replica_id)
        return _submit(router, future, call, None)

    return BroadcastResponse(router, call_replica, parent, deadline_at_s)


def _begin_typed(
    router: Router,
    options: HandleOptions,
    messages: TypedMessages,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    replica_id: str,
) -> Any:
    """A call under the full name of a gRPC method: protobuf messages travel as such."""
    argument = messages.only_argument(args, kwargs)
    streams_response = messages.streams_response
    if messages.streams_request:
        source = open_source(argument, is_any_iterable=True)
        future, call = _streaming_call(router, options, None, source, messages.write, streams_response)
    else:
        future, call = _call(router, options, messages.write(argument), streams_response)
    if replica_id:
        _aim_at(call, replica_id)
    response = _submit(router, future, call, None)
    response._read = messages.read
    return response


def _call(
    router: Router, options: HandleOptions, payload: Payload | None, streams_response: bool
) -> tuple[CallFuture, OutgoingCall]:
    """A call with one request, which is `payload` or comes when its arguments are there."""
    parent = REQUEST.get()
    request = _request(options, parent, payload, streams_response=streams_response)
    future = ItemStream(router, parent) if streams_response else CallFuture(router, parent)
    return future, OutgoingCall(request, future)


def _streaming_call(
    router: Router,
    options: HandleOptions,
    payload: Payload | None,
    source: RequestSource,
    write_item: Callable[[Any], Payload],
    streams_response: bool,
) -> tuple[CallFuture, OutgoingCall]:
    """A call whose request is streamed: it is sent once, so neither retried nor hedged."""
    parent = REQUEST.get()
    request = _request(options, parent, payload, streams_response=streams_response)
    request.streams_request, request.hedge = True, None
    future = ItemStream(router, parent) if streams_response else CallFuture(router, parent)
    feed = RequestFeed(future, write_item)
    call = feed.call = OutgoingCall(request, feed)
    source.start(feed)
    return future, call


def _aim_at(call: OutgoingCall, replica_id: str) -> None:
    """Send the call to this replica only, whatever it does at the moment."""
    call.request.targets = (frozenset((replica_id,)),)
    call.request.is_pinned = True
    call.request.is_beyond_limit, call.request.hedge = True, None


def _request(
    options: HandleOptions, parent: Request | None, payload: Payload | None, *, streams_response: bool
) -> CallRequest:
    # By position: names cost half as much again as the rest of it.
    return CallRequest(
        options.method_name,
        payload,
        _context(parent, options.multiplexed_model_id, options.tenant),
        _deadline_at_s(parent, options.timeout_s),
        False,
        streams_response,
        options.metadata,  # type: ignore[arg-type]  # checked by HandleOptions, as the two below
        "",
        options._prefer_local_routing,
        options.idempotent,
        options.retry,  # type: ignore[arg-type]
        options.queue_timeout_s,
        None if streams_response else options.hedge_after_s,  # type: ignore[arg-type]
        options.session_id,
    )


def _submit(router: Router, future: CallFuture, call: OutgoingCall, pending: PendingArguments | None) -> Any:
    future.call = call
    if pending is None:
        io_thread().call(router.submit, call)
    else:
        io_thread().call(_submit_when_complete, router, call, pending)
    parent = future.parent
    if parent is not None and parent.is_cancelled:
        future.cancel(CancelReason.PARENT)
    request_id = call.request.context.request_id
    if isinstance(future, ItemStream):
        return DeploymentResponseGenerator(future, request_id)
    return DeploymentResponse(future, request_id)


def _context(parent: Request | None, model_id: str, tenant: str) -> RequestContext:
    if parent is not None:
        # A web application chooses the route of its request after that has begun.
        route = parent.route if parent.is_http_request else ""
        return parent.context.for_child(model_id, tenant, route)
    return request_context.new_root(model_id, tenant)


def _deadline_at_s(parent: Request | None, timeout_s: float | None) -> float | None:
    inherited_at_s = parent.deadline_at_s if parent is not None else None
    if timeout_s is None:
        return inherited_at_s
    own_at_s = time.monotonic() + timeout_s
    return own_at_s if inherited_at_s is None else min(own_at_s, inherited_at_s)


def _write_item(item: Any) -> Payload:
    return encode(item, "item of the request stream", store=False)


def _submit_when_complete(router: Router, call: OutgoingCall, pending: PendingArguments) -> None:
    if router.start_deadline(call):
        sink = call.sink
        task = io_thread().spawn(_complete_and_submit(router, call, pending, sink), "collect-arguments")
        call.sink = _IncompleteCall(sink, task)


class _IncompleteCall:
    """Sink of a call while its arguments are awaited: a call that ends then, cancelled or late, ends the wait too."""

    def __init__(self, sink: CallSink, collecting: asyncio.Task[None]) -> None:
        self._sink = sink
        self._collecting = collecting

    def on_done(self, outcome: Outcome) -> None:
        self._collecting.cancel()
        self._sink.on_done(outcome)

    def on_item(self, payload: Payload) -> None:
        """Nothing comes before the call is sent, nor below."""

    def on_credit(self) -> None: ...

    def on_initial_metadata(self, entries: Trailers) -> None: ...

    def on_compression(self, encoding: str, *, skips_next: bool) -> None: ...


async def _complete_and_submit(router: Router, call: OutgoingCall, pending: PendingArguments, sink: CallSink) -> None:
    """`sink`: what the call has when its arguments are there."""
    router.counts.collecting += 1
    try:
        try:
            call.request.payload = await pending.collect()
        finally:
            call.sink = sink
    except* UpstreamError as group:
        first = group.exceptions[0]
        outcome = first.outcome if isinstance(first, UpstreamError) else failed(MeshException(str(first)))
        router.end(call, outcome, CancelReason.CLIENT)
    except* Exception as group:  # whatever pickling and Ray can raise: the call has to end
        router.end(call, failed_in_user_code(group.exceptions[0]), CancelReason.CLIENT)
    else:
        call.started_at_s = time.monotonic()
        router.submit(call)
    finally:
        router.counts.collecting -= 1
