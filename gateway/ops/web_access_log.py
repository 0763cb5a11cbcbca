"""The gateway's access log: one record for each web request, if the mesh's logging options ask for it."""

from __future__ import annotations

import logging

logger = logging.getLogger("mesh.access")


def log_web_access(method: str, route: str, status: int, duration_s: float, request_id: str) -> None:
    """Method, route, status and duration, as in "GET /shop/{item} 200 3.1ms"; the record names the request."""
    extra = {"request_id": request_id, "route": route}
    logger.info("%s %s %d %.1fms", method, route, status, duration_s * 1000, extra=extra)
