"""README.md and docs/: every block of Python runs, in order, and prints what it says it prints."""

import contextlib
import functools
import io
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

import mesh
from mesh.options.gateway import gateway_options
from tests.documents import DOCUMENTS, ROOT, blocks_of
from tests.e2e.conftest import Gateway

TESTING = ROOT / "docs" / "testing.md"
WITH_PYTHON = [document for document in DOCUMENTS if blocks_of(document, "python") and document != TESTING]


@pytest.mark.parametrize("document", WITH_PYTHON, ids=lambda path: path.name)
def test_python_runs_and_prints_what_it_says(document: Path, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options of `mesh.start` are only checked: the gateways of the run would get other ports, and files they lack."""
    check = functools.partial(gateway_options.parse, proxy_location=None, http_options=None, grpc_options=None)
    monkeypatch.setattr(mesh, "start", check)
    # Of a module that cannot be imported: so its classes travel to replicas by value, as those of a script do.
    names: dict[str, object] = {"__name__": f"document_{uuid.uuid4().hex}"}
    try:
        for block in blocks_of(document, "python"):
            # Line numbers in tracebacks are the document's.
            source = "\n" * (block.line - 1) + at_gateway(block.text, gateway)
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(source, str(document), "exec"), names)
            assert printed.getvalue().splitlines() == block.printed, f"{document.name}, line {block.line}"
    finally:
        for name in mesh.status().applications:
            mesh.delete(name)


def test_the_tests_that_docs_testing_shows_pass(cluster: Path, tmp_path: Path) -> None:
    """They start a Ray of their own: a private one beside that of this run (items 253–256, C15)."""
    (tmp_path / "test_weather.py").write_text("\n\n".join(block.text for block in blocks_of(TESTING, "python")))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_weather.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(cluster.parent)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert "7 passed" in done.stdout, done.stdout + done.stderr


def at_gateway(source: str, gateway: Gateway) -> str:
    """Replaces the default ports of the documents, which may be in use, with those of the tests."""
    return source.replace("localhost:9000", gateway.grpc_address).replace("http://localhost:8000", gateway.http_url)
