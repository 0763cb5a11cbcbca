"""CORS: which pages of other origins may call this gateway from a browser, and what they send unasked. Pure.

The operator names the origins. A preflight is answered here; to the answer of each other request from such an origin
the fields are added that let its page read it. The page may read all header fields of an answer, whatever names user
code gives them: what the gateway would hide from a page, it should not send to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gateway.requests.exchange import Fields, HttpHead

ANY = "*"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")

_VARY_OF_PREFLIGHT = b"origin, access-control-request-method, access-control-request-headers"
_ALWAYS_READABLE = frozenset(
    {b"cache-control", b"content-language", b"content-length", b"content-type", b"expires", b"last-modified", b"pragma"}
)
"""By any page that may read the answer (CORS-safelisted response headers of the Fetch standard)."""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_UNASKED_TYPES = frozenset({"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"})
"""Bodies that a browser sends for every page without a preflight. "" is a body whose type the page leaves out."""
_OWN_SITES = (b"same-origin", b"none")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_TOKENS = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z, ]*").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsPolicy:
    """What pages of other origins may do."""

    origins: Sequence[str]
    """Such as "https://app.example.com", "https://*.example.com", or "*" for all."""
    methods: Sequence[str] = METHODS
    headers: Sequence[str] = (ANY,)
    """Request headers beyond those that need no permission; "*": any."""
    has_credentials: bool = False
    """Whether requests may carry cookies and certificates."""
    max_age_s: int = 7200
    """How long a browser may remember the answer to a preflight."""

    def allows(self, origin: bytes) -> bool:
        """Whether pages of this origin may call."""
        return any(_fits(pattern, origin.decode("latin-1")) for pattern in self.origins)

    def answer_preflight(self, head: HttpHead) -> Fields:
        """The fields of the answer to a preflight. A browser takes an answer that allows nothing for a refusal."""
        fields: Fields = [(b"vary", _VARY_OF_PREFLIGHT)]
        origin = head.by_name[b"origin"]
        if not self.allows(origin):
            return fields
        fields += self._origin_fields(origin)
        fields.append((b"access-control-allow-methods", ", ".join(self.methods).encode()))
        asked = head.by_name.get(b"access-control-request-headers", b"")
        allowed = asked if ANY in self.headers else ", ".join(self.headers).encode()
        if allowed and _TOKENS(allowed):
            fields.append((b"access-control-allow-headers", allowed))
        fields.append((b"access-control-max-age", b"%d" % self.max_age_s))
        return fields

    def response_fields(self, origin: bytes, fields: Fields) -> Fields:
        """What to add to the `fields` of an answer to a page of this origin; nothing if user code has decided."""
        names = {name for name, _ in fields}
        if b"access-control-allow-origin" in names:
            return []
        vary: Fields = [] if self._is_same_for_all else [(b"vary", b"origin")]
        if not self.allows(origin):
            return vary
        added = [*vary, *self._origin_fields(origin)]
        readable = sorted(names - _ALWAYS_READABLE - {b"vary", b"set-cookie"})
        if readable:
            added.append((b"access-control-expose-headers", b", ".join(readable)))
        return added

    @property
    def _is_same_for_all(self) -> bool:
        return ANY in self.origins and not self.has_credentials

    def _origin_fields(self, origin: bytes) -> Fields:
        fields = [(b"access-control-allow-origin", b"*" if self._is_same_for_all else origin)]
        if self.has_credentials:
            fields.append((b"access-control-allow-credentials", b"true"))
        return fields


def is_preflight(head: HttpHead) -> bool:
    """Whether a browser asks what a page of another origin may do."""
    return head.method == "OPTIONS" and b"access-control-request-method" in head.by_name and b"origin" in head.by_name


def asked_for(preflight: HttpHead) -> HttpHead:
    """The request that a preflight asks for, as far as it says."""
    method = preflight.by_name[b"access-control-request-method"].decode("latin-1")
    return replace(preflight, method=method)


def is_unasked(head: HttpHead) -> bool:
    """Whether a browser sends it for a page of another origin without a preflight, and it may change something.

    That is a WebSocket handshake, or a request with a body as forms have. `Sec-Fetch-Site` decides; on connections
    where browsers leave it out, the origin is compared with the host, which a proxy in front may have replaced.
    """
    if not head.is_websocket and (head.method in _SAFE_METHODS or head.content_type not in _UNASKED_TYPES):
        return False
    site = head.by_name.get(b"sec-fetch-site")
    if site is not None:
        return site not in _OWN_SITES
    origin = head.by_name.get(b"origin")
    return origin is not None and not _is_at(origin.decode("latin-1"), head.by_name.get(b"host", b"").decode("latin-1"))


def _is_at(origin: str, host: str) -> bool:
    """Whether an origin is that of a host, which has no port where that is the usual one."""
    scheme, _, authority = origin.lower().partition("://")
    usual = _DEFAULT_PORTS.get(scheme, "")
    return bool(authority) and authority.removesuffix(usual) == host.lower().removesuffix(usual)


def _fits(pattern: str, origin: str) -> bool:
    before, star, after = pattern.partition(ANY)
    if not star:
        return origin == pattern
    if pattern == ANY:
        return True
    # A star stands for names in front of a domain, so "https://*.example.com" does not fit "https://example.com".
    between = origin[len(before) : len(origin) - len(after)]
    return (
        len(origin) > len(before) + len(after)
        and origin.startswith(before)
        and origin.endswith(after)
        and re.fullmatch(r"[A-Za-z0-9.-]+", between) is not None
    )
