"""The descriptors of applications beside their specs: by a digest, which is all that the desired state holds. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from mesh.controller.store.state_contents import used_digests
from mesh.v1 import control_pb2


def digest_of(application: control_pb2.ApplicationSpec) -> str:
    """The name of the application's descriptors, stored or about to be; empty: it has none."""
    if not application.descriptors:
        return application.descriptors_digest
    return hashlib.sha256(application.descriptors).hexdigest()


def new_sets(applications: Iterable[control_pb2.ApplicationSpec]) -> dict[str, bytes]:
    """The descriptors that the specs still carry, by digest."""
    return {digest_of(app): app.descriptors for app in applications if app.descriptors}


def used_sets(state: control_pb2.DesiredState, known: Mapping[str, bytes]) -> dict[str, bytes]:
    """Those of `known` that applications of `state` refer to."""
    digests = used_digests(state)
    return {digest: known[digest] for digest in digests if digest in known}
