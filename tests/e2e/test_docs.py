"""README.md and docs/: every block of Python runs, in order, and prints what it says it prints."""

import contextlib
import io
import uuid
from pathlib import Path

import pytest

import mesh
from tests.documents import DOCUMENTS, blocks_of
from tests.e2e.conftest import Gateway

WITH_PYTHON = [document for document in DOCUMENTS if blocks_of(document, "python")]


@pytest.mark.parametrize("document", WITH_PYTHON, ids=lambda path: path.name)
def test_python_runs_and_prints_what_it_says(document: Path, gateway: Gateway) -> None:
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


def at_gateway(source: str, gateway: Gateway) -> str:
    """Replaces the default ports of the documents, which may be in use, with those of the tests."""
    return source.replace("localhost:9000", gateway.grpc_address).replace("http://localhost:8000", gateway.http_url)
