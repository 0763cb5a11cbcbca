"""The paths of the REST form, as requests and as routes of logs and metrics."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.inference.rest_paths import RestPath, read_path
from mesh.web.asgi_scope import route_pattern


def scope_of(path: str, root_path: str = "") -> dict[str, Any]:
    return {"raw_path": path.encode(), "root_path": root_path}


@pytest.mark.parametrize(
    ("path", "root_path", "expected"),
    [
        ("/v2", "", RestPath("v2", "/v2")),
        ("/v2/", "", RestPath("v2", "/v2")),
        ("/a/b/v2/health/live", "/a/b", RestPath("v2/health/live", "/v2/health/live")),
        ("/v2/models/m", "", RestPath("v2/models/{model}", "/v2/models/{model}", "m")),
        ("/v2/models/a%2Fb%20c/infer", "", RestPath("v2/models/{model}/infer", "/v2/models/{model}/infer", "a/b c")),
        ("/v2/models/m/versions/3", "", RestPath(
            "v2/models/{model}", "/v2/models/{model}/versions/{version}", "m", "3"
        )),
        ("/v2/models/m/versions", "", RestPath("v2/models/{model}/versions", "/v2/models/{model}/versions", "m")),
        ("/v2/models/versions/versions/versions/ready", "", RestPath(
            "v2/models/{model}/ready", "/v2/models/{model}/versions/{version}/ready", "versions", "versions"
        )),
        ("/v2/models", "", RestPath("v2/models", "/v2/models")),
        ("/", "", RestPath("", "/")),
        ("/%C3%A4/v2", "/\u00e4", RestPath("v2", "/v2")),
    ],
)  # fmt: skip
def test_a_path_says_what_it_is_for(path: str, root_path: str, expected: RestPath) -> None:
    assert read_path(scope_of(path, root_path)) == expected


def test_logs_and_metrics_name_the_pattern() -> None:
    scope = scope_of("/v2/models/m/versions/3/infer")
    read_path(scope).mark(scope)
    assert route_pattern(scope) == "/v2/models/{model}/versions/{version}/infer"
