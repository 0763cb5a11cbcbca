"""The lines of a file of API keys: names of clients, hashes of their keys, attributes.

One line per key: a name, `sha256:` and 64 hexadecimal digits, then attributes; `#` begins a comment.

    alice   sha256:5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8   role=admin
"""

from __future__ import annotations

import hashlib

from mesh.wire.identity import Identity

HASH_PREFIX = "sha256:"


def read_keys(text: str, path: str) -> list[tuple[bytes, Identity]]:
    """Digests and identities. Raises ValueError naming the line, and never what stands in it."""
    found: dict[bytes, Identity] = {}
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.partition("#")[0].split()
        if not parts:
            continue
        name, *rest = parts
        digest = _read_digest(rest[0]) if rest else None
        attributes = [each.partition("=") for each in rest[1:]]
        if digest is None or not all(key and equals for key, equals, _ in attributes):
            raise ValueError(
                f"{path}, line {number}: a line is NAME {HASH_PREFIX}HASH [KEY=VALUE ...]; `mesh token NAME` makes one."
            )
        if digest in found:
            raise ValueError(f"{path}, line {number}: the key is there twice; each client needs one of its own.")
        found[digest] = Identity(name, {key: value for key, _, value in attributes})
    return list(found.items())


def key_line(name: str, key: str, attributes: dict[str, str]) -> str:
    """The line of a key in the file."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return " ".join([name, HASH_PREFIX + digest, *(f"{key}={value}" for key, value in attributes.items())])


def _read_digest(text: str) -> bytes | None:
    digits = text.removeprefix(HASH_PREFIX)
    if digits == text or len(digits) != 64:
        return None
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return None
