"""The access log: one record for each call that ended, for deployments that ask for it."""

from __future__ import annotations

import logging
import time

from mesh.link.callee_link import IncomingCall
from mesh.rpc.status_codes import status_code
from mesh.wire.outcome import Outcome

logger = logging.getLogger("mesh.access")


def log_access(call: IncomingCall, title: str, route: str, outcome: Outcome) -> None:
    """Log title, status and time since the call was admitted; the record names the request.

    `title`: the method, or the HTTP method and route of a web request. `route`: how the client request came in.
    """
    duration_ms = (time.monotonic() - call.started_at_s) * 1000
    logger.info(
        "%s %s %.1f ms",
        title,
        status_code(outcome.code).name,
        duration_ms,
        extra={"request_id": call.request.context.request_id, "route": route},
    )
