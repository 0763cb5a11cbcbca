"""The head of a request: from its bytes to an `HttpHead`, or the fault in it (RFC 9112). Pure.

Two readers of one message that disagree about its end let a request be smuggled past one of them. So nothing is
repaired here: what the RFC calls an error, or lets a server accept only for old clients, is refused with 400.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.http1.http1_limits import Http1Limits, HttpFault
from gateway.requests.exchange import Fields, HttpHead

END = b"\r\n\r\n"

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(%b) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])\r\n" % _TOKEN).match
_FIELDS = re.compile(rb"(?m)^(%b):([^\0-\x08\x0a-\x1f\x7f]*)\r\n" % _TOKEN).findall
_NOT_IN_A_HEAD = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|[\0-\x08\x0b\x0c\x0e-\x1f\x7f]").search
_LENGTH = re.compile(rb"[0-9]{1,18}").fullmatch
_HOST = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=%]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?").fullmatch
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?]+)(.*)").fullmatch
_OF_CONNECTION = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"te", b"trailer"}
)
"""Fields between the client and this connection. Dialects do not see them."""
_METHOD_MAX_CHARS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What all requests of a connection have in common."""

    peer: str = ""
    is_tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedHead:
    """A request without its body, and what its connection has to know."""

    head: HttpHead
    is_chunked: bool = False
    keeps_alive: bool = True
    """The client does not want the connection to be closed behind the answer."""
    expects_continue: bool = False
    """It waits for "100 Continue" before it sends the body."""
    takes_trailers: bool = False


def check_incomplete(data: bytes, limits: Http1Limits) -> None:
    """Raises HttpFault for the beginning of a head that cannot become one."""
    line_end = data.find(b"\r\n")
    _check_lengths(line_end if line_end >= 0 else len(data), len(data), limits)
    if _NOT_IN_A_HEAD(data):
        raise HttpFault(400, "A line does not end with CR LF, or has characters that are not allowed.")


def read_head(block: bytes, limits: Http1Limits, origin: Origin) -> ReceivedHead:
    """`block`: the request line and the lines of fields, without the empty line. Raises HttpFault."""
    line = _REQUEST_LINE(block)
    if line is None:
        _check_lengths(block.find(b"\r\n"), len(block), limits)
        raise HttpFault(400, "The request line is malformed.")
    method, target, major, minor = line.groups()
    _check_lengths(line.end(), len(block), limits)
    if major != b"1":
        raise HttpFault(505, "This port speaks HTTP/1.1 and HTTP/2.")
    fields = read_fields(block[line.end() :], limits)
    grouped: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        grouped.setdefault(name, []).append(value)
    is_old = minor == b"0"
    is_chunked, length = _body_framing(grouped, is_old=is_old)
    path, query, host = _read_target(method, target, grouped, is_old=is_old)
    options = _tokens(grouped, b"connection")
    is_websocket = _is_websocket(method, grouped, options, is_old=is_old, has_body=is_chunked or bool(length))
    if length is not None and length > limits.body_max_bytes:
        raise HttpFault(413, f"The body has more than {limits.body_max_bytes} bytes.")
    return ReceivedHead(
        head=HttpHead(
            method=method.decode(),
            path=path.decode(),
            query=query,
            fields=_end_to_end(fields, host),
            scheme=("ws" if is_websocket else "http") + ("s" if origin.is_tls else ""),
            http_version="1.0" if is_old else "1.1",
            peer=origin.peer,
            content_length=length,
            has_body=is_chunked or bool(length),
        ),
        is_chunked=is_chunked,
        keeps_alive=b"close" not in options and (not is_old or b"keep-alive" in options),
        expects_continue=_expects_continue(grouped, is_old=is_old),
        takes_trailers=b"trailers" in _tokens(grouped, b"te"),
    )


def read_fields(block: bytes, limits: Http1Limits) -> Fields:
    """Lines of fields, each with its CR LF; names in lower case. Raises HttpFault."""
    # One match ends at each line feed and begins at the start of a line, so no byte is skipped where the counts agree.
    found: list[tuple[bytes, bytes]] = _FIELDS(block)
    if len(found) > limits.fields_max:
        raise HttpFault(431, f"More than {limits.fields_max} header fields.")
    if len(found) != block.count(b"\n"):
        raise HttpFault(400, "A line of the header fields is malformed.")
    return [(name.lower(), value.strip(b" \t")) for name, value in found]


def _check_lengths(line_bytes: int, all_bytes: int, limits: Http1Limits) -> None:
    # The line has a method and a version besides the target.
    if line_bytes > limits.target_max_bytes + _METHOD_MAX_CHARS + 16:
        raise HttpFault(414, f"The target has more than {limits.target_max_bytes} bytes.")
    if all_bytes - line_bytes > limits.fields_max_bytes:
        raise HttpFault(431, f"The header fields have more than {limits.fields_max_bytes} bytes.")


def _body_framing(grouped: dict[bytes, list[bytes]], *, is_old: bool) -> tuple[bool, int | None]:
    """Whether the body comes in chunks, and its length if that is known (RFC 9112 §6.3)."""
    lengths = grouped.get(b"content-length", [])
    if b"transfer-encoding" in grouped:
        if lengths or is_old:
            raise HttpFault(400, "transfer-encoding together with content-length, or in HTTP/1.0.")
        codings = _tokens(grouped, b"transfer-encoding")
        if codings[-1:] != [b"chunked"] or codings.count(b"chunked") != 1:
            raise HttpFault(400, "The last transfer-encoding has to be chunked, and no other one.")
        if len(codings) > 1:
            raise HttpFault(501, "No other transfer-encoding than chunked is served.")
        return True, None
    if not lengths:
        return False, None
    if len(lengths) > 1 or not _LENGTH(lengths[0]):
        raise HttpFault(400, "content-length has to be one number.")
    return False, int(lengths[0])


def _read_target(
    method: bytes, target: bytes, grouped: dict[bytes, list[bytes]], *, is_old: bool
) -> tuple[bytes, bytes, bytes]:
    """Path, query and host (RFC 9112 §3.2)."""
    hosts = grouped.get(b"host", [])
    if len(hosts) > 1 or (not hosts and not is_old) or not all(map(_HOST, hosts)):
        raise HttpFault(400, "A request has one valid host field.")
    host = hosts[0] if hosts else b""
    if method == b"CONNECT" or len(method) > _METHOD_MAX_CHARS or method != method.upper():
        raise HttpFault(501, "This method is not served.")
    if target[:1] != b"/" and not (target == b"*" and method == b"OPTIONS"):
        absolute = _ABSOLUTE(target)
        if absolute is None or not _HOST(absolute[1]):
            raise HttpFault(400, "The target has to be a path or an http URL.")
        host, target = absolute[1], absolute[2]
        if target[:1] != b"/":
            target = b"/" + target
    if b"#" in target:
        raise HttpFault(400, "A target has no fragment.")
    path, _, query = target.partition(b"?")
    return path, query, host


def _tokens(grouped: dict[bytes, list[bytes]], name: bytes) -> list[bytes]:
    """The elements of a list in all fields of a name, in lower case."""
    values = grouped.get(name)
    if values is None:
        return []
    return [token.strip(b" \t").lower() for token in b",".join(values).split(b",") if token.strip(b" \t")]


def _is_websocket(
    method: bytes, grouped: dict[bytes, list[bytes]], options: list[bytes], *, is_old: bool, has_body: bool
) -> bool:
    """Other upgrades are not taken, which HTTP allows without a word."""
    if is_old or b"upgrade" not in options or b"websocket" not in _tokens(grouped, b"upgrade"):
        return False
    if method != b"GET" or has_body:
        raise HttpFault(400, "A WebSocket is opened by GET without a body.")
    return True


def _expects_continue(grouped: dict[bytes, list[bytes]], *, is_old: bool) -> bool:
    expected = _tokens(grouped, b"expect")
    if not expected or is_old:
        return False
    if expected != [b"100-continue"]:
        raise HttpFault(417, "Nothing else than 100-continue can be expected.")
    return True


def _end_to_end(fields: Fields, host: bytes) -> Fields:
    """The fields for dialects. The host is that of the target if it has one."""
    return [
        (name, host if name == b"host" else value)
        for name, value in fields
        if name not in _OF_CONNECTION and name != b"expect"
    ]
