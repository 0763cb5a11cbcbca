"""Handles over real links: arguments that are responses themselves."""

import pickle
from typing import Any

import pytest

from mesh.exceptions import (
    DeadlineExceededError,
    MeshException,
)
from tests.unit.fakes.small_mesh import SmallMesh
from tests.unit.handle.store import Store, raised, result

pytestmark = pytest.mark.timeout(60)


def test_responses_are_arguments_without_being_awaited(mesh: SmallMesh) -> None:
    """Chains of any depth work (item 29)."""
    handle = mesh.handle()
    first = handle.remote(b"x" * 1_000_000)
    chain: Any = first
    for _ in range(10):
        chain = handle.plain.remote(value=chain)
    assert result(chain) == result(first)


def test_a_failed_argument_fails_the_call_and_spares_its_siblings(mesh: SmallMesh, store: Store) -> None:
    """The caller gets the error of the argument (item 29)."""
    handle = mesh.handle()
    sibling = handle.block.remote()
    failed = handle.fail.remote("zero")

    assert isinstance(raised(handle.remote(sibling, failed)), ZeroDivisionError)
    store.gate.set()
    assert result(sibling) == "unblocked"


def test_the_deadline_counts_while_arguments_are_awaited(mesh: SmallMesh, store: Store) -> None:
    upstream = mesh.handle("hang").remote()
    error = raised(mesh.handle(timeout_s=0.05).remote(upstream))
    assert isinstance(error, DeadlineExceededError)
    upstream.cancel()


def test_a_stream_is_no_argument(mesh: SmallMesh) -> None:
    """The stream can still be read (item 31)."""
    stream = mesh.handle("count", stream=True).remote(1)
    with pytest.raises(RuntimeError, match="cannot be passed to downstream handle calls"):
        mesh.handle().remote(stream)
    assert list(stream) == [0]


def test_a_response_cannot_be_pickled(mesh: SmallMesh) -> None:
    """The error says how to pass it on (item 41)."""
    response = mesh.handle().remote(1)
    with pytest.raises(MeshException, match="top-level argument"):
        pickle.dumps(response)
    assert result(response) == 1
