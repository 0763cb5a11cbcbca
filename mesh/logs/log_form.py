"""The form of log records: time, level, process, the request that was being served, logger, message and traceback."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from types import TracebackType

from mesh.context import Request, current_request
from mesh.logs.log_files import LogName
from mesh.v1 import control_pb2
from mesh.wire.outcome import users_traceback

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

_NO_REQUEST = {"request_id": "", "route": "", "trace_id": ""}
_STANDARD_ATTRIBUTES = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime"})


class RequestFilter(logging.Filter):
    """Completes records, when they are made, with the process and with the request of the code that made them."""

    def __init__(self, name: LogName, ids: Mapping[str, str]) -> None:
        """`ids`: how the cluster names the process."""
        super().__init__()
        self._process = {
            "component": name.component,
            "component_name": name.kind,
            "application": name.app,
            "deployment": name.deployment,
            name.kind: name.process_id,
            **ids,
        }

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record pass."""
        request = current_request()
        served = _NO_REQUEST if request is None else _named(request)
        for attribute, value in {**self._process, **served}.items():
            vars(record).setdefault(attribute, value)
        return True


def _named(request: Request) -> dict[str, str]:
    trace_id = request.context.traceparent[3:35]
    return {
        "request_id": request.request_id,
        "route": request.route,
        # Clients may send anything.
        "trace_id": trace_id if trace_id.isascii() and trace_id.isalnum() else "",
    }


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


class JsonFormatter(TextFormatter):
    """One line of JSON for each completed record (item 236); `extra` values of user code are in it too."""

    def __init__(self, additional_attributes: Sequence[str]) -> None:
        super().__init__()
        self._additional = tuple(additional_attributes)

    def format(self, record: logging.LogRecord) -> str:
        attributes = vars(record)
        members = {
            "asctime": self.formatTime(record),
            "levelname": record.levelname,
            "name": record.name,
            "message": record.getMessage(),
            "filename": record.filename,
            "lineno": record.lineno,
            **{name: value for name, value in attributes.items() if name not in _STANDARD_ATTRIBUTES and value != ""},
            **{name: attributes.get(name) for name in self._additional},
        }
        if record.exc_info:
            members["exc_text"] = self.formatException(record.exc_info)
        if record.stack_info:
            members["stack_info"] = record.stack_info
        try:
            return _json(members)
        except Exception:  # a value of user code, which may be anything: the record must not be lost for it
            return _json({name: _with_json_form(value) for name, value in members.items()})


def _json(value: object) -> str:
    return json.dumps(value, default=str, allow_nan=False)


def _with_json_form(value: object) -> object:
    """The value, or its text if it has no JSON form: NaN, keys that are tuples, what contains itself."""
    try:
        _json(value)
    except Exception:
        try:
            return str(value)
        except Exception:
            return f"<{type(value).__qualname__}>"
    return value


def formatter_of(options: control_pb2.LoggingOptions) -> logging.Formatter:
    return JsonFormatter(options.additional_attributes) if options.is_json else TextFormatter()
