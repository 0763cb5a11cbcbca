"""The context object that typed methods get: it describes the call and takes its status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NoReturn

import grpc

from mesh.context import Request
from mesh.exceptions import GrpcStatusError, details_text
from mesh.wire.outcome import Outcome, Trailers

Metadata = tuple[tuple[str, str | bytes], ...]


class GrpcContext:
    """The servicer context of gRPC as far as a call behind a gateway has one. Same names, sync and async use."""

    def __init__(self, request: Request, metadata: Iterable[tuple[str, str | bytes]], peer: str) -> None:
        self._request = request
        self._metadata: Metadata = tuple(_decoded(key, value) for key, value in metadata)
        self._peer = peer
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._trailers: Metadata = ()
        self._done_callbacks: list[Callable[[Any], None]] = []
        self.read_message: Callable[[], Awaitable[Any]] | None = None
        self.write_message: Callable[[Any], Awaitable[None]] | None = None

    def invocation_metadata(self) -> Metadata:
        """What the client sent."""
        return self._metadata

    def peer(self) -> str:
        """The client as the gateway sees it, e.g. "ipv4:10.0.0.7:50312"."""
        return self._peer

    def peer_identities(self) -> None:
        return None

    def peer_identity_key(self) -> None:
        return None

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, None without one."""
        return self._request.remaining_s

    def is_active(self) -> bool:
        return not self._request.is_cancelled

    def cancelled(self) -> bool:
        return self._request.is_cancelled

    def code(self) -> grpc.StatusCode | None:
        return self._code

    def set_code(self, code: grpc.StatusCode) -> None:
        """Status of the call, also when the method raises afterwards."""
        self._code = code

    def details(self) -> str:
        return self._details

    def set_details(self, details: object) -> None:
        self._details = details_text(details)

    def trailing_metadata(self) -> Metadata:
        return self._trailers

    def set_trailing_metadata(self, trailing_metadata: Iterable[tuple[str, str | bytes]]) -> None:
        self._trailers = tuple(trailing_metadata)

    def send_initial_metadata(self, initial_metadata: object) -> Awaitable[None]:
        """Accepted for compatibility. Gateways send their own initial metadata; use trailing metadata instead."""
        del initial_metadata
        return _nothing()

    def set_compression(self, compression: object) -> None:
        """Accepted for compatibility: links do not compress."""

    def abort(
        self, code: grpc.StatusCode, details: object = "", trailing_metadata: Iterable[tuple[str, str | bytes]] = ()
    ) -> NoReturn:
        """End the call with this status. Raises, with and without `await`."""
        self._trailers = tuple(trailing_metadata) or self._trailers
        error = GrpcStatusError(code, details, encoded(self._trailers))
        self._code, self._details = code, error.details
        raise error

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        self.abort(status.code, status.details, status.trailing_metadata or ())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback(context)` when the call has ended."""
        self._done_callbacks.append(callback)

    def read(self) -> Awaitable[Any]:
        """Next request message of a streamed request, grpc.aio.EOF at its end."""
        if self.read_message is None:
            raise RuntimeError("read() is for methods with a streamed request.")
        return self.read_message()

    def write(self, message: Any) -> Awaitable[None]:
        """Send one message of a streamed response."""
        if self.write_message is None:
            raise RuntimeError("write() is for methods with a streamed response.")
        return self.write_message(message)

    # ---- For the replica ---------------------------------------------------------------------------------------------

    def done(self) -> None:
        for callback in self._done_callbacks:
            callback(self)

    def apply(self, outcome: Outcome) -> Outcome:
        """The outcome with the status that the method has set."""
        if self._trailers:
            outcome.trailers = encoded(self._trailers)
        # A failure stays one: with OK the client would take a stream that broke off for a complete one.
        if self._code is not None and (outcome.is_ok or self._code is not grpc.StatusCode.OK):
            outcome.code = self._code.value[0]
            outcome.message = self._details or outcome.message
            if not outcome.is_ok:
                outcome.payload = None
        elif self._details:
            outcome.message = self._details
        return outcome


def _decoded(key: str, value: str | bytes) -> tuple[str, str | bytes]:
    """Binary values stay bytes, as gRPC gives them to its users."""
    if isinstance(value, str) or key.endswith("-bin"):
        return key, value
    return key, value.decode("ascii", "replace")


def encoded(trailers: Metadata) -> Trailers:
    """Trailers as the wire carries them. Raises TypeError for what gRPC could not carry."""
    pairs = tuple((key, value.encode() if isinstance(value, str) else value) for key, value in trailers)
    for key, value in pairs:
        if not isinstance(key, str) or not isinstance(value, bytes):
            raise TypeError(f"trailing metadata are pairs of a string and a string or bytes, not ({key!r}, {value!r})")
    return pairs


async def _nothing() -> None:
    return None
