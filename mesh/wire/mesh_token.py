"""The mesh token: the shared secret without which no in-cluster port reads a payload.

It is read from the cluster's KV, which blocks, when a process joins the mesh, and again when the mesh was started
again. Until the new one is here the old one is used, so that ports never read it themselves.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Any

import grpc
import grpc.aio

from mesh.cluster import ray_core
from mesh.cluster.keys import TOKEN_KEY

TOKEN_METADATA = "mesh-token-bin"
_TOKEN_BYTES = 32

_token: bytes | None = None


def create_token() -> None:
    """Create the cluster's token unless there is one."""
    ray_core.kv_put(TOKEN_KEY, secrets.token_bytes(_TOKEN_BYTES), overwrite=False)
    renew_token()


def mesh_token() -> bytes:
    """The token of this cluster's mesh. Blocks the first time. Raises LookupError where no mesh was started."""
    return _token or renew_token()


def mesh_id(token: bytes) -> bytes:
    """Names the mesh of that token and tells nothing about the token; empty for an empty one."""
    return hmac.digest(token, b"mesh id", "sha256")[:16] if token else b""


def renew_token() -> bytes:
    """Replace the token by the present one of the cluster. Blocks. Raises LookupError where no mesh was started."""
    global _token
    token = ray_core.kv_get(TOKEN_KEY)
    if token is None:
        raise LookupError("There is no mesh on this Ray cluster: call mesh.start() or mesh.run() first.")
    _token = token
    return token


def forget_token() -> None:
    """This process has left the mesh: its next one may be another, on another cluster."""
    global _token
    _token = None


def token_matches(candidate: bytes) -> bool:
    """Constant-time comparison, with the token as this process has it. Does not block."""
    return _token is not None and hmac.compare_digest(candidate, _token)


def local_socket(address: str, token: bytes) -> str:
    """The name of the Unix socket beside the TCP address of a process, for others on its node.

    It is in Linux's abstract namespace, so nothing is left in the file system. Its name cannot be guessed without the
    token, so no stranger can wait there for ours.
    """
    return f"\0mesh-{hmac.digest(token, address.encode(), 'sha256').hex()[:32]}"


def token_metadata() -> tuple[tuple[str, bytes], ...]:
    return ((TOKEN_METADATA, mesh_token()),)


class TokenGuard(grpc.GenericRpcHandler):
    """Lets calls through that carry the token; others end UNAUTHENTICATED before a byte of their request is read."""

    def __init__(self, guarded: grpc.GenericRpcHandler) -> None:
        self._guarded = guarded

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        for key, value in handler_call_details.invocation_metadata or ():
            if key == TOKEN_METADATA and isinstance(value, bytes) and token_matches(value):
                return self._guarded.service(handler_call_details)
        return _REFUSAL


async def _refuse(requests: object, context: grpc.aio.ServicerContext) -> None:  # type: ignore[type-arg]
    del requests
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "This port is the mesh's own; use a gateway.")


# The widest arity: it fits every call and reads nothing by itself.
_REFUSAL: Any = grpc.stream_stream_rpc_method_handler(_refuse)
