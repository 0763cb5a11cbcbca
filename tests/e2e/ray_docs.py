"""What tests of documented applications share: requests by HTTP, and the type of their fixture `run`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from mesh.handle import DeploymentHandle

URL = str
Run = Callable[..., tuple[DeploymentHandle, URL]]
DEADLINE_S = 20.0


def get(url: str, **options: Any) -> httpx.Response:
    return httpx.get(url, timeout=DEADLINE_S, trust_env=False, **options)


def post(url: str, **options: Any) -> httpx.Response:
    return httpx.post(url, timeout=DEADLINE_S, trust_env=False, **options)
