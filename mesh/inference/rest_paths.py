"""The paths of the REST form. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from urllib.parse import unquote

from mesh.web.asgi_types import Scope

_MODEL, _VERSION = "{model}", "{version}"


@dataclass(frozen=True, slots=True)
class RestPath:
    """What a request is for."""

    route: str
    """Without the version: "v2/models/{model}/infer"."""
    pattern: str
    """With it if the path has one: "/v2/models/{model}/versions/{version}/infer"."""
    model: str = ""
    version: str = ""

    def mark(self, scope: Scope) -> None:
        """Let logs and metrics name the pattern as their route."""
        scope["route"] = SimpleNamespace(path=self.pattern)


def read_path(scope: Scope) -> RestPath:
    """The path below the route prefix; names may contain an encoded slash."""
    prefix = _segments(scope.get("root_path", ""))
    segments = _segments(scope["raw_path"].decode("latin-1"))[len(prefix) :]
    if segments[:2] != ["v2", "models"] or len(segments) < 3:
        return RestPath("/".join(segments), "/" + "/".join(segments))
    model, rest = segments[2], segments[3:]
    version, versioned = "", ""
    if rest[:1] == ["versions"] and len(rest) > 1:
        version, versioned, rest = rest[1], f"/versions/{_VERSION}", rest[2:]
    tail = "".join(f"/{each}" for each in rest)
    start = f"v2/models/{_MODEL}"
    return RestPath(f"{start}{tail}", f"/{start}{versioned}{tail}", model, version)


def _segments(path: str) -> list[str]:
    return [unquote(each) for each in path.strip("/").split("/") if each]
