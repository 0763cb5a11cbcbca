"""gateway.access.jwt_tokens: which tokens are accepted, with keys and clock of the test."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from gateway.access import jwt_tokens
from gateway.access.jwt_tokens import JwtTokens, identity_of
from mesh.authentication import ClientRequest, Refused
from mesh.options.security.authentication_options import JwtOptions
from mesh.wire.identity import Identity

SIGNING = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
FAR = 4_000_000_000
"""PyJWT reads the real clock: this token does not expire while the test runs."""
CLAIMS = {"sub": "alice", "iss": "https://login", "aud": "shop", "exp": FAR}


def jwks(*keys: tuple[str, ec.EllipticCurvePrivateKey]) -> str:
    return json.dumps({"keys": [{**json.loads(ECAlgorithm.to_jwk(key.public_key())), "kid": kid} for kid, key in keys]})


class Door:
    """A check of one file, whose clock the test sets."""

    def __init__(self, directory: Path, keys: str, **options: Any) -> None:
        self.path = directory / "jwks.json"
        self.path.write_text(keys)
        given = {"algorithms": ["ES256"], "issuer": "https://login", "audience": "shop", **options}
        self.now_s = 0.0
        self.tokens = JwtTokens(JwtOptions(keys_file=str(self.path), **given).to_message(), lambda: self.now_s)
        self.tokens.reload()

    def ask(self, token: str) -> Identity | Refused | None:
        return self.tokens.check(ClientRequest(path="/a", metadata={"authorization": f"Bearer {token}"}))


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path, jwks(("k1", SIGNING)))


def signed(key: Any = SIGNING, algorithm: str = "ES256", kid: str | None = "k1", **claims: Any) -> str:
    given = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    return jwt.encode(given, key, algorithm, headers={"kid": kid} if kid else None)


def test_a_good_token_names_its_client(door: Door) -> None:
    assert door.ask(signed(scope="read write", groups=["a", "b"], age=3)) == Identity(
        "alice", {"iss": "https://login", "aud": "shop", "scope": "read write", "groups": "a b", "age": "3"}
    )
    # A set of one key serves tokens that name none.
    assert isinstance(door.ask(signed(kid=None)), Identity)


@pytest.mark.parametrize(
    ("claims", "details"),
    [
        ({"exp": 1}, "The token has expired."),
        ({"exp": None}, "The token is not valid."),
        ({"exp": float("inf")}, "The token is not valid."),
        ({"exp": 10**400}, "The token is not valid."),
        ({"nbf": FAR}, "The token is not valid yet."),
        ({"aud": "another"}, "The token is for another audience."),
        ({"aud": None}, "The token is not valid."),
        ({"iss": "https://elsewhere"}, "The token is of another issuer."),
        ({"sub": None}, "The token has no claim 'sub'."),
        ({"sub": ""}, "The token has no claim 'sub'."),
    ],
)
def test_wrong_claims_are_refused(door: Door, claims: dict[str, Any], details: str) -> None:
    assert door.ask(signed(**claims)) == Refused(details)


def test_a_token_for_an_audience_needs_the_option(tmp_path: Path) -> None:
    door = Door(tmp_path, jwks(("k1", SIGNING)), audience=())
    assert door.ask(signed()) == Refused("The token is for another audience.")
    assert isinstance(door.ask(signed(aud=None)), Identity)


def test_forged_tokens_are_refused(door: Door) -> None:
    """Of another key, unsigned, or signed with the public key as a secret."""
    public = SIGNING.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    head, body, _ = signed().split(".")
    deep = base64.urlsafe_b64encode(b"[" * 11_000).decode()
    confused = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "k1"}).encode()).decode()
    for forged in (
        signed(OTHER),
        signed(kid="k2"),
        jwt.encode(CLAIMS, None, "none", headers={"kid": "k1"}),
        f"{head}.{body}.",
        f"{head}.{body}.AAAA",
        f"{confused.rstrip('=')}.{body}.{base64.urlsafe_b64encode(public[:32]).decode().rstrip('=')}",
        f"{deep}.{body}.AAAA",
        "a.b.c",
        "..",
    ):
        assert door.ask(forged) == Refused("The token is not valid."), forged


def test_other_algorithms_than_those_of_the_options_are_refused(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    public = {**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "kid": "k1"}
    door = Door(tmp_path, json.dumps({"keys": [public]}), algorithms=["RS256"])
    assert isinstance(door.ask(signed(key, "RS256")), Identity)
    assert door.ask(signed(key, "PS256")) == Refused("The token is not valid.")


def test_what_is_no_jwt_is_left_to_other_checks(door: Door) -> None:
    for token in ("", "an-api-key", "a.b", "a.b.c.d", "a." + "b" * 20_000 + ".c"):
        assert door.ask(token) is None


def test_keys_that_are_replaced_end_the_tokens_of_the_old_ones(door: Door) -> None:
    """Also of those that are remembered."""
    old, new = signed(), signed(OTHER, kid="k2")
    assert isinstance(door.ask(old), Identity)
    assert isinstance(door.ask(new), Refused)
    door.path.write_text(jwks(("k2", OTHER)))
    door.tokens.reload()
    assert isinstance(door.ask(old), Refused)
    assert isinstance(door.ask(new), Identity)


def test_good_tokens_are_remembered_until_they_expire_and_bad_ones_are_not(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwt_tokens, "REMEMBERED_MAX", 3)
    verified: list[str] = []
    verify = door.tokens._verified
    monkeypatch.setattr(door.tokens, "_verified", lambda token: verified.append(token) or verify(token))
    good = signed()
    for _ in range(3):
        assert isinstance(door.ask(good), Identity)
    assert len(verified) == 1
    door.now_s = FAR + 31.0
    door.ask(good)
    assert len(verified) == 2
    for number in range(10):
        door.ask(signed(jti=str(number)))
        door.ask(signed(OTHER, jti=str(number)))
    assert len(door.tokens._remembered) == 3


def test_a_file_without_keys_is_refused(door: Door) -> None:
    for text in ("", "[]", "{}", '{"keys": []}', '{"keys": [{"kty": "nonsense"}]}'):
        door.path.write_text(text)
        with pytest.raises(ValueError, match=r"\['keys_file'\]: .* is not a JSON Web Key Set"):
            door.tokens.reload()
    assert isinstance(door.ask(signed()), Identity)


def test_whole_numbers_are_text_too() -> None:
    """Left out, a tenant that is one would be the client's to choose."""
    claims = {"sub": "a", "tenant": 42, "is_admin": True, "share": 0.5}
    assert identity_of(claims, "sub") == Identity("a", {"tenant": "42"})


@pytest.mark.parametrize("tenant", [True, 0.5, {"id": 1}, [1]])
def test_a_token_of_a_tenant_that_cannot_be_text_is_refused(tenant: object) -> None:
    assert isinstance(identity_of({"sub": "a", "tenant": tenant}, "sub"), Refused)
    assert identity_of({"sub": "a", "tenant": None}, "sub") == Identity("a")


def test_claims_that_are_no_text_are_left_out() -> None:
    claims = {"sub": "a", "n": 1.5, "list": ["x", 1], "nested": {"a": "b"}, "jti": "1", "role": "admin"}
    assert identity_of(claims, "sub") == Identity("a", {"role": "admin"})
    assert identity_of({"email": "a@b.example"}, "email") == Identity("a@b.example")
