"""The form of log records: time, level, process, the request that was being served, logger, message and traceback."""

from __future__ import annotations

import logging
from types import TracebackType

from mesh.context import current_request
from mesh.wire.outcome import users_traceback

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class RequestFilter(logging.Filter):
    """Completes records, when they are made, with `component` and with the `request_id` of the code that made them."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record pass."""
        record.component = self._component
        if not hasattr(record, "request_id"):
            request = current_request()
            record.request_id = request.request_id if request is not None else ""
        return True


class TextFormatter(logging.Formatter):
    """`2026-11-28 20:15:01,123 ERROR replica shop/Shop#a1b2c3 [4f5e...] mesh: message`, for completed records."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        component, request_id = record.__dict__["component"], record.__dict__["request_id"]
        request = f" [{request_id}]" if request_id else ""
        return f"{record.asctime} {record.levelname} {component}{request} {record.name}: {record.message}"

    def formatException(self, ei: _ExcInfo) -> str:
        """Without the mesh's own frames above the user's code."""
        return users_traceback(ei[1]).rstrip() if ei[1] is not None else ""
