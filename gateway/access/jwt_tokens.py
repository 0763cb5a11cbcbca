"""`JwtTokens`: JSON Web Tokens, checked by PyJWT against a key set in a file.

The options pin the algorithms, so a token cannot choose how it is checked. A token that was good is remembered by its
hash until it expires or the keys change, in a table of limited size; bad ones are not.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from gateway.access.api_keys import presented_key
from mesh.authentication import ClientRequest, Refused
from mesh.v1 import control_pb2
from mesh.wire.identity import Identity

REMEMBERED_MAX = 10_000
_FILE_MAX_BYTES = 1024 * 1024
_TOKEN_MAX_CHARS = 16 * 1024
_NO_ATTRIBUTES = frozenset({"exp", "iat", "jti", "nbf"})

_INVALID = Refused("The token is not valid.")
_REFUSALS = {
    "ExpiredSignatureError": Refused("The token has expired."),
    "ImmatureSignatureError": Refused("The token is not valid yet."),
    "InvalidAudienceError": Refused("The token is for another audience."),
    "InvalidIssuerError": Refused("The token is of another issuer."),
}
"""By the exception of PyJWT. Nothing is said of signatures and keys."""


class JwtTokens:
    """Accepts `authorization: Bearer TOKEN`."""

    name = "file of JWT keys"

    def __init__(self, options: control_pb2.JwtOptions, clock: Callable[[], float] = time.time) -> None:
        """Nothing is read before `reload`. `clock` returns Unix time. Raises ImportError without PyJWT."""
        self.paths = (options.keys_file,)
        self._jwt = _pyjwt()
        self._options = options
        self._clock = clock
        self._keys: Mapping[str | None, Any] = {}
        self._remembered: dict[bytes, tuple[float, Identity]] = {}
        """By hash of the token: until when it is good, and whose it is."""

    def __repr__(self) -> str:
        return f"<JwtTokens {self.paths[0]}, {len(self._keys)} keys>"

    def reload(self) -> None:
        """Use the keys that the file holds now. Raises ValueError or OSError naming it, and is then as before."""
        keys = _read_keys(self._jwt, self.paths[0])
        # Not cleared but replaced: a check on another thread may be using it.
        self._keys, self._remembered = keys, {}

    def check(self, request: ClientRequest) -> Identity | Refused | None:
        """The client that the token names; None if the request carries nothing that looks like a JWT."""
        token = presented_key(request)
        if token.count(".") != 2 or len(token) > _TOKEN_MAX_CHARS:
            return None
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        remembered = self._remembered
        good_until_s, identity = remembered.get(digest, (0.0, None))
        if identity is not None and self._clock() < good_until_s:
            return identity
        claims = self._verified(token)
        if isinstance(claims, Refused):
            return claims
        answer = identity_of(claims, self._options.name_claim)
        if isinstance(answer, Identity):
            if len(remembered) >= REMEMBERED_MAX:
                del remembered[next(iter(remembered))]
            remembered[digest] = claims["exp"] + self._options.leeway_s, answer
        return answer

    def _verified(self, token: str) -> dict[str, Any] | Refused:
        options, jwt = self._options, self._jwt
        try:
            key = self._keys.get(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                return _INVALID
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=list(options.algorithms),
                audience=list(options.audience) or None,
                issuer=options.issuer or None,
                leeway=options.leeway_s,
                options={"require": ["exp"]},
            )
            claims["exp"] = float(claims["exp"])
        except (jwt.PyJWTError, OverflowError, RecursionError, TypeError, ValueError) as error:
            return _REFUSALS.get(type(error).__name__, _INVALID)
        return claims


def identity_of(claims: Mapping[str, Any], name_claim: str) -> Identity | Refused:
    """The identity that verified claims name: texts, whole numbers, lists of texts joined by spaces, as in `scope`."""
    name = claims.get(name_claim)
    if not isinstance(name, str) or not name:
        return Refused(f"The token has no claim {name_claim!r}.")
    attributes: dict[str, str] = {}
    for claim, value in claims.items():
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            value = " ".join(value)
        elif type(value) is int:
            value = str(value)
        if isinstance(value, str) and claim != name_claim and claim not in _NO_ATTRIBUTES:
            attributes[claim] = value
    if claims.get("tenant") is not None and "tenant" not in attributes:
        # Without the attribute the client could name any tenant.
        return Refused("The claim 'tenant' of the token is neither text nor a whole number.")
    return Identity(name, attributes)


def _read_keys(jwt: ModuleType, path: str) -> dict[str | None, Any]:
    """Keys by id. A set of one key also gives it to tokens that name none."""
    where = "grpc_options['authentication']['jwt']['keys_file']"
    try:
        with Path(path).open("rb") as file:
            text = file.read(_FILE_MAX_BYTES + 1)
    except OSError as error:
        why = error.strerror or str(error)
        raise OSError(f"{where}: cannot read {path}: {why}. It has to be on every node.") from error
    try:
        keys = jwt.PyJWKSet.from_dict(json.loads(text)).keys
    except (jwt.PyJWTError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: {path} is not a JSON Web Key Set with a key that can be used.") from error
    found: dict[str | None, Any] = {key.key_id: key for key in keys}
    if len(keys) == 1:
        found[None] = keys[0]
    return found


def _pyjwt() -> ModuleType:
    try:
        import jwt
        import jwt.algorithms
    except ImportError as error:
        raise ImportError("Checking JWTs needs PyJWT on every node: pip install 'raymesh[jwt]'.") from error
    if not jwt.algorithms.has_crypto:
        raise ImportError("Checking JWTs needs cryptography on every node: pip install 'raymesh[jwt]'.")
    module: ModuleType = jwt
    return module
