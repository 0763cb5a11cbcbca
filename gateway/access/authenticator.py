"""`Authenticator`: finds the identity of a client, by ready-made checks at once or by the user's function later.

Checks come in a fixed order, and the first that knows the request's credentials decides. Whatever fails, takes too
long or is overloaded lets no client in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from gateway.access.user_check import PendingCheck, UserCheck, refusal_of
from gateway.requests.routes import Refusal
from mesh.authentication import ClientRequest, Refused
from mesh.rpc.status_codes import UNAUTHENTICATED
from mesh.wire.identity import Identity

logger = logging.getLogger("mesh.gateway")

NO_CREDENTIALS = Refusal(
    UNAUTHENTICATED,
    "This gateway has found no credentials in the request that it accepts: send 'authorization: Bearer ...' as "
    "metadata or header, or what the operators of the service say.",
)
REPEATED_CREDENTIALS = Refusal(
    UNAUTHENTICATED,
    "The request has credentials twice: send 'authorization' and 'x-api-key' once each, at most.",
)
_CREDENTIAL_NAMES = ("authorization", "x-api-key")
_CHECK_FAILED = Refusal(UNAUTHENTICATED, "The credentials of this request could not be checked.")


class ReadyCheck(Protocol):
    """A check that answers at once, on the I/O loop."""

    def check(self, request: ClientRequest) -> Identity | Refused | None:
        """None: the request has no credentials of this kind."""


def repeats_credentials(names: Sequence[str]) -> bool:
    """Whether one of the names of all metadata entries is a credential that is there twice, even with one value.

    Which of them counts would be a guess, and a proxy in front that checks them may guess otherwise.
    """
    return any(names.count(each) > 1 for each in _CREDENTIAL_NAMES)


class OpenPaths:
    """Paths that need no identity."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """A pattern that ends in "*" stands for all paths that begin so."""
        patterns = tuple(patterns)
        self._exact = frozenset(each for each in patterns if not each.endswith("*"))
        self._prefixes = tuple(each[:-1] for each in patterns if each.endswith("*"))

    def __contains__(self, path: str) -> bool:
        if path in self._exact:
            return True
        # An application may resolve dots and escapes, so such a path is not where it seems to begin.
        return path.startswith(self._prefixes) and "/." not in path and "%" not in path and "//" not in path


class Authenticator:
    """On the I/O loop only."""

    def __init__(self, checks: Sequence[ReadyCheck], user_check: UserCheck | None, open_paths: OpenPaths) -> None:
        self._checks = checks
        self._user_check = user_check
        self._open_paths = open_paths
        self.counts = {"identified": 0, "open": 0, "refused": 0, "failed": 0}
        """The number of decisions, by result."""
        self._has_logged = False

    def __repr__(self) -> str:
        return f"<Authenticator {', '.join(map(repr, (*self._checks, self._user_check)))}>"

    def identify(
        self, request: ClientRequest, decide: Callable[[Identity | Refusal], None], *, is_ambiguous: bool = False
    ) -> Identity | Refusal | PendingCheck | None:
        """Who sends the request; None: the path is open. For a PendingCheck `decide` is called later, once.

        `is_ambiguous`: it `repeats_credentials`, of which its metadata only have the last.
        """
        if request.path in self._open_paths:
            self.counts["open"] += 1
            return None
        if is_ambiguous:
            return self._counted(REPEATED_CREDENTIALS)
        answer = self._ready_answer(request)
        if answer is None and self._user_check is not None:
            pending = self._user_check.ask(request, lambda late: decide(self._counted(late)))
            if isinstance(pending, PendingCheck):
                return pending
            answer = pending
        return self._counted(answer or NO_CREDENTIALS)

    def close(self) -> None:
        """End the checks that are under way; their requests are refused."""
        if self._user_check is not None:
            self._user_check.close()

    def _ready_answer(self, request: ClientRequest) -> Identity | Refusal | None:
        for each in self._checks:
            try:
                answer = each.check(request)
            except Exception:
                self.counts["failed"] += 1
                if not self._has_logged:
                    self._has_logged = True
                    logger.exception("%r failed; requests are refused, and further failures are only counted", each)
                return _CHECK_FAILED
            if answer is not None:
                return refusal_of(answer) if isinstance(answer, Refused) else answer
        return None

    def _counted(self, answer: Identity | Refusal) -> Identity | Refusal:
        self.counts["identified" if isinstance(answer, Identity) else "refused"] += 1
        return answer
