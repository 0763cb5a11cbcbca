"""The page as an application: a Starlette application that each replica builds.

With the weather application beside it: `mesh run examples/browser/mesh.yaml`, then open http://localhost:8000/page/.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

import mesh

PAGE = Path(__file__).parent / "page"


@mesh.ingress()
class Page:
    """Serves the page, and the JavaScript clients that `python -m examples.browser.bundle` has made."""

    def __init__(self, clients: str) -> None:
        self._clients = clients

    def __serve_build_asgi_app__(self) -> Starlette:
        page = Mount("/", StaticFiles(directory=PAGE, html=True))
        bundled = Mount("/clients", StaticFiles(directory=self._clients, check_dir=False))
        return Starlette(routes=[bundled, page] if self._clients else [page])


@dataclass
class PageArgs:
    """Arguments that a configuration file or the command line can set."""

    clients: str = ""
    """The directory of `clients.js`; empty: the page calls without those clients."""


def build(args: PageArgs) -> mesh.Application:
    return mesh.deployment(Page, ray_actor_options={"num_cpus": 0.1}).bind(args.clients)


app = build(PageArgs())
