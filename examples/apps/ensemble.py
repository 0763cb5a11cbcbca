"""An ensemble: two models share the deployment that prepares their features, and a third combines them.

`mesh run examples.apps.ensemble:app`, then open http://localhost:8000/?text=good+good+bad.
"""

from __future__ import annotations

from statistics import mean

from starlette.requests import Request

import mesh

GOOD = {"good", "great", "fine"}
BAD = {"bad", "poor"}


class Features:
    """Bound once, so both models ask the same replica."""

    def __init__(self) -> None:
        self.asked = 0

    def words(self, text: str) -> list[str]:
        self.asked += 1
        return text.lower().split()

    def how_often(self) -> int:
        return self.asked


class Share:
    """The share of good words among those that have a meaning."""

    def __init__(self, features: mesh.DeploymentHandle) -> None:
        self.features = features

    async def score(self, text: str) -> float:
        words = await self.features.words.remote(text)
        meant = [word for word in words if word in GOOD | BAD]
        return sum(word in GOOD for word in meant) / max(len(meant), 1)


class LastWord:
    """Texts say at their end what they mean."""

    def __init__(self, features: mesh.DeploymentHandle) -> None:
        self.features = features

    async def score(self, text: str) -> float:
        words = await self.features.words.remote(text)
        return float(words[-1] in GOOD) if words else 0.0


class Ensemble:
    def __init__(self, *models: mesh.DeploymentHandle) -> None:
        self.models = models

    async def __call__(self, request: Request) -> dict[str, float]:
        return {"score": await self.score(request.query_params["text"])}

    async def score(self, text: str) -> float:
        scores = [model.score.remote(text) for model in self.models]
        return float(mean([await score for score in scores]))


features = mesh.deployment(Features)
share = mesh.deployment(Share)
last_word = mesh.deployment(LastWord)
ensemble = mesh.deployment(Ensemble)
bound_features = features.bind()
app = ensemble.bind(share.bind(bound_features), last_word.bind(bound_features))
