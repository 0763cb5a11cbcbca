"""`Security`: the TLS of a gateway's ports and the guard of its calls, made from options and files."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterator

from gateway.access.api_keys import ApiKeys
from gateway.access.authenticator import Authenticator, OpenPaths, ReadyCheck
from gateway.access.call_limits import CallLimits, read_limits
from gateway.access.certificate_names import CertificateNames
from gateway.access.jwt_tokens import JwtTokens
from gateway.access.user_check import AuthenticationFunction, UserCheck, load_function
from gateway.dialects.call_guard import CallGuard
from gateway.dialects.served_method import CallCount
from mesh.options.security.tls_options import read_files
from mesh.settings import settings
from mesh.tls.current_tls import CurrentTls
from mesh.tls.file_watch import FileWatch
from mesh.tls.tls_context import server_context
from mesh.v1 import control_pb2
from mesh.wire.blocking_work import Work, run_blocking
from mesh.wire.telemetry import COUNTER, GAUGE, Family, Sample

AUTHENTICATIONS = Family(
    "mesh_gateway_authentications_total",
    COUNTER,
    "Authentications of requests: identified, open (the path needs no identity), refused, failed.",
    label_names=("result",),
)
LIMITED = Family("mesh_gateway_limited_total", COUNTER, "Calls above a limit of their caller or method.")
EXPIRES = Family(
    "mesh_gateway_certificate_expires_seconds",
    GAUGE,
    "When the certificate of a port ends, in Unix time.",
    label_names=("port",),
)
RELOADS = Family(
    "mesh_gateway_file_reloads_total",
    COUNTER,
    "Changed files of certificates and keys: taken (ok), or wrong, so that the old ones stay (refused).",
    label_names=("files", "result"),
)
_PROTOCOLS = ("h2", "http/1.1")


class Security:
    """I/O loop only."""

    def __init__(self, options: control_pb2.GatewayOptions) -> None:
        self._options = options
        self._watch = FileWatch()
        self._tls: dict[str, CurrentTls] = {}
        """By port: "grpc" or "http"."""
        self._authenticator: Authenticator | None = None
        self._limits: CallLimits | None = None
        self._watching: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Read all files, and import the user's function. Raises ValueError, OSError or ImportError naming both."""
        options = self._options
        for port in ("grpc", "http"):
            if options.HasField(f"{port}_tls"):
                files = read_files(f"{port}_options", getattr(options, f"{port}_tls"))
                self._tls[port] = CurrentTls(f"certificate of the {port} port", files, _PROTOCOLS, server_context)
        checks: list[ReadyCheck] = []
        if options.HasField("authentication"):
            checks = _ready_checks(options.authentication)
        for made in (*self._tls.values(), *checks):
            if not isinstance(made, CertificateNames):
                await run_blocking(Work.FILES, self._watch.add, made)
        if options.HasField("authentication"):
            self._authenticator = await _authenticator(options.authentication, checks)
        if options.identity_limits or options.method_limits:
            self._limits = CallLimits(
                read_limits(options.identity_limits),
                read_limits(options.method_limits),
                meters_max=settings().gateway.limited_callers_max,
            )
        self._watching = asyncio.create_task(
            self._watch.run(settings().gateway.files_interval_s, _in_thread), name="watch files of the gateway"
        )

    def tls(self, port: str) -> Callable[[], ssl.SSLContext] | None:
        """For the listener of "grpc" or "http": the context for its next handshake; None: plain text."""
        return self._tls[port].context if port in self._tls else None

    def guard(self, in_flight: CallCount) -> CallGuard | None:
        """None: every client may call, as often as it likes."""
        if self._authenticator is None and self._limits is None:
            return None
        return CallGuard(self._authenticator, self._limits, in_flight)

    async def close(self) -> None:
        """End what runs beside the calls."""
        if self._authenticator is not None:
            self._authenticator.close()
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching

    def collect(self) -> Iterator[tuple[Family, list[Sample]]]:
        """As a source of mesh.wire.telemetry."""
        if self._authenticator is not None:
            counts = self._authenticator.counts
            yield AUTHENTICATIONS, [Sample((result,), count) for result, count in counts.items()]
        if self._limits is not None:
            yield LIMITED, [Sample((), self._limits.refused)]
        yield EXPIRES, [Sample((port,), tls.expires_at_s) for port, tls in self._tls.items()]
        results = (("ok", self._watch.reloads), ("refused", self._watch.refusals))
        yield RELOADS, [Sample((name, result), count) for result, each in results for name, count in each.items()]


def _ready_checks(options: control_pb2.AuthenticationOptions) -> list[ReadyCheck]:
    checks: list[ReadyCheck] = []
    if options.keys_file:
        checks.append(ApiKeys(options.keys_file))
    if options.HasField("jwt"):
        checks.append(JwtTokens(options.jwt))
    if options.accepts_certificates:
        checks.append(CertificateNames())
    return checks


async def _authenticator(options: control_pb2.AuthenticationOptions, checks: list[ReadyCheck]) -> Authenticator:
    user_check = None
    if options.function:
        function: AuthenticationFunction = await run_blocking(Work.FILES, load_function, options.function)
        user_check = UserCheck(function, options.timeout_s, options.concurrent_max)
    return Authenticator(checks, user_check, OpenPaths(options.open_paths))


async def _in_thread(look: Callable[[], None]) -> None:
    await run_blocking(Work.FILES, look)
