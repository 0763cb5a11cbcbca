"""A graph with a dictionary of handles: the ingress chooses the deployment by what a request says.

`mesh run examples.apps.translators:app`, then `curl 'http://localhost:8000/de?text=good+morning'`.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse

import mesh

WORDS = {
    "de": {"good": "guten", "morning": "Morgen"},
    "fr": {"good": "bon", "morning": "matin"},
    "es": {"good": "buenos", "morning": "días"},
}


class Translator:
    def __init__(self, words: dict[str, str]) -> None:
        self.words = words

    def translate(self, text: str) -> str:
        return " ".join(self.words.get(word, word) for word in text.split())


class Desk:
    def __init__(self, translators: dict[str, mesh.DeploymentHandle]) -> None:
        self.translators = translators

    async def __call__(self, request: Request) -> JSONResponse:
        language = request.url.path.rpartition("/")[2]
        if language not in self.translators:
            return JSONResponse({"error": f"Languages: {', '.join(self.translators)}."}, 404)
        translator = self.translators[language]
        return JSONResponse({language: await translator.translate.remote(request.query_params["text"])})


translator = mesh.deployment(Translator)
desk = mesh.deployment(Desk)
app = desk.bind(
    {language: translator.options(name=f"Translator-{language}").bind(words) for language, words in WORDS.items()}
)
