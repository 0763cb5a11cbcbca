"""What a dialect gets for each method: the router of its deployment, its counts and its time limit."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from gateway.ops.grpc_metrics import MethodStats
from gateway.requests import web_status
from gateway.requests.descriptors import Descriptors
from gateway.requests.model_ids import model_id_of_message
from mesh.exceptions import CancelReason
from mesh.link.outgoing_call import OutgoingCall, nested_lead_s
from mesh.options.calls.call_policies import CallPolicies
from mesh.rpc.status_codes import DEADLINE_EXCEEDED
from mesh.settings import settings
from mesh.wire.identity import Identity
from mesh.wire.outcome import Outcome
from mesh.wire.request_context import RequestContext

COUNTED_MIN_BYTES = 4_096
"""Smaller requests that come at once are not counted in what the gateway buffers: open streams count for themselves."""

NO_ROOM = web_status.NO_ROOM.text
ROUNDED_S = 0.005
"""Clients and proxies round deadlines: one that leaves this long before the deadline has reached it."""
_ROUNDED_SHARE = 0.01
"""Clients round up what they say of their deadline, by up to that share and that time, and leave at the deadline."""


class CallRouter(Protocol):
    """The router of one deployment; implemented by mesh.routing.router."""

    def submit(self, call: OutgoingCall) -> None:
        """Start the call. Its sink gets all that comes back, and `on_done` exactly once."""

    def cancel(self, call: OutgoingCall, reason: CancelReason) -> None:
        """End the call on the mesh. Has no effect on a call that has ended."""


class CallCount(Protocol):
    """Counts calls in progress."""

    def enter(self) -> None: ...

    def leave(self) -> None: ...


@dataclass(slots=True, eq=False)
class ServedMethod:
    """What all calls of one method share; looked up once per version of the routes."""

    full_name: str
    application: str
    streams_request: bool
    streams_response: bool
    router: CallRouter
    stats: MethodStats
    in_flight: CallCount
    timeout_s: float | None
    """The gateway's own limit on the duration of a call; the client's deadline may be earlier."""
    message_max_bytes: int
    """Size of a request message."""
    is_idempotent: bool
    """Its calls may be sent again where they may have run."""
    policies: CallPolicies
    """What the gateway does for its calls on its own; nothing unless it is unary and idempotent."""
    descriptors: Descriptors
    """Descriptors of the application, for dialects that translate messages."""
    identity: Identity | None = None
    """Whose calls these are, where the gateway asks."""
    model_id_fields: tuple[int, ...] = ()
    """Fields of the request message that name the multiplexed model; only unary methods have any."""

    @property
    def json_max_bytes(self) -> int:
        """Size of a request message as JSON."""
        return min(self.message_max_bytes, settings().gateway.json_max_bytes)

    @property
    def decompressed_max_bytes(self) -> int:
        """Size of a compressed request message once decompressed, which happens on the I/O loop."""
        return min(self.message_max_bytes, settings().gateway.decompressed_max_bytes)

    def name_model(self, context: RequestContext, request: bytes | memoryview) -> None:
        """Give the context of a call the model that its request names, if the client has not done so in metadata."""
        if not context.multiplexed_model_id:
            context.multiplexed_model_id = model_id_of_message(request, self.model_id_fields)

    @property
    def not_a_message(self) -> str:
        """The error text of a call whose result is not a message."""
        return f"{self.full_name} returned something that is not its serialised response message."

    def deadline_at_s(self, remaining_s: float | None) -> float | None:
        """Deadline of a call that starts now, as `time.monotonic()`. `remaining_s`: until the client's own, if any."""
        if self.timeout_s is not None:
            remaining_s = self.timeout_s if remaining_s is None else min(remaining_s, self.timeout_s)
        return None if remaining_s is None else monotonic() + remaining_s

    def explained(self, outcome: Outcome, remaining_s: float | None, request_id: str, started_at_s: float) -> Outcome:
        """The outcome of a call; if the gateway's own limit has ended it, it says so. `remaining_s` as above."""
        own_s = self.timeout_s
        if own_s is None or outcome.code != DEADLINE_EXCEEDED or (remaining_s is not None and remaining_s <= own_s):
            return outcome
        # User code may have deadlines of its own. A nested call that has that of the request fails at its very end.
        is_users = outcome.remote_traceback and monotonic() < started_at_s + own_s - nested_lead_s(own_s)
        return outcome if is_users else Outcome(outcome.code, web_status.timeout_text(request_id, own_s))


def reason_of_leaving(deadline_at_s: float | None, started_at_s: float) -> CancelReason:
    """Why a client gives up a call now: its deadline has passed, or it has left."""
    if deadline_at_s is None:
        return CancelReason.CLIENT
    allowance_s = (deadline_at_s - started_at_s) * _ROUNDED_SHARE + ROUNDED_S
    return CancelReason.DEADLINE if monotonic() >= deadline_at_s - allowance_s else CancelReason.CLIENT
