"""The head of a request: from its bytes to an `HttpHead`, or the fault in it (RFC 9112). Pure.

Two readers of one message that disagree about its end let a request be smuggled past one of them. So nothing is
repaired here: what the RFC calls an error, or lets a server accept only for old clients, is refused with 400.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.http1.http1_limits import Http1Error, Http1Limits
from gateway.requests.end_to_end_fields import FORWARDED, is_host
from gateway.requests.exchange import Fields, HttpHead
from gateway.requests.route_prefixes import without_root
from mesh.tls.client_certificate import ClientCertificate

END = b"\r\n\r\n"

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(%b) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])\r\n" % _TOKEN).match
_FIELDS = re.compile(rb"(?m)^(%b):([^\0-\x08\x0a-\x1f\x7f]*)\r\n" % _TOKEN).findall
_NOT_IN_A_HEAD = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|[\0-\x08\x0b\x0c\x0e-\x1f\x7f]").search
_LENGTH = re.compile(rb"[0-9]{1,18}").fullmatch
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?]+)(.*)").fullmatch
_UPPER_CASE = re.compile(rb"[^a-z]+").fullmatch
_OF_CONNECTION = frozenset(
    {
        b"connection", b"expect", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding",
        b"upgrade",
    }
)  # fmt: skip
"""Fields between the client and this connection. Dialects do not see them."""
_FOR_EVERYONE = FORWARDED | {b"content-length", b"host", b"x-forwarded-proto"}
"""What a client cannot have taken out by naming it in the field `connection`: a proxy in front may have added it."""
_READ_HERE = _OF_CONNECTION | {b"host", b"content-length"}
_SCHEMES = {(False, False): "http", (False, True): "https", (True, False): "ws", (True, True): "wss"}
"""By whether it is a WebSocket, and whether it is on TLS."""
_METHOD_MAX_CHARS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What all requests of a connection have in common."""

    peer: str = ""
    is_tls: bool = False
    certificate: ClientCertificate | None = None
    root_path: str = ""
    """Where a proxy in front has mounted the server; cut off where the proxy has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldLines:
    """What the lines of fields say, whatever the request line is: clients send the same with every request."""

    fields: Fields
    """Those for dialects."""
    host: bytes | None
    length: int | None
    """Length of the body, from content-length."""
    is_chunked: bool
    options: frozenset[bytes]
    """The options of the field `connection`, in lower case."""
    expects_continue: bool
    takes_trailers: bool
    wants_websocket: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedHead:
    """A request without its body, and what its connection has to know."""

    head: HttpHead
    lines: FieldLines
    keeps_alive: bool
    """The client does not want the connection to be closed behind the answer."""

    @property
    def expects_continue(self) -> bool:
        """The client waits for "100 Continue" before it sends the body. HTTP/1.0 has none (RFC 9110 §10.1.1)."""
        return self.lines.expects_continue and self.head.http_version != "1.0"


def check_incomplete(data: bytes, limits: Http1Limits) -> None:
    """Raises Http1Error for the beginning of a head that cannot become one."""
    line_end = data.find(b"\r\n")
    check_lengths(line_end if line_end >= 0 else len(data), len(data), limits)
    if _NOT_IN_A_HEAD(data):
        raise Http1Error(400, "A line does not end with CR LF, or has characters that are not allowed.")


def read_head(line: bytes, lines: FieldLines, limits: Http1Limits, origin: Origin) -> ReceivedHead:
    """`line`: the request line with its CR LF. Raises Http1Error."""
    found = _REQUEST_LINE(line)
    if found is None:
        raise Http1Error(400, "The request line is malformed.")
    method, target, major, minor = found.groups()
    if major != b"1":
        raise Http1Error(505, "This port speaks HTTP/1.1 and HTTP/2.")
    is_old = minor == b"0"
    if is_old and lines.is_chunked:
        raise Http1Error(400, "HTTP/1.0 has no transfer-encoding.")
    if lines.host is None and not is_old:
        raise Http1Error(400, "A request has a host field.")
    if method == b"CONNECT" or len(method) > _METHOD_MAX_CHARS or not _UPPER_CASE(method):
        raise Http1Error(501, "This method is not served.")
    fields = lines.fields
    if target[:1] != b"/":
        target, host = _other_target(method, target, lines.host or b"")
        fields = [(name, host if name == b"host" else value) for name, value in fields]
    if b"#" in target:
        raise Http1Error(400, "A target has no fragment.")
    path, _, query = target.partition(b"?")
    has_body = lines.is_chunked or bool(lines.length)
    is_websocket = lines.wants_websocket and not is_old
    if is_websocket and (method != b"GET" or has_body):
        raise Http1Error(400, "A WebSocket is opened by GET without a body.")
    head = HttpHead(
        method=method.decode(),
        path=without_root(origin.root_path, path.decode()),
        query=query,
        fields=fields,
        scheme=_SCHEMES[is_websocket, origin.is_tls],
        http_version="1.0" if is_old else "1.1",
        peer=origin.peer,
        content_length=lines.length,
        has_body=has_body,
        certificate=origin.certificate,
    )
    keeps_alive = b"close" not in lines.options and (not is_old or b"keep-alive" in lines.options)
    return ReceivedHead(head=head, lines=lines, keeps_alive=keeps_alive)


def read_lines(block: bytes, limits: Http1Limits) -> FieldLines:
    """The lines of fields, each with its CR LF. Raises Http1Error."""
    fields = read_fields(block, limits)
    grouped: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        if name in _READ_HERE:
            grouped.setdefault(name, []).append(value)
    hosts = grouped.get(b"host", [])
    if len(hosts) > 1 or not all(map(is_host, hosts)):
        raise Http1Error(400, "A request has one valid host field.")
    is_chunked, length = _body_framing(grouped)
    expected = _tokens(grouped, b"expect")
    if expected and expected != [b"100-continue"]:
        raise Http1Error(417, "Nothing else than 100-continue can be expected.")
    options = frozenset(_tokens(grouped, b"connection"))
    hidden = _OF_CONNECTION if not options else _OF_CONNECTION | (options - _FOR_EVERYONE)
    return FieldLines(
        fields=[field for field in fields if field[0] not in hidden],
        host=hosts[0] if hosts else None,
        length=length,
        is_chunked=is_chunked,
        options=options,
        expects_continue=bool(expected),
        takes_trailers=b"te" in grouped and b"trailers" in _tokens(grouped, b"te"),
        # Other upgrades are not taken, which HTTP allows without a word.
        wants_websocket=b"upgrade" in options and b"websocket" in _tokens(grouped, b"upgrade"),
    )


def read_fields(block: bytes, limits: Http1Limits) -> Fields:
    """Lines of fields, each with its CR LF; names in lower case. Raises Http1Error."""
    # One match ends at each line feed and begins at the start of a line, so no byte is skipped where the counts agree.
    found: list[tuple[bytes, bytes]] = _FIELDS(block)
    if len(found) > limits.fields_max:
        raise Http1Error(431, f"More than {limits.fields_max} header fields.")
    if len(found) != block.count(b"\n"):
        raise Http1Error(400, "A line of the header fields is malformed.")
    return [(name.lower(), value.strip(b" \t")) for name, value in found]


def check_lengths(line_bytes: int, all_bytes: int, limits: Http1Limits) -> None:
    """Check the lengths of the request line and of the whole head. Raises Http1Error."""
    # The line has a method and a version besides the target.
    if line_bytes > limits.target_max_bytes + _METHOD_MAX_CHARS + 16:
        raise Http1Error(414, f"The target has more than {limits.target_max_bytes} bytes.")
    if all_bytes - line_bytes > limits.fields_max_bytes:
        raise Http1Error(431, f"The header fields have more than {limits.fields_max_bytes} bytes.")


def _body_framing(grouped: dict[bytes, list[bytes]]) -> tuple[bool, int | None]:
    """Whether the body comes in chunks, and its length if that is known (RFC 9112 §6.3)."""
    lengths = grouped.get(b"content-length", [])
    if b"transfer-encoding" in grouped:
        if lengths:
            raise Http1Error(400, "transfer-encoding together with content-length.")
        codings = _tokens(grouped, b"transfer-encoding")
        if codings[-1:] != [b"chunked"] or codings.count(b"chunked") != 1:
            raise Http1Error(400, "The last transfer-encoding has to be chunked, and no other one.")
        if len(codings) > 1:
            raise Http1Error(501, "No other transfer-encoding than chunked is served.")
        return True, None
    if not lengths:
        return False, None
    if len(lengths) > 1 or not _LENGTH(lengths[0]):
        raise Http1Error(400, "content-length has to be one number.")
    return False, int(lengths[0])


def _other_target(method: bytes, target: bytes, host: bytes) -> tuple[bytes, bytes]:
    """A target that is not a path, as a path, and the host of the request (RFC 9112 §3.2)."""
    if target == b"*" and method == b"OPTIONS":
        return target, host
    absolute = _ABSOLUTE(target)
    if absolute is None or not is_host(absolute[1]):
        raise Http1Error(400, "The target has to be a path or an http URL.")
    path: bytes = absolute[2]
    return path if path[:1] == b"/" else b"/" + path, absolute[1]


def _tokens(grouped: dict[bytes, list[bytes]], name: bytes) -> list[bytes]:
    """The elements of a list in all fields of a name, in lower case."""
    values = grouped.get(name)
    if values is None:
        return []
    return [token for each in b",".join(values).split(b",") if (token := each.strip(b" \t").lower())]
