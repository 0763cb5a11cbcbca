"""Whether a Ray cluster can be reached at an address, found out in a few seconds. Ray itself tries for a minute."""

from __future__ import annotations

import socket
from typing import Any

import grpc
from ray._private.authentication.authentication_utils import is_token_auth_enabled

_LISTENER_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 2.0
_CLIENT_SCHEME = "ray://"
_GCS_PROBE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_CLIENT_PROBE = "/ray.rpc.RayletDriver/ClusterInfo"


def require_reachable(address: str) -> None:
    """Raises ConnectionError where no server listens, and where one asks for a token that Ray would not send.

    What is no address, such as Ray's word "auto", is left to Ray.
    """
    server = address.removeprefix(_CLIENT_SCHEME).partition("/")[0]
    host, _, port = server.rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), _LISTENER_TIMEOUT_S).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConnectionError(f"No Ray cluster answers at {address}: {reason}. Is the address right?") from error
    probe = _CLIENT_PROBE if address.startswith(_CLIENT_SCHEME) else _GCS_PROBE
    if not is_token_auth_enabled() and _asks_for_token(server, probe):
        raise ConnectionError(
            f"The Ray cluster at {address} asks for a token, which Ray sends to an address only with "
            "RAY_AUTH_MODE=token in the environment: set it. The token is in ~/.ray/auth_token of the user who has "
            "started that cluster."
        )


def _asks_for_token(server: str, probe: str) -> bool:
    """False where the answer does not say so, for instance because the cluster uses TLS."""
    with grpc.insecure_channel(server) as channel:
        try:
            call: Any = channel.unary_unary(probe)
            call(b"", timeout=_ANSWER_TIMEOUT_S)
        except grpc.RpcError as error:
            return bool(error.code() is grpc.StatusCode.UNAUTHENTICATED)
    return False
