"""Whom a request comes from when proxies have passed it on: the X-Forwarded fields of those that are trusted. Pure."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from gateway.requests.exchange import HttpHead
from gateway.requests.web_encoding import address_of

_EVERY = "*"
_SECURE = {"http": "https", "ws": "wss"}


class TrustedProxies:
    """Proxies whose word is taken for the address and the scheme of their client."""

    def __init__(self, text: str) -> None:
        """`text`: addresses and networks with commas between them; "*" for every one. Raises ValueError."""
        names = [name.strip() for name in text.split(",") if name.strip()]
        self._trusts_all = _EVERY in names
        self._networks = [ip_network(name, strict=False) for name in names if name != _EVERY]

    def original(self, head: HttpHead) -> HttpHead:
        """The request as it was before the first trusted proxy passed it on. Unchanged if its sender is not trusted."""
        if not self._trusts(address_of(head.peer)[0]):
            return head
        scheme = head.by_name.get(b"x-forwarded-proto", b"").rpartition(b",")[2].strip().lower()
        return replace(
            head,
            peer=self._client(head) or head.peer,
            scheme=_SECURE.get(head.scheme, head.scheme) if scheme in (b"https", b"wss") else head.scheme,
        )

    def _client(self, head: HttpHead) -> str:
        """The last address that no trusted proxy has; if all are trusted, the first. Empty if there is none."""
        text = b",".join(value for name, value in head.fields if name == b"x-forwarded-for").decode("latin-1")
        found = ""
        for name in reversed([each.strip().strip("[]") for each in text.split(",")]):
            try:
                version = ip_address(name).version
            except ValueError:
                break  # not an address: what stands before it is no better
            found = f"ipv4:{name}:0" if version == 4 else f"ipv6:[{name}]:0"
            if not self._trusts(name):
                break
        return found

    def _trusts(self, host: str) -> bool:
        if self._trusts_all or not host:
            return self._trusts_all
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)
