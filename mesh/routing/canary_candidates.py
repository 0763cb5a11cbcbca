"""The replicas of a canary that calls may be sent to, apart from those of the version beside it. I/O loop only."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from mesh.link.outgoing_call import OutgoingCall
from mesh.routing.choice.locality import Locality
from mesh.routing.choice.picker import Random, pick_for_model, pick_for_session
from mesh.routing.choice.traffic_split import TrafficSplit
from mesh.routing.endpoint import Endpoint
from mesh.routing.model_holders import ModelHolders


class CanaryCandidates:
    """At least one replica, and at least one of the other version is there too."""

    __slots__ = ("_members", "_models", "_track", "all")

    def __init__(self, track: str, endpoints: Sequence[Endpoint], previous: CanaryCandidates | None) -> None:
        """`track`: in the context of the requests that they serve."""
        self._track = track
        self.all: Locality[Endpoint] = Locality(endpoints, previous.all if previous is not None else None)
        self._members = frozenset(endpoints)
        self._models = ModelHolders()
        self._models.reset(self.all.candidates)

    def __contains__(self, endpoint: Endpoint) -> bool:
        return endpoint in self._members

    def serves(self, call: OutgoingCall) -> bool:
        return self._track in call.request.context.track

    def pick(self, call: OutgoingCall, random: Random) -> Endpoint | None:
        """A replica with a free place, or None: the other version serves the call then, so a canary delays none."""
        model_id = call.request.context.multiplexed_model_id
        if model_id:
            return pick_for_model(self._models.of(model_id), self.all.candidates, random, may_spill=True)
        affinity = call.request.session_id or call.request.context.tenant
        if affinity:
            return pick_for_session(affinity, self.all.candidates)
        return self.all.pick(random)

    def forget_models(self, model_ids: Iterable[str]) -> None:
        """A replica has gained or lost these models."""
        self._models.forget(model_ids)


def divided(
    endpoints: Sequence[Endpoint],
    listed: Collection[Endpoint],
    split: TrafficSplit | None,
    previous: CanaryCandidates | None,
) -> tuple[Sequence[Endpoint], CanaryCandidates | None]:
    """Of the usable endpoints, those of the version beside the canary, and those of the canary.

    Where only one of the two is listed, its replicas serve all calls. Where the other version is listed and not usable
    yet, or left out, its calls do not go to the canary: they wait, or go to replicas that are left out.
    """
    if split is None:
        return endpoints, None
    version = split.rule.version
    canary = [endpoint for endpoint in endpoints if endpoint.info.version == version]
    beside = [endpoint for endpoint in listed if endpoint.info.version != version]
    if not canary or not beside:
        return endpoints, None
    others = [endpoint for endpoint in endpoints if endpoint.info.version != version]
    others = others or [endpoint for endpoint in beside if endpoint.is_usable]
    return others, CanaryCandidates(split.rule.canary_track, canary, previous)
