"""The context that travels with every call: request id, route, application, model id, trace, identity and tenant."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from mesh.v1 import common_pb2
from mesh.wire.identity import Identity

# A separate generator: user code that seeds the shared one must not make request ids repeat.
_bits = random.Random().getrandbits
_OF_PROCESS = f"-4{_bits(12):03x}-{0x8000 | _bits(14):04x}-{_bits(48):012x}"
_numbers = itertools.count(_bits(48))
_STEP = 0x9E3779B97F4B
"""Odd, so that 2^48 numbers follow each other before one repeats; large, so that they differ in their first digits."""


@dataclass(slots=True)
class RequestContext:
    """What a call hands on to the calls made for it, except for the model id. Not changed once it is complete."""

    request_id: str = ""
    route: str = ""
    app: str = ""
    multiplexed_model_id: str = ""
    traceparent: str = ""
    tracestate: str = ""
    identity: Identity | None = None
    tenant: str = ""
    """The tenant that the request is for. Calls of one tenant without a session id prefer the same replicas."""
    track: str = ""
    """Which version of each application serves the request, where that has a canary; the routers decide it."""
    origin: RequestContext | None = field(default=None, repr=False, compare=False)
    """The context that this one was copied from. All its copies follow what a router decides for the first of them."""

    def for_child(self, multiplexed_model_id: str, tenant: str = "", route: str = "") -> RequestContext:
        """The context of a call made while serving this one. It is the same object where nothing differs.

        `tenant`, `route`: empty for those of this one.
        """
        tenant = tenant or self.tenant
        route = route or self.route
        if (
            self.multiplexed_model_id == multiplexed_model_id
            and self.tenant == tenant
            and self.route == route
            and self.request_id
        ):
            return self
        return RequestContext(
            self.request_id or new_request_id(),
            route,
            self.app,
            multiplexed_model_id,
            self.traceparent,
            self.tracestate,
            self.identity,
            tenant,
            self.track,
            self.origin or self,
        )

    def write(self, message: common_pb2.RequestContext) -> None:
        """Fill a protobuf message. Empty fields are left out: they take no bytes on the wire."""
        message.request_id = self.request_id
        if self.route:
            message.route = self.route
        if self.app:
            message.app = self.app
        if self.multiplexed_model_id:
            message.multiplexed_model_id = self.multiplexed_model_id
        if self.traceparent:
            message.traceparent = self.traceparent
            message.tracestate = self.tracestate
        if self.identity is not None:
            self.identity.write(message.identity)
        if self.tenant:
            message.tenant = self.tenant
        if self.track:
            message.track = self.track

    @classmethod
    def read(cls, message: common_pb2.RequestContext) -> RequestContext:
        return cls(
            message.request_id,
            message.route,
            message.app,
            message.multiplexed_model_id,
            message.traceparent,
            message.tracestate,
            Identity.read(message.identity) if message.HasField("identity") else None,
            message.tenant,
            message.track,
        )


def _new_root(multiplexed_model_id: str, tenant: str) -> RequestContext:
    return RequestContext(new_request_id(), "", "", multiplexed_model_id, "", "", None, tenant)


new_root: Callable[[str, str], RequestContext] = _new_root
"""Makes the context of a call that serves no request, for a model id and a tenant. `mesh.tracing` replaces it."""


def new_request_id() -> str:
    """A UUID4: 74 random bits of this process behind a number. Every call needs one, and `uuid.uuid4()` is slow."""
    digits = "%012x" % (next(_numbers) * _STEP & 0xFFFF_FFFF_FFFF)
    return f"{digits[:8]}-{digits[8:]}{_OF_PROCESS}"
