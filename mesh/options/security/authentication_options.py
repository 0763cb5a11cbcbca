"""`Authentication` and `JwtCheck`: the options that say how gateways learn who calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mesh.options import option_checks
from mesh.options.absent_options import check_known
from mesh.v1 import control_pb2

_OPTION = "grpc_options['authentication']"

HEALTH = "/grpc.health.v1.Health/*"
HEALTHZ = "/-/healthz"

_ASYMMETRIC = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
_SYMMETRIC = frozenset({"HS256", "HS384", "HS512"})
"""The key that checks such a token can also sign one, so these are never accepted beside asymmetric ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtOptions:
    """Which JSON Web Tokens a gateway accepts in `authorization: Bearer TOKEN`."""

    keys_file: str
    """Path of a JSON Web Key Set on each node, read again when it changes."""
    algorithms: Sequence[str] = ("RS256", "ES256")
    """The only signatures that are accepted, whatever a token says of itself."""
    issuer: str | None = None
    """`iss` of the token has to be this."""
    audience: str | Sequence[str] = ()
    """`aud` of the token has to name one of these; without any, tokens for an audience are refused."""
    leeway_s: float = 30.0
    """By how much the clocks of issuer and gateway may differ."""
    name_claim: str = "sub"
    """The claim with the name of the identity."""

    def __post_init__(self) -> None:
        for name in ("keys_file", "name_claim"):
            if not option_checks.text(f"{_OPTION}['jwt'][{name!r}]", getattr(self, name)):
                raise ValueError(f"{_OPTION}['jwt'][{name!r}] must not be empty.")
        if self.issuer is not None:
            option_checks.text(f"{_OPTION}['jwt']['issuer']", self.issuer)
        audience = (self.audience,) if isinstance(self.audience, str) else self.audience
        object.__setattr__(self, "audience", _texts("['jwt']['audience']", audience))
        object.__setattr__(self, "algorithms", _texts("['jwt']['algorithms']", self.algorithms))
        option_checks.number(f"{_OPTION}['jwt']['leeway_s']", self.leeway_s)
        chosen = set(self.algorithms)
        unknown = chosen - _ASYMMETRIC - _SYMMETRIC
        if unknown or not chosen:
            known = ", ".join(sorted(_ASYMMETRIC | _SYMMETRIC))
            raise ValueError(f"{_OPTION}['jwt']['algorithms'] must be some of {known}; got {sorted(chosen)}.")
        if chosen & _SYMMETRIC and chosen & _ASYMMETRIC:
            raise ValueError(
                f"{_OPTION}['jwt']['algorithms'] mixes HS* with others: a public key must never be taken for a secret. "
                "Choose one kind."
            )

    def to_message(self) -> control_pb2.JwtOptions:
        return control_pb2.JwtOptions(
            keys_file=self.keys_file,
            algorithms=self.algorithms,
            issuer=self.issuer or "",
            audience=self.audience,
            leeway_s=self.leeway_s,
            name_claim=self.name_claim,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Authentication:
    """How gateways learn who calls. A request whose client they do not learn ends UNAUTHENTICATED."""

    keys_file: str | None = None
    """Path, on each node, of a file with the hashes of bearer tokens and API keys; `mesh token` writes its lines."""
    jwt: JwtOptions | Mapping[str, Any] | None = None
    """JSON Web Tokens that are accepted."""
    certificates: bool = False
    """The verified certificate of a client is its identity; needs `ssl_ca_certs`."""
    function: str | None = None
    """Import path "package.module:function" of an async function of yours; see mesh.authentication."""
    timeout_s: float = 5.0
    """How long the function may take."""
    concurrent_max: int = 1000
    """Calls of the function at a time; the others end UNAVAILABLE."""
    open_paths: Sequence[str] = (HEALTH, HEALTHZ)
    """Methods and HTTP paths that need no identity; with a "*" at the end all that begin so."""

    def __post_init__(self) -> None:
        for name in ("keys_file", "function"):
            if getattr(self, name) is not None:
                option_checks.text(f"{_OPTION}[{name!r}]", getattr(self, name))
        if self.function is not None:
            parts = self.function.split(":")
            if len(parts) != 2 or not all(part.isidentifier() for half in parts for part in half.split(".")):
                raise ValueError(
                    f'{_OPTION}["function"] must be an import path like "package.module:function", '
                    f"got {self.function!r}."
                )
        if isinstance(self.jwt, Mapping):
            check_known(f"{_OPTION}['jwt']", self.jwt, (field.name for field in fields(JwtOptions)))
            if "keys_file" not in self.jwt:
                raise ValueError(f"{_OPTION}['jwt'] needs keys_file, the path of a JSON Web Key Set.")
            object.__setattr__(self, "jwt", JwtOptions(**self.jwt))
        elif self.jwt is not None and not isinstance(self.jwt, JwtOptions):
            raise TypeError(f"{_OPTION}['jwt'] must be a dict, got {type(self.jwt).__name__}.")
        if not (self.keys_file or self.jwt or self.certificates or self.function):
            raise ValueError(f"{_OPTION} needs at least one of keys_file, jwt, certificates and function.")
        option_checks.number(f"{_OPTION}['timeout_s']", self.timeout_s, may_equal=False)
        option_checks.whole_number(f"{_OPTION}['concurrent_max']", self.concurrent_max, 1)
        object.__setattr__(self, "open_paths", _texts("['open_paths']", self.open_paths))
        for path in self.open_paths:
            if not path.startswith("/"):
                raise ValueError(f"{_OPTION}['open_paths'] must be paths that begin with '/', got {path!r}.")

    def to_message(self) -> control_pb2.AuthenticationOptions:
        return control_pb2.AuthenticationOptions(
            keys_file=self.keys_file or "",
            jwt=self.jwt.to_message() if isinstance(self.jwt, JwtOptions) else None,
            accepts_certificates=self.certificates,
            function=self.function or "",
            timeout_s=self.timeout_s,
            concurrent_max=self.concurrent_max,
            open_paths=self.open_paths,
        )


def parse(given: object) -> Authentication | None:
    """From any of its forms; a string is the function's. Raises TypeError or ValueError naming the option."""
    if given is None or isinstance(given, Authentication):
        return given
    if isinstance(given, str):
        return Authentication(function=given)
    if not isinstance(given, Mapping):
        raise TypeError(f"{_OPTION} must be an import path or a dict, got {type(given).__name__}.")
    check_known(_OPTION, given, (field.name for field in fields(Authentication)))
    return Authentication(**given)


def _texts(name: str, values: object) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"{_OPTION}{name} must be a list of strings, got {values!r}.")
    return tuple(option_checks.text(f"{_OPTION}{name}", each) for each in values)
