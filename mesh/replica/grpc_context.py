"""The context object that typed methods get: it describes the call and takes its status."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from typing import Any, NamedTuple, NoReturn, Protocol

import grpc

from mesh.context import Request
from mesh.exceptions import GrpcStatusError, details_text
from mesh.replica.user_loop import UserLoop
from mesh.rpc.status_details import DETAILS_KEY
from mesh.wire.outcome import Outcome, Trailers

_ENCODINGS = {grpc.Compression.NoCompression: "", grpc.Compression.Deflate: "deflate", grpc.Compression.Gzip: "gzip"}

IDENTITY_KEY = "identity"

Metadata = tuple[tuple[str, str | bytes], ...]


class Metadatum(NamedTuple):
    """One pair of metadata, with the field names of gRPC."""

    key: str
    value: str | bytes


class ClientResponse(Protocol):
    """The way of headers to the client. On the I/O loop. Implemented by link.callee_link."""

    def send_initial_metadata(self, entries: Trailers) -> None: ...

    def set_compression(self, encoding: str, skips_next: bool) -> None: ...


class GrpcContext:
    """The servicer context of gRPC, with the names of `grpc.ServicerContext` and `grpc.aio.ServicerContext`.

    What a call behind a gateway does not have raises RuntimeError with what to write instead.
    """

    def __init__(self, request: Request, metadata: Iterable[tuple[str, str | bytes]], peer: str) -> None:
        self._request = request
        self._metadata = metadata
        self._peer = peer
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._trailers: Metadata = ()
        self._is_done = False
        self._done_callbacks: list[Callable[[Any], None]] = []
        self.read_message: Callable[[], Awaitable[Any]] | None = None
        self.write_message: Callable[[Any], Awaitable[None]] | None = None
        self.response: tuple[ClientResponse, UserLoop] | None = None
        """Where headers go, and the way to its loop; None in tests of user code."""
        self.has_sent_headers = False
        """With the initial metadata, or with the first message."""

    def invocation_metadata(self) -> tuple[Metadatum, ...]:
        """What the client sent."""
        return tuple(_decoded(key, value) for key, value in self._metadata)

    def peer(self) -> str:
        """The client as the gateway sees it, e.g. "ipv4:10.0.0.7:50312"."""
        return self._peer

    def peer_identities(self) -> list[bytes] | None:
        """The name of the client that the gateway has authenticated; None where it does not ask."""
        identity = self._request.identity
        return None if identity is None else [identity.name.encode()]

    def peer_identity_key(self) -> str | None:
        """The key of `auth_context` that names the client."""
        return None if self._request.identity is None else IDENTITY_KEY

    def auth_context(self) -> dict[str, list[bytes]]:
        """What the gateway knows of the client: its name under "identity", and its attributes."""
        identity = self._request.identity
        if identity is None:
            return {}
        attributes = {key: [value.encode()] for key, value in identity.attributes.items()}
        return {**attributes, IDENTITY_KEY: [identity.name.encode()]}

    def request_id(self) -> str:
        """The id that this call shares with all calls that are made for it."""
        return self._request.request_id

    def application(self) -> str:
        """The application that the call is for."""
        return self._request.app

    def multiplexed_model_id(self) -> str | None:
        """The model that the call is for."""
        return self._request.multiplexed_model_id or None

    def traceparent(self) -> str | None:
        """The trace of the call, in the form of W3C; None if it has none."""
        return self._request.context.traceparent or None

    def tracestate(self) -> str | None:
        return self._request.context.tracestate or None

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, None without one."""
        return self._request.remaining_s

    def is_active(self) -> bool:
        return not self._is_done and not self._request.is_cancelled

    def done(self) -> bool:
        """Whether the call has ended, for code that outlives it."""
        return self._is_done

    def cancelled(self) -> bool:
        return self._request.is_cancelled

    def cancel(self) -> NoReturn:
        raise _unavailable("cancel", "end the call with abort(grpc.StatusCode.CANCELLED, ...)")

    def code(self) -> grpc.StatusCode | None:
        return self._code

    def set_code(self, code: grpc.StatusCode) -> None:
        """Status of the call, also when the method raises afterwards."""
        if not isinstance(code, grpc.StatusCode):
            raise TypeError(f"set_code() takes a grpc.StatusCode, got {code!r}.")
        self._code = code

    def details(self) -> str:
        return self._details

    def set_details(self, details: object) -> None:
        self._details = details_text(details)

    def trailing_metadata(self) -> Metadata:
        return self._trailers

    def set_trailing_metadata(self, trailing_metadata: Iterable[tuple[str, str | bytes]]) -> None:
        self._trailers = _pairs(trailing_metadata)

    def send_initial_metadata(self, initial_metadata: Iterable[tuple[str, str | bytes]]) -> Awaitable[None]:
        """Send the response's headers now, once and before the first message. With and without `await`."""
        self._require_headers_unsent("send_initial_metadata")
        entries = encoded(_pairs(initial_metadata))
        self.has_sent_headers = True
        if self.response is not None:
            response, user_loop = self.response
            user_loop.to_io(response.send_initial_metadata, entries)
        return _Done()

    def set_compression(self, compression: grpc.Compression) -> None:
        """Compress the messages of the response, if the client accepts it. Before the headers have been sent."""
        if compression not in _ENCODINGS:
            raise TypeError(f"set_compression() takes a grpc.Compression, got {compression!r}.")
        self._require_headers_unsent("set_compression")
        self._send_compression(_ENCODINGS[compression], skips_next=False)

    def disable_next_message_compression(self) -> None:
        """Send the next message as it is."""
        self._send_compression("", skips_next=True)

    def abort(
        self, code: grpc.StatusCode, details: object = "", trailing_metadata: Iterable[tuple[str, str | bytes]] = ()
    ) -> NoReturn:
        """End the call with this status. Raises, with and without `await`."""
        if code is grpc.StatusCode.OK:
            raise ValueError("abort() ends a call with an error, got StatusCode.OK: return the response instead.")
        self._trailers = _pairs(trailing_metadata) or self._trailers
        error = GrpcStatusError(code, details, encoded(self._trailers))
        self._code, self._details = code, error.details
        raise error

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        self.abort(status.code, status.details, status.trailing_metadata or ())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback(context)` when the call has ended."""
        self._done_callbacks.append(callback)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """The same without an argument, as in sync gRPC; False if the call has ended already."""
        if not self._is_done:
            self._done_callbacks.append(lambda context: callback())
        return not self._is_done

    def read(self) -> Awaitable[Any]:
        """Next request message of a streamed request, grpc.aio.EOF at its end. In `async def` methods."""
        if self.read_message is None:
            raise RuntimeError("read() is for methods with a streamed request.")
        _require_event_loop("read() is for `async def` methods: iterate over the request in this one.")
        return self.read_message()

    def write(self, message: Any) -> Awaitable[None]:
        """Send one message of a streamed response. In `async def` methods."""
        if self.write_message is None:
            raise RuntimeError("write() is for methods with a streamed response.")
        _require_event_loop("write() is for `async def` methods: `yield` the message in this one.")
        return self.write_message(message)

    def _send_compression(self, encoding: str, *, skips_next: bool) -> None:
        if self.response is not None and not self._is_done:
            response, user_loop = self.response
            user_loop.to_io(response.set_compression, encoding, skips_next)

    def _require_headers_unsent(self, method: str) -> None:
        if self.has_sent_headers or self._is_done:
            raise RuntimeError(
                f"{method}() comes too late: the headers of the response are sent once, by send_initial_metadata() or "
                "with the first message. Call it before."
            )

    # ---- For the replica ---------------------------------------------------------------------------------------------

    def end(self) -> None:
        """The method has ended: run all of the user's callbacks. Raises what the first raises that does."""
        self._is_done = True
        errors: list[BaseException] = []
        for callback in self._done_callbacks:
            try:
                callback(self)
            except BaseException as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def apply(self, outcome: Outcome) -> Outcome:
        """The outcome with the status that the method has set."""
        raised = outcome.code, outcome.message
        self._set_status(outcome)
        if (outcome.code, outcome.message) != raised:
            # Clients refuse details of another status.
            outcome.trailers = tuple(each for each in outcome.trailers if each[0] != DETAILS_KEY)
        if self._trailers:
            set_here = encoded(self._trailers)
            outcome.trailers = (*(each for each in outcome.trailers if each not in set_here), *set_here)
        return outcome

    def _set_status(self, outcome: Outcome) -> None:
        # A failure stays one: with OK the client would take a stream that broke off for a complete one.
        if self._code is not None and (outcome.is_ok or self._code is not grpc.StatusCode.OK):
            outcome.code = self._code.value[0]
            outcome.message = self._details or outcome.message
            if not outcome.is_ok:
                outcome.payload = None
        elif self._details:
            outcome.message = self._details


class _Done:
    """An awaitable that has nothing to wait for, and that may be dropped."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


def _unavailable(method: str, advice: str) -> RuntimeError:
    return RuntimeError(f"{method}() of the gRPC context is not available in this version of the mesh: {advice}.")


def _require_event_loop(message: str) -> None:
    """In a thread, a coroutine would be dropped without an error."""
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        raise RuntimeError(message) from error


def _decoded(key: str, value: str | bytes) -> Metadatum:
    """Binary values stay bytes, as gRPC gives them to its users."""
    if isinstance(value, str) or key.endswith("-bin"):
        return Metadatum(key, value)
    return Metadatum(key, value.decode("ascii", "replace"))


def _pairs(metadata: Iterable[tuple[str, str | bytes]]) -> Metadata:
    """Raises TypeError for a mapping, and for a pair in the place of the whole."""
    if isinstance(metadata, Mapping):
        raise TypeError(f"metadata are pairs, not a {type(metadata).__name__}: write tuple(metadata.items())")
    pairs = tuple(metadata)
    if any(isinstance(each, str | bytes) for each in pairs):
        raise TypeError(f"metadata are pairs: write [(key, value)], not {metadata!r}")
    return pairs


def encoded(metadata: Metadata) -> Trailers:
    """Metadata as the wire carries them. Raises TypeError for what gRPC could not carry."""
    pairs = tuple((key, value.encode() if isinstance(value, str) else value) for key, value in metadata)
    for key, value in pairs:
        if not isinstance(key, str) or not key.isascii() or not isinstance(value, bytes):
            raise TypeError(f"metadata are pairs of an ASCII string and a string or bytes, not ({key!r}, {value!r})")
    return pairs
