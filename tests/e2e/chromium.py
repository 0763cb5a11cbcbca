"""A headless Chromium, driven by its DevTools protocol."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.e2e.waiting import until

TIMEOUT_S = 40.0
BINARY = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # which needs rights that containers do not have
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-port=0",
)


class Page:
    """The only tab of the browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._loads = 0
        self._ask("Page.enable")

    def open(self, url: str) -> None:
        """Comes back when the page is loaded and its scripts have begun."""
        loads = self._loads
        assert "errorText" not in (navigated := self._ask("Page.navigate", url=url)), navigated
        while self._loads == loads:
            self._receive()

    def value_of(self, expression: str) -> Any:
        """What a JavaScript expression gives; a promise is awaited."""
        evaluated = self._ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in evaluated, evaluated
        return evaluated["result"].get("value")

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := self._receive()).get("id") != number:
            pass
        assert "result" in message, message
        found: dict[str, Any] = message["result"]
        return found

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv(TIMEOUT_S))
        self._loads += message.get("method") == "Page.loadEventFired"
        return message


@contextmanager
def browser(profile: Path, *flags: str) -> Iterator[Page]:
    """`profile`: an empty directory for all files of the browser. Its processes have ended afterwards."""
    assert BINARY is not None
    home = {
        "HOME": str(profile),
        "TMPDIR": str(profile),
        "XDG_CONFIG_HOME": str(profile),
        "XDG_CACHE_HOME": str(profile),
    }
    with (profile / "log").open("wb") as log:
        process = subprocess.Popen(
            [BINARY, *FLAGS, *flags, f"--user-data-dir={profile / 'data'}", "about:blank"],
            env={**os.environ, **home},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        with connect(address_of_tab(profile), proxy=None, max_size=None, open_timeout=TIMEOUT_S) as socket:
            yield Page(socket)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(TIMEOUT_S)


def address_of_tab(profile: Path) -> str:
    file = profile / "data" / "DevToolsActivePort"
    until(lambda: file.exists() and file.read_text().count("\n"), TIMEOUT_S)
    port = file.read_text().split("\n")[0]

    def tabs() -> list[str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=TIMEOUT_S) as answer:
            return [each["webSocketDebuggerUrl"] for each in json.load(answer) if each["type"] == "page"]

    return until(tabs, TIMEOUT_S)[0]
