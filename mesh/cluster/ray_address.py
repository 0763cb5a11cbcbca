"""Whether a Ray cluster can be reached at an address, found out in a few seconds. Ray itself tries for a minute."""

from __future__ import annotations

import socket
from typing import Any

import grpc
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._private.services import get_ray_address_from_environment

from mesh.settings import ray_auth_mode

LOCAL = "local"
"""In the place of an address, for Ray: start a cluster on this machine."""

_AUTO = "auto"
_LISTENER_TIMEOUT_S = 5.0
"""How long the TCP connection to a Ray cluster may take."""
_ANSWER_TIMEOUT_S = 2.0
"""How long its answer to a gRPC call may take."""
_SCHEME = "://"
_CLIENT_SCHEME = f"ray{_SCHEME}"
_GCS_PROBES = ("/ray.rpc.NodeInfoGcsService/CheckAlive", "/ray.rpc.NodeInfoGcsService/GetClusterId")
"""A head that has neither would be one that Ray cannot attach to."""
_CLIENT_PROBE = "/ray.rpc.RayletDriver/ClusterInfo"


def require_reachable(address: str) -> None:
    """Raises ConnectionError where no cluster listens, and where one asks for a token that Ray would not send.

    What Ray reads otherwise, its word "auto" and addresses with another scheme, is left to Ray.
    """
    server = address.removeprefix(_CLIENT_SCHEME).partition("/")[0]
    host, _, port = server.rpartition(":")
    if not (host and port.isdecimal()):
        if address != _AUTO and _SCHEME not in address:
            raise ConnectionError(
                f"{address!r} is not an address of a Ray cluster: write HOST:PORT, such as {server or 'HOST'}:6379."
            )
        return
    try:
        socket.create_connection((host, int(port)), _LISTENER_TIMEOUT_S).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConnectionError(f"No Ray cluster answers at {address}: {reason}. Is the address right?") from error
    is_client = address.startswith(_CLIENT_SCHEME)
    status = _probe(server, _CLIENT_PROBE if is_client else _GCS_PROBES[0])
    if status is grpc.StatusCode.UNIMPLEMENTED and not is_client and _probe(server, _GCS_PROBES[1]) is status:
        raise ConnectionError(f"What listens at {address} is not a Ray cluster. Is the port right?")
    if status is grpc.StatusCode.UNAUTHENTICATED and not is_token_auth_enabled():
        raise ConnectionError(
            f"The Ray cluster at {address} asks for a token, which Ray sends to an address only with "
            "RAY_AUTH_MODE=token in the environment: set it. The token is in ~/.ray/auth_token of the user who has "
            "started that cluster."
        )


def is_ray_here() -> bool:
    """Whether a cluster listens at the address that Ray finds on this machine.

    A cluster that was killed, or whose machine was, leaves a file with its address: Ray would try it for a minute.

    Raises ConnectionError where the environment keeps Ray from sending the token that the cluster asks for. Unless
    RAY_AUTH_MODE says otherwise, Ray sends its token to a cluster that it finds.
    """
    try:
        address = get_ray_address_from_environment(_AUTO, None)
    except ConnectionError:  # there is none
        return False
    if not _listens(address):
        return False
    mode = ray_auth_mode()
    is_refused = mode is not None and not is_token_auth_enabled()
    if is_refused and _probe(address, _GCS_PROBES[0]) is grpc.StatusCode.UNAUTHENTICATED:
        raise ConnectionError(
            f"The Ray cluster on this machine, {address}, asks for a token, which Ray does not send with "
            f"RAY_AUTH_MODE={mode} in the environment: unset it, or set it to token."
        )
    return True


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _LISTENER_TIMEOUT_S).close()
    except (OSError, ValueError):  # also where the file has no address
        return False
    return True


def _probe(server: str, method: str) -> grpc.StatusCode:
    """The status of the answer, also of one that does not come, for instance because the cluster uses TLS."""
    with grpc.insecure_channel(server) as channel:
        try:
            call: Any = channel.unary_unary(method)
            call(b"", timeout=_ANSWER_TIMEOUT_S)
        except grpc.RpcError as error:
            status: grpc.StatusCode = error.code()
            return status
    return grpc.StatusCode.OK
