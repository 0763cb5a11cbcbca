"""`ApiKeys`: bearer tokens and API keys from a file that holds only their hashes.

Keys are random, so a fast hash is enough. How long a look-up takes says nothing about keys: what is looked up is a
digest under a secret of this process, and the digest that is found is compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path

from mesh.authentication import ClientRequest
from mesh.wire.api_key_lines import read_keys
from mesh.wire.identity import Identity

_BEARER = "bearer "
_FILE_MAX_BYTES = 16 * 1024 * 1024
_KEY_MAX_CHARS = 4096


class ApiKeys:
    """Accepts `authorization: Bearer KEY` and `x-api-key: KEY`."""

    name = "file of API keys"

    def __init__(self, path: str) -> None:
        """Nothing is read before `reload`."""
        self.paths = (path,)
        self._blinding = secrets.token_bytes(32)
        self._identities: dict[bytes, tuple[bytes, Identity]] = {}
        """By blinded digest: the digest and whose it is."""

    def __repr__(self) -> str:
        return f"<ApiKeys {self.paths[0]}, {len(self._identities)} keys>"

    def reload(self) -> None:
        """Use what the file holds now. Raises ValueError or OSError naming the file, and is then as before."""
        path = Path(self.paths[0])
        try:
            with path.open("rb") as file:
                text = file.read(_FILE_MAX_BYTES + 1)
        except OSError as error:
            why = error.strerror or str(error)
            raise OSError(
                f"grpc_options['authentication']['keys_file']: cannot read {path}: {why}. It has to be on every node."
            ) from error
        if len(text) > _FILE_MAX_BYTES:
            raise ValueError(f"{path} is larger than {_FILE_MAX_BYTES} bytes.")
        identities: dict[bytes, tuple[bytes, Identity]] = {}
        for digest, identity in read_keys(text.decode("utf-8", "replace"), str(path)):
            identities[self._blind(digest)] = digest, identity
        self._identities = identities

    def check(self, request: ClientRequest) -> Identity | None:
        """The client whose key the request carries; None if it carries none, or an unknown one."""
        key = presented_key(request)
        if not key or len(key) > _KEY_MAX_CHARS:
            return None
        digest = hashlib.sha256(key.encode("utf-8", "replace")).digest()
        known, identity = self._identities.get(self._blind(digest), (b"", None))
        return identity if hmac.compare_digest(known, digest) else None

    def _blind(self, digest: bytes) -> bytes:
        return hmac.digest(self._blinding, digest, "sha256")


def presented_key(request: ClientRequest) -> str:
    """What a request carries as bearer token or API key; empty for none."""
    authorization = request.metadata.get("authorization", "")
    if isinstance(authorization, str) and authorization[: len(_BEARER)].lower() == _BEARER:
        return authorization[len(_BEARER) :].strip()
    key = request.metadata.get("x-api-key", "")
    return key if isinstance(key, str) else ""
